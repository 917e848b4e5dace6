//! What changed in the jobs table since the last look.
//!
//! The table is polled: a trigger would be code of ours inside somebody's database, and a slot on the jobs table would
//! demand `wal_level = logical` of a database that may not be a target at all. Reading a table of some dozen rows twice a
//! second costs less than either.

use std::collections::{BTreeMap, BTreeSet};

use super::definition::{JobId, JobRow};

/// One difference between two looks at the table that asks for more than to run what should run ([`Watcher::wanted`]).
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// The definition changed, and the job can go on where it is: only how it works or connects is another.
    Restart(JobId),
    /// The job became another one: what runs under this row ends and is cleaned up.
    Replace(Box<JobRow>),
    /// The job was cancelled or its row deleted: it ends, where it runs, and nothing of it stays behind.
    Cancel(Box<JobRow>),
    /// Whoever ran the job has written its failure down, perhaps before the first look. Nothing of it stays behind.
    Failed(Box<JobRow>),
}

/// Compares successive states of the table.
#[derive(Default)]
pub struct Watcher {
    known: BTreeMap<JobId, JobRow>,
    /// Failed jobs whose definition has changed since: worth another try, though the failure is not taken back.
    mended: BTreeSet<JobId>,
}

impl Watcher {
    /// The differences to `rows`, in order of id; remembers `rows` for the next call.
    pub fn observe(&mut self, rows: &[JobRow]) -> Vec<Change> {
        let current: BTreeMap<JobId, JobRow> = rows
            .iter()
            .map(|row| (row.id.clone(), row.clone()))
            .collect();
        let mut changes = Vec::new();
        for (id, row) in &current {
            let change = difference(self.known.get(id), row);
            let redefined = matches!(change, Some(Change::Restart(_) | Change::Replace(_)));
            if redefined && row.failed {
                self.mended.insert(id.clone());
            }
            changes.extend(change);
        }
        for (id, row) in &self.known {
            if !current.contains_key(id) {
                changes.push(Change::Cancel(Box::new(row.clone())));
            }
        }
        self.mended
            .retain(|id| current.get(id).is_some_and(|row| row.failed));
        self.known = current;
        changes
    }

    /// The row as last seen.
    pub fn row(&self, id: &JobId) -> Option<&JobRow> {
        self.known.get(id)
    }

    /// The jobs that should run, by one daemon or another.
    pub fn wanted(&self) -> impl Iterator<Item = &JobRow> {
        self.known
            .values()
            .filter(|row| !row.canceled && (!row.failed || self.mended.contains(&row.id)))
    }

    /// Notes a failure that this daemon itself wrote, so that a person's taking it back is seen as a change.
    pub fn note_failure(&mut self, id: &JobId) {
        self.mended.remove(id);
        if let Some(row) = self.known.get_mut(id) {
            row.failed = true;
        }
    }
}

fn difference(before: Option<&JobRow>, now: &JobRow) -> Option<Change> {
    let row = || Box::new(now.clone());
    match before {
        // Cancelled rows are reported at the first look too: their end may have been missed while no daemon ran.
        _ if now.canceled => {
            let news = before.is_none_or(|before| !before.canceled);
            news.then(|| Change::Cancel(row()))
        }
        None => now.failed.then(|| Change::Failed(row())),
        Some(before) if before.definition != now.definition => {
            Some(if before.definition.continues(&now.definition) {
                Change::Restart(now.id.clone())
            } else {
                Change::Replace(Box::new(before.clone()))
            })
        }
        Some(before) => (now.failed && !before.failed).then(|| Change::Failed(row())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl std::fmt::Debug for Change {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let (name, id) = match self {
                Change::Restart(id) => ("Restart", id),
                Change::Replace(row) => ("Replace", &row.id),
                Change::Cancel(row) => ("Cancel", &row.id),
                Change::Failed(row) => ("Failed", &row.id),
            };
            write!(f, "{name}({id})")
        }
    }

    fn seen(watcher: &mut Watcher, rows: &[&JobRow]) -> (Vec<Change>, usize) {
        let rows: Vec<JobRow> = rows.iter().map(|row| (*row).clone()).collect();
        (watcher.observe(&rows), watcher.wanted().count())
    }

    fn boxed(row: &JobRow) -> Box<JobRow> {
        Box::new(row.clone())
    }

    #[test]
    fn a_life_of_a_job() {
        let first = JobRow::example("1");
        let mut watcher = Watcher::default();
        assert_eq!(seen(&mut watcher, &[&first]), (vec![], 1));
        let failed = JobRow {
            failed: true,
            ..first.clone()
        };
        let change = Change::Failed(boxed(&failed));
        assert_eq!(seen(&mut watcher, &[&failed]), (vec![change], 0));
        assert_eq!(seen(&mut watcher, &[&failed]), (vec![], 0));
        assert_eq!(seen(&mut watcher, &[&first]), (vec![], 1));
        let mut other = first.clone();
        other.definition.table = Some("t2".into());
        let change = Change::Replace(boxed(&first));
        assert_eq!(seen(&mut watcher, &[&other]), (vec![change], 1));
        other.definition.db_connection = "postgresql://localhost/d?connect_timeout=3".into();
        let change = Change::Restart(other.id.clone());
        assert_eq!(seen(&mut watcher, &[&other]), (vec![change], 1));
        let canceled = JobRow {
            canceled: true,
            ..other.clone()
        };
        let change = Change::Cancel(boxed(&canceled));
        assert_eq!(seen(&mut watcher, &[&canceled]), (vec![change], 0));
        assert_eq!(seen(&mut watcher, &[&canceled]), (vec![], 0));
        assert_eq!(seen(&mut watcher, &[&other]), (vec![], 1));
        let change = Change::Cancel(boxed(&other));
        assert_eq!(seen(&mut watcher, &[]), (vec![change], 0));
    }

    #[test]
    fn a_failed_job_stays_failed_over_a_restart_until_somebody_acts() {
        let mut watcher = Watcher::default();
        let failed = JobRow {
            failed: true,
            ..JobRow::example("1")
        };
        let change = Change::Failed(boxed(&failed));
        assert_eq!(seen(&mut watcher, &[&failed]), (vec![change], 0));
        let mut mended = failed.clone();
        mended.definition.embedding_model = Some("other".into());
        let change = Change::Replace(boxed(&failed));
        assert_eq!(seen(&mut watcher, &[&mended]), (vec![change], 1));
        // Until it has failed again.
        assert_eq!(seen(&mut watcher, &[&mended]), (vec![], 1));
        watcher.note_failure(&mended.id);
        assert_eq!(seen(&mut watcher, &[&mended]), (vec![], 0));
    }

    #[test]
    fn a_failure_that_this_daemon_wrote_is_no_news() {
        let mut watcher = Watcher::default();
        let row = JobRow::example("1");
        assert_eq!(seen(&mut watcher, &[&row]), (vec![], 1));
        watcher.note_failure(&row.id);
        let failed = JobRow {
            failed: true,
            ..row
        };
        assert_eq!(seen(&mut watcher, &[&failed]), (vec![], 0));
    }
}
