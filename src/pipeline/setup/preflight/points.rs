//! What the checks of a job have found, point by point.
//!
//! A job that starts takes the first failure, as its own error. A person who asks (`lantern-cli check`) gets all
//! points.

use crate::pipeline::error::JobError;

/// One thing that was looked at.
#[derive(Debug)]
pub struct Point {
    /// What it is, in one or two words.
    pub title: &'static str,
    /// What was found.
    pub outcome: Outcome,
}

/// What was found at a point.
#[derive(Debug)]
pub enum Outcome {
    /// It is as the job needs it.
    Passed(String),
    /// The job works, and a person should know this.
    Advice(String),
    /// The job cannot start. The error says what to do.
    Failed(JobError),
    /// It could not be looked at, because of what the text says.
    Unknown(String),
}

/// All points so far, in the order in which they were looked at.
#[derive(Debug, Default)]
pub struct Points(Vec<Point>);

impl Points {
    /// Adds a point.
    pub fn add(&mut self, title: &'static str, outcome: Outcome) {
        self.0.push(Point { title, outcome });
    }

    /// Adds what a check has found. `say` describes what is as it should be.
    pub fn note<T>(
        &mut self,
        title: &'static str,
        found: Result<T, impl Into<JobError>>,
        say: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match found {
            Ok(found) => {
                self.add(title, Outcome::Passed(say(&found)));
                Some(found)
            }
            Err(error) => {
                self.add(title, Outcome::Failed(error.into()));
                None
            }
        }
    }

    /// Adds a failure, if the check has failed.
    pub fn note_failure<T>(
        &mut self,
        title: &'static str,
        found: Result<T, impl Into<JobError>>,
    ) -> Option<T> {
        found
            .map_err(|error| self.add(title, Outcome::Failed(error.into())))
            .ok()
    }

    /// Adds points that cannot be looked at, for this reason.
    pub fn skip(&mut self, titles: &[&'static str], why: &str) {
        for title in titles {
            self.add(title, Outcome::Unknown(why.to_owned()));
        }
    }

    /// Adds the points of another list behind these.
    pub fn append(&mut self, other: Points) {
        self.0.extend(other.0);
    }

    /// All points.
    pub fn iter(&self) -> impl Iterator<Item = &Point> {
        self.0.iter()
    }

    /// Whether the job could start.
    pub fn may_start(&self) -> bool {
        self.0
            .iter()
            .all(|point| !matches!(point.outcome, Outcome::Failed(_)))
    }

    /// The first failure as the error of a job that starts; otherwise what a person should know.
    ///
    /// # Errors
    /// The first failure.
    pub fn into_advice(self) -> Result<Vec<String>, JobError> {
        let mut advice = Vec::new();
        for point in self.0 {
            match point.outcome {
                Outcome::Failed(error) => return Err(error),
                Outcome::Advice(text) => advice.push(text),
                Outcome::Passed(_) | Outcome::Unknown(_) => {}
            }
        }
        Ok(advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_starts_takes_the_first_failure_and_else_the_advice() {
        let mut points = Points::default();
        points.add("a", Outcome::Advice("mind the gap".into()));
        points.skip(&["b"], "not now");
        assert!(points.may_start());
        let mut failed = Points::default();
        failed.append(points);
        let found: Result<(), _> = Err(JobError::permanent("first"));
        assert!(failed.note("c", found, |()| String::new()).is_none());
        failed.add("d", Outcome::Failed(JobError::permanent("second")));
        assert!(!failed.may_start());
        assert_eq!(failed.into_advice().unwrap_err().to_string(), "first");

        let mut points = Points::default();
        points.add("a", Outcome::Advice("mind the gap".into()));
        assert_eq!(points.into_advice().unwrap(), ["mind the gap"]);
    }
}
