//! The names of the columns of a changeover. They follow from the final name and the id of the job, so that every daemon
//! finds the columns, also after a crash.

use xxhash_rust::xxh3::xxh3_64;

use crate::jobs::{Definition, JobId};
use crate::pipeline::slot::names::id_part;

/// The longest name of an object, in bytes.
const MAX_NAME: usize = 63;

/// A column that a job takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnName {
    /// Its name in the jobs table: that of the old column until the swap, and of the new one from then on.
    pub name: String,
    /// The name of the new column until the swap.
    pub staging: String,
    /// The name of the old column after the swap.
    pub before: String,
}

impl ColumnName {
    fn new(name: &str, job: &JobId) -> Self {
        let job = id_part(job.as_str());
        ColumnName {
            name: name.to_owned(),
            staging: with_ending(name, &format!("_job_{job}")),
            before: with_ending(name, &format!("_before_job_{job}")),
        }
    }
}

/// The columns that a job takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnNames {
    /// The one with the vectors.
    pub destination: ColumnName,
    /// The one with the fingerprints, if the jobs have one.
    pub fingerprint: Option<ColumnName>,
}

impl ColumnNames {
    /// Those of the job `job` with this definition, which is the one that takes over. `None` where it names no
    /// destination.
    pub fn new(definition: &Definition, job: &JobId) -> Option<Self> {
        let column = |name: &String| ColumnName::new(name, job);
        Some(ColumnNames {
            destination: definition.dst_column.as_ref().map(column)?,
            fingerprint: definition.fingerprint_column.as_ref().map(column),
        })
    }

    /// All columns, the destination first.
    pub fn all(&self) -> impl Iterator<Item = &ColumnName> {
        std::iter::once(&self.destination).chain(&self.fingerprint)
    }

    /// Their names in the jobs table.
    pub fn names(&self) -> Vec<&str> {
        self.all().map(|column| column.name.as_str()).collect()
    }
}

/// The name with an ending. The server would cut a name after 63 bytes and so lose the ending; the name is cut instead,
/// and a hash tells it from others with the same beginning.
fn with_ending(name: &str, ending: &str) -> String {
    if name.len() + ending.len() <= MAX_NAME {
        return format!("{name}{ending}");
    }
    let hash = xxh3_64(name.as_bytes());
    let ending = format!("_{:08x}{ending}", (hash ^ (hash >> 32)) as u32);
    let mut end = MAX_NAME - ending.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::JobRow;

    fn names(column: &str, job: &str) -> ColumnName {
        let mut row = JobRow::example(job);
        row.definition.dst_column = Some(column.to_owned());
        let names = ColumnNames::new(&row.definition, &row.id);
        names.expect("a destination").destination
    }

    #[test]
    fn names_are_the_same_in_every_version_of_this_program() {
        let plain = names("embedding", "7");
        assert_eq!(plain.staging, "embedding_job_7");
        assert_eq!(plain.before, "embedding_before_job_7");
        let long = names(&"e".repeat(63), "7");
        assert_eq!(long.staging, format!("{}_5fe6b56e_job_7", "e".repeat(48)));
    }

    #[test]
    fn long_columns_and_long_ids_give_different_names_that_are_not_cut() {
        let uuid = "0b7e0c1e-7b2e-4a53-9c6e-2f2b1f6f3c11";
        let columns = ["ü".repeat(31) + "a", "ü".repeat(31) + "b"];
        let [first, second] = columns.map(|column| names(&column, uuid));
        assert_ne!(first.staging, second.staging);
        assert_ne!(first.before, second.before);
        for name in [&first.staging, &first.before, &second.before] {
            assert!(name.len() <= MAX_NAME, "{name}");
        }
        assert_ne!(names("e", "-1").staging, names("e", "1").staging);
        assert!(names("e", "a b; drop").before.starts_with("e_before_job_x"));
    }
}
