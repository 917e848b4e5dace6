//! What changed in the jobs table since the last look.
//!
//! The table is polled: a trigger would be code of ours inside somebody's database, and a slot on the jobs table would
//! demand `wal_level = logical` of a database that may not be a target at all. Reading a table of some dozen rows twice a
//! second costs less than either.

use std::collections::BTreeMap;

use super::definition::{JobId, JobRow};

/// One difference between two looks at the table.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// The job should run: it is new, un-cancelled, its failure was taken back, or its definition changed.
    Start(JobId),
    /// The definition changed, and the job can go on where it is: only how it works or connects is another.
    Restart(JobId),
    /// The job became another one: what runs under the old definition ends and is cleaned up, then it starts over.
    Replace { id: JobId, old: Box<JobRow> },
    /// The job was cancelled or its row deleted, or it had failed before the first look: it ends, where it runs, and nothing
    /// of it stays behind.
    Cancel(JobId),
}

/// Compares successive states of the table.
#[derive(Default)]
pub struct Watcher {
    known: BTreeMap<JobId, JobRow>,
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
            changes.extend(difference(self.known.get(id), row));
        }
        for id in self.known.keys().filter(|id| !current.contains_key(*id)) {
            changes.push(Change::Cancel(id.clone()));
        }
        self.known = current;
        changes
    }

    /// The row as last seen.
    pub fn row(&self, id: &JobId) -> Option<&JobRow> {
        self.known.get(id)
    }

    /// Notes a failure that this daemon itself wrote, so that a person's taking it back is seen as a change.
    pub fn note_failure(&mut self, id: &JobId) {
        if let Some(row) = self.known.get_mut(id) {
            row.failed = true;
        }
    }
}

fn difference(before: Option<&JobRow>, now: &JobRow) -> Option<Change> {
    let id = now.id.clone();
    match before {
        // Cancelled rows are reported at the first look too: their end may have been missed while no daemon ran.
        _ if now.canceled => {
            let news = before.is_none_or(|before| !before.canceled);
            news.then_some(Change::Cancel(id))
        }
        None if now.failed => Some(Change::Cancel(id)),
        None => Some(Change::Start(id)),
        Some(before) if before.definition != now.definition => {
            Some(if before.definition.continues(&now.definition) {
                Change::Restart(id)
            } else {
                Change::Replace {
                    id,
                    old: Box::new(before.clone()),
                }
            })
        }
        Some(before) if before.canceled || (before.failed && !now.failed) => {
            Some(Change::Start(id))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl std::fmt::Debug for Change {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let (name, id) = match self {
                Change::Start(id) => ("Start", id),
                Change::Restart(id) => ("Restart", id),
                Change::Replace { id, .. } => ("Replace", id),
                Change::Cancel(id) => ("Cancel", id),
            };
            write!(f, "{name}({id})")
        }
    }

    #[test]
    fn a_life_of_a_job() {
        let id = JobId::new("1");
        let mut watcher = Watcher::default();
        assert_eq!(
            watcher.observe(&[JobRow::example("1")]),
            [Change::Start(id.clone())]
        );
        assert_eq!(watcher.observe(&[JobRow::example("1")]), []);
        let failed = JobRow {
            failed: true,
            ..JobRow::example("1")
        };
        assert_eq!(watcher.observe(std::slice::from_ref(&failed)), []);
        assert_eq!(
            watcher.observe(&[JobRow::example("1")]),
            [Change::Start(id.clone())]
        );
        let mut other = JobRow::example("1");
        other.definition.table = Some("t2".into());
        let replaced = watcher.observe(std::slice::from_ref(&other));
        assert!(
            matches!(&replaced[..], [Change::Replace { old, .. }] if old.definition == JobRow::example("1").definition)
        );
        other.definition.db_connection = "postgresql://localhost/d?connect_timeout=3".into();
        assert_eq!(
            watcher.observe(std::slice::from_ref(&other)),
            [Change::Restart(id.clone())]
        );
        let canceled = JobRow {
            canceled: true,
            ..other.clone()
        };
        assert_eq!(
            watcher.observe(std::slice::from_ref(&canceled)),
            [Change::Cancel(id.clone())]
        );
        assert_eq!(watcher.observe(&[canceled]), []);
        assert_eq!(watcher.observe(&[other]), [Change::Start(id.clone())]);
        assert_eq!(watcher.observe(&[]), [Change::Cancel(id)]);
    }

    #[test]
    fn a_failed_job_stays_failed_over_a_restart_until_somebody_acts() {
        let mut watcher = Watcher::default();
        let failed = JobRow {
            failed: true,
            ..JobRow::example("1")
        };
        assert_eq!(
            watcher.observe(std::slice::from_ref(&failed)),
            [Change::Cancel(JobId::new("1"))]
        );
        let mut mended = failed;
        mended.definition.embedding_model = Some("other".into());
        assert!(matches!(
            &watcher.observe(&[mended])[..],
            [Change::Replace { .. }]
        ));
    }
}
