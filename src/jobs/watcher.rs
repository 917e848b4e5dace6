//! What has changed in the jobs table since the last poll.
//!
//! The table is polled. The alternatives cost the owner of the jobs database more than a query of some dozen rows every
//! 400 ms: a trigger with NOTIFY would be our code in a user's database, and a replication slot would need `wal_level
//! = logical` on a server that may not have a target table at all.

use std::collections::{BTreeMap, BTreeSet};

use super::definition::{JobId, JobRow};

/// A difference between two polls that calls for an action. Jobs that should run are a list of their own:
/// [`Watcher::wanted`].
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// The definition has changed, but not which vectors it asks for: the job restarts and continues where it is.
    Restart(JobId),
    /// The definition asks for other vectors. The job of the old row, which this is, ends and is removed.
    Replace(Box<JobRow>),
    /// The job was canceled or its row deleted. It ends and is removed.
    Cancel(Box<JobRow>),
    /// The job has failed, in this daemon or another one, or before the first poll. Its slot is removed.
    Failed(Box<JobRow>),
}

/// Compares successive states of the table.
#[derive(Default)]
pub struct Watcher {
    known: BTreeMap<JobId, JobRow>,
    /// Failed jobs whose definition has changed since. They are tried again although `init_failed_at` is still set.
    mended: BTreeSet<JobId>,
    /// Ids that several rows have, which only a table without a key can have.
    ambiguous: BTreeSet<JobId>,
}

