//! Names of slots and publications, and of members.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use crate::jobs::{Definition, JobRow};
use crate::postgres::ConnectionString;
use crate::replication::SlotName;

/// The name that publication and slot of a job share: `lantern_<jobs table>_<job>_<definition>`.
///
/// Two daemons with different jobs tables may meet in one target database. And a job that was changed while no daemon
/// ran must not go on from the slot of what it was before.
pub fn own_slot(jobs_table: u32, row: &JobRow) -> SlotName {
    let text = row.id.as_str();
    let mut id: String = text
        .chars()
        .filter(|c| *c != '-')
        .collect::<String>()
        .to_ascii_lowercase();
    let plain = id.len() <= 36 && !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric());
    if !plain || text.starts_with('-') {
        id = format!("x{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
    }
    let name = format!(
        "{}{id}_{:08x}",
        name_prefix(jobs_table),
        row.definition.fingerprint()
    );
    SlotName::try_from(name).expect("letters, digits and underscores, and not too long")
}

/// What the names of all jobs of a jobs table begin with.
pub fn name_prefix(jobs_table: u32) -> String {
    format!("lantern_{jobs_table:08x}_")
}

/// The names under which a job may have a slot and a publication. It has one of them at a time; the other one may be
/// left from a time when the daemon ran with another value of `--slots`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobNames {
    /// Those of the job alone: see [`own_slot`].
    pub own: SlotName,
    /// Those of all jobs of its database: see [`shared_slot`].
    pub shared: SlotName,
}

/// The name that slot and publication share: one for each database, as jobs name it, and label.
///
/// It follows from the connection string, so it is known while the server is out of reach. Two ways to write one
/// database make two names: a slot more, and no quarrel about who reads it.
pub fn shared_slot(jobs_table: u32, label: Option<&str>, definition: &Definition) -> SlotName {
    let text = &definition.db_connection;
    let database = text.parse::<ConnectionString>();
    let database = database.map_or_else(|_| text.clone(), |database| database.to_string());
    let place = xxh3_64(format!("{database} {label:?}").as_bytes());
    let name = format!("{}{SHARED}{place:016x}", name_prefix(jobs_table));
    SlotName::try_from(name).expect("letters, digits and underscores, and not too long")
}

/// No job's own slot has a name with this after the prefix: behind its id it has eight digits.
const SHARED: &str = "db_";

/// Whether this is the name of a shared slot of that jobs table.
pub fn is_shared(jobs_table: u32, name: &SlotName) -> bool {
    let rest = name.as_str().strip_prefix(&name_prefix(jobs_table));
    let place = rest.and_then(|rest| rest.strip_prefix(SHARED));
    place.is_some_and(|place| place.len() == 16)
}

/// A job under one definition, as slots and publications of its own would call it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub(crate) String);

impl MemberId {
    /// From the name that the job's own slot has: what follows `lantern_<jobs table>_`.
    pub fn of(name: &SlotName) -> Self {
        let parts: Vec<&str> = name.as_str().splitn(3, '_').collect();
        MemberId(parts.last().copied().unwrap_or_default().to_owned())
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_id_makes_a_slot_name_of_its_own() {
        let named = |id: &str| own_slot(0xab, &JobRow::example(id)).to_string();
        assert!(named("17").starts_with("lantern_000000ab_17_"));
        let uuid = named("0b7e0c1e-7b2e-4a53-9c6e-2f2b1f6f3c11");
        assert!(
            uuid.starts_with("lantern_000000ab_0b7e0c1e7b2e4a539c6e2f2b1f6f3c11_"),
            "{uuid}"
        );
        assert_ne!(named("-17"), named("17"));
        assert!(named("a b; drop").starts_with("lantern_000000ab_x"));
        assert!(named(&"9".repeat(300)).len() <= 63);
        assert!(named(&"9".repeat(36)).len() <= 63);
    }

    #[test]
    fn another_definition_makes_another_name_and_another_password_does_not() {
        let before = JobRow::example("1");
        let mut after = JobRow::example("1");
        after.definition.db_connection = "postgresql://localhost/d?connect_timeout=9".into();
        after.definition.batch_size = Some(3);
        assert_eq!(own_slot(1, &before), own_slot(1, &after));
        after.definition.embedding_model = Some("n".into());
        assert_ne!(own_slot(1, &before), own_slot(1, &after));
    }

    #[test]
    fn shared_slots_are_told_from_those_of_jobs() {
        let database = |text: &str| {
            let mut definition = JobRow::example("1").definition;
            definition.db_connection = text.into();
            definition
        };
        let here = database("postgresql://u:secret@h:5432/d");
        let shared = shared_slot(0xab, None, &here);
        assert!(is_shared(0xab, &shared) && !is_shared(0xac, &shared));
        assert_eq!(
            shared,
            shared_slot(0xab, None, &database("postgresql://u:other@h/d"))
        );
        assert_ne!(shared, shared_slot(0xab, Some("a"), &here));
        assert_ne!(
            shared,
            shared_slot(0xab, None, &database("postgresql://u:x@h:5433/d"))
        );
        for id in ["db", "17", "db_0123456789abcdef"] {
            let own = own_slot(0xab, &JobRow::example(id));
            assert!(!is_shared(0xab, &own), "{own}");
        }
    }
}