impl Watcher {
    /// The changes since the last call, in order of id. Remembers `rows` for the next call.
    ///
    /// While several rows have one id, nobody can say which of them is the job's. Then the job stays as it was: it goes
    /// on if it was known, and does not start if it was not.
    pub fn observe(&mut self, rows: &[JobRow]) -> Vec<Change> {
        let mut current: BTreeMap<JobId, JobRow> = BTreeMap::new();
        self.ambiguous.clear();
        for row in rows {
            if current.insert(row.id.clone(), row.clone()).is_some() {
                self.ambiguous.insert(row.id.clone());
            }
        }
        for id in &self.ambiguous {
            match self.known.get(id) {
                Some(before) => current.insert(id.clone(), before.clone()),
                None => current.remove(id),
            };
        }
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

    /// The ids that several rows had at the last poll.
    pub fn ambiguous(&self) -> &BTreeSet<JobId> {
        &self.ambiguous
    }

    /// The row as of the last poll.
    pub fn row(&self, id: &JobId) -> Option<&JobRow> {
        self.known.get(id)
    }

    /// The jobs that should run, in this daemon or another one.
    pub fn wanted(&self) -> impl Iterator<Item = &JobRow> {
        self.known
            .values()
            .filter(|row| !row.canceled && (!row.failed || self.mended.contains(&row.id)))
    }

    /// Another job that should run, writes a column of this one, and comes first.
    pub fn earlier_writer(&self, id: &JobId) -> Option<&JobId> {
        let own = self.known.get(id)?;
        let mut wanted = self.wanted();
        wanted
            .find(|other| own.comes_after(other))
            .map(|other| &other.id)
    }

    /// The jobs that wait until a person acts.
    pub fn failed(&self) -> impl Iterator<Item = &JobRow> {
        let rows = self.known.values();
        rows.filter(|row| row.failed && !row.canceled && !self.mended.contains(&row.id))
    }

    /// Whether this job should run.
    pub fn is_wanted(&self, id: &JobId) -> bool {
        let row = self.known.get(id);
        row.is_some_and(|row| !row.canceled && (!row.failed || self.mended.contains(id)))
    }

    /// Takes in a failure that this daemon has written itself. When a person then clears the failure, that is a change,
    /// even if it happens before the next poll.
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
        // At the first poll too: the job may have been canceled while no daemon ran, and its slot may still be there.
        _ if now.canceled => {
            let is_new = before.is_none_or(|before| !before.canceled);
            is_new.then(|| Change::Cancel(row()))
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
    use crate::jobs::definition::InitProgress;

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
    fn of_two_jobs_on_one_column_the_older_comes_first() {
        let [first, mut second] = ["9", "10"].map(JobRow::example);
        let mut watcher = Watcher::default();
        let mut earlier = |rows: [&JobRow; 2], id: &str| {
            seen(&mut watcher, &rows);
            let found = watcher.earlier_writer(&JobId::new(id));
            found.map(JobId::to_string)
        };
        assert_eq!(earlier([&first, &second], "10").as_deref(), Some("9"));
        assert_eq!(earlier([&first, &second], "9"), None);
        // It has run already, however great its id.
        second.progress = InitProgress::Finished;
        assert_eq!(earlier([&first, &second], "9").as_deref(), Some("10"));
        second.canceled = true;
        assert_eq!(earlier([&first, &second], "9"), None);
        second.canceled = false;
        second.definition.dst_column = Some("another".into());
        assert_eq!(earlier([&first, &second], "9"), None);
        second.definition.fingerprint_column = first.definition.dst_column.clone();
        assert_eq!(earlier([&first, &second], "9").as_deref(), Some("10"));
        second.definition.db_connection = "postgresql://localhost/another".into();
        assert_eq!(earlier([&first, &second], "9"), None);
    }

    #[test]
    fn of_two_jobs_on_one_table_for_passages_the_older_comes_first() {
        let [mut first, mut second] = ["1", "2"].map(JobRow::example);
        let mut watcher = Watcher::default();
        let mut earlier = |rows: [&JobRow; 2]| {
            seen(&mut watcher, &rows);
            let found = watcher.earlier_writer(&JobId::new("2"));
            found.map(JobId::to_string)
        };
        // The names are two ways to write one, and the rows are of other tables and columns.
        first.definition.chunk_table = Some("chunks".into());
        second.definition.chunk_table = Some("\"public\".chunks".into());
        second.definition.table = Some("others".into());
        second.definition.dst_column = Some("another".into());
        assert_eq!(earlier([&first, &second]).as_deref(), Some("1"));
        second.definition.chunk_table = Some("search.chunks".into());
        assert_eq!(earlier([&first, &second]), None);
        // The table for passages may have a job of its own.
        second.definition.chunk_table = None;
        second.definition.table = Some("chunks".into());
        assert_eq!(earlier([&first, &second]), None);
        second
            .definition
            .dst_column
            .clone_from(&first.definition.dst_column);
        assert_eq!(earlier([&first, &second]).as_deref(), Some("1"));
    }

    #[test]
    fn a_job_and_the_one_that_it_replaces_do_not_get_in_each_others_way_and_others_do() {
        let [first, mut second, mut third] = ["1", "2", "3"].map(JobRow::example);
        second.definition.replaces = Some(first.id.clone());
        third.definition.replaces = Some(first.id.clone());
        let mut watcher = Watcher::default();
        seen(&mut watcher, &[&first, &second, &third]);
        let earlier = |id: &str| {
            let found = watcher.earlier_writer(&JobId::new(id));
            found.map(JobId::to_string)
        };
        assert_eq!(earlier("1"), None);
        assert_eq!(earlier("2"), None);
        assert_eq!(earlier("3").as_deref(), Some("2"));
    }

    #[test]
    fn a_job_whose_id_other_rows_have_too_stays_as_it_was() {
        let mut watcher = Watcher::default();
        let first = JobRow::example("1");
        let mut other = first.clone();
        other.definition.db_connection = "postgresql://elsewhere/d".into();
        // Not known yet: none of them starts.
        assert_eq!(seen(&mut watcher, &[&first, &other]), (vec![], 0));
        assert_eq!(watcher.ambiguous().len(), 1);
        assert_eq!(seen(&mut watcher, &[&first]), (vec![], 1));
        assert_eq!(seen(&mut watcher, &[&other, &first]), (vec![], 1));
        assert_eq!(watcher.row(&first.id).map(|row| row == &first), Some(true));
        assert_eq!(seen(&mut watcher, &[&first]), (vec![], 1));
        assert!(watcher.ambiguous().is_empty());
    }

    #[test]
    fn each_state_of_a_job_is_reported_once() {
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
    fn a_failed_job_stays_failed_across_a_restart_until_its_row_changes() {
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
        // One retry, until the job fails again.
        assert_eq!(seen(&mut watcher, &[&mended]), (vec![], 1));
        watcher.note_failure(&mended.id);
        assert_eq!(seen(&mut watcher, &[&mended]), (vec![], 0));
    }

    #[test]
    fn a_failure_that_this_daemon_wrote_is_not_a_change() {
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
