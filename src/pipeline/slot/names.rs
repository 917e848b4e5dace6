//! Names of slots and publications, and of the members of a shared one.
//!
//! ```text
//! lantern_<jobs table>_<job>_<definition>     a job's own slot and publication
//!                      └──── MemberId ──┘     the same job as a member of a shared slot
//! lantern_<jobs table>_db_<database, label>   a slot and publication that all jobs of a database share
//! ```
//!
//! The names are kept on servers and must be the same in every version of this program: a slot under another name is
//! one that no daemon reads and none drops.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{LazyLock, Mutex, PoisonError};

use lru::LruCache;
use xxhash_rust::xxh3::xxh3_64;

use crate::jobs::{Definition, JobRow};
use crate::postgres::ConnectionString;
use crate::replication::SlotName;

/// The longest id, without hyphens, that stands in a name as it is: that of a uuid. Longer ones are hashed.
const MAX_PLAIN_ID: usize = 36;

/// Connection strings whose databases are remembered. A longer list is read again and again.
const MAX_KNOWN: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// The name of a job's own slot and publication: `lantern_<jobs table>_<job>_<definition>`.
///
/// It has the identity of the jobs table, because daemons with different jobs tables may meet in one target database;
/// and that of the definition, because a job that was changed while no daemon ran must not continue from its old slot.
pub fn own_slot(jobs_table: u32, row: &JobRow) -> SlotName {
    let name = format!(
        "{}{}_{:08x}",
        name_prefix(jobs_table),
        id_part(row.id.as_str()),
        row.definition.hash()
    );
    slot_name(name)
}

/// A job's id as a part of a name: as it is where that is unambiguous, or else its hash.
pub fn id_part(text: &str) -> String {
    let id = text.replace('-', "").to_ascii_lowercase();
    let is_plain = (1..=MAX_PLAIN_ID).contains(&id.len())
        && id.chars().all(|c| c.is_ascii_alphanumeric())
        // Without its hyphen, -1 would be 1.
        && !text.starts_with('-');
    if is_plain {
        id
    } else {
        format!("x{:016x}", xxh3_64(text.as_bytes()))
    }
}

/// The beginning of the names of all jobs of a jobs table.
pub fn name_prefix(jobs_table: u32) -> String {
    format!("lantern_{jobs_table:08x}_")
}

/// The name of the slot and publication that all jobs of the definition's database share: one for each database, as the
/// connection string names it, and label.
///
/// It follows from the connection string, so it is known while the server is out of reach. Two ways to write the same
/// database give two names: one more slot, but no dispute about who reads it.
pub fn shared_slot(jobs_table: u32, label: Option<&str>, definition: &Definition) -> SlotName {
    let database = database(&definition.db_connection);
    let place = xxh3_64(format!("{database} {label:?}").as_bytes());
    slot_name(format!("{}{SHARED}{place:016x}", name_prefix(jobs_table)))
}

/// The database that a connection string names, as it is shown. The name of its slot is asked for several times a second,
/// and to read a connection string means to read files; so the answer is kept, also because a slot keeps its name.
fn database(text: &str) -> String {
    static KNOWN: LazyLock<Mutex<LruCache<String, String>>> =
        LazyLock::new(|| Mutex::new(LruCache::new(MAX_KNOWN)));
    // No code that can panic runs under this lock.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(database) = known.get(text) {
        return database.clone();
    }
    match text.parse::<ConnectionString>() {
        Ok(database) => {
            let database = database.to_string();
            known.put(text.to_owned(), database.clone());
            database
        }
        Err(_) => text.to_owned(),
    }
}

fn slot_name(name: String) -> SlotName {
    SlotName::try_from(name).expect("letters, digits and underscores, and at most 63 of them")
}

/// Follows the prefix in the name of a shared slot, with 16 digits behind it. An own slot of the job `db` has eight.
const SHARED: &str = "db_";

/// Whether this is the name of a shared slot of that jobs table.
pub fn is_shared(jobs_table: u32, name: &SlotName) -> bool {
    let rest = name.as_str().strip_prefix(&name_prefix(jobs_table));
    let place = rest.and_then(|rest| rest.strip_prefix(SHARED));
    place.is_some_and(|place| place.len() == 16)
}

/// The names under which a job may have a slot and a publication. It has one of them at a time; the other one may be left
/// from a time when the daemon ran with another value of `--slots`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobNames {
    /// Those of the job alone: see [`own_slot`].
    pub own: SlotName,
    /// Those of all jobs of its database: see [`shared_slot`].
    pub shared: SlotName,
}

impl JobNames {
    /// The names of the job in `row`, for a daemon with this jobs table and label.
    pub fn new(jobs_table: u32, label: Option<&str>, row: &JobRow) -> JobNames {
        JobNames {
            own: own_slot(jobs_table, row),
            shared: shared_slot(jobs_table, label, &row.definition),
        }
    }
}

/// A job under one definition, as a member of a shared slot: `<job>_<definition>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(String);

impl MemberId {
    /// The member whose own slot would have this name.
    pub fn from_slot(name: &SlotName) -> Self {
        let parts: Vec<&str> = name.as_str().splitn(3, '_').collect();
        MemberId::from_record(parts.last().copied().unwrap_or_default())
    }

    /// The member that a membership record names so.
    pub fn from_record(id: &str) -> Self {
        MemberId(id.to_owned())
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
    fn every_job_id_gives_a_slot_name_of_its_own() {
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
    fn names_are_the_same_in_every_version_of_this_program() {
        let row = JobRow::example("0B7E-17");
        let own = own_slot(0xab, &row);
        assert_eq!(own.to_string(), "lantern_000000ab_0b7e17_6e010f28");
        assert_eq!(MemberId::from_slot(&own).to_string(), "0b7e17_6e010f28");
        let shared = shared_slot(0xab, Some("a"), &row.definition);
        assert_eq!(shared.to_string(), "lantern_000000ab_db_5d92b8ec448f9024");
    }

    #[test]
    fn another_definition_gives_another_name_and_another_password_does_not() {
        let before = JobRow::example("1");
        let mut after = JobRow::example("1");
        after.definition.db_connection = "postgresql://localhost/d?connect_timeout=9".into();
        after.definition.batch_size = Some(3);
        assert_eq!(own_slot(1, &before), own_slot(1, &after));
        after.definition.embedding_model = Some("n".into());
        assert_ne!(own_slot(1, &before), own_slot(1, &after));
    }

    #[test]
    fn params_that_decide_vectors_give_another_name_and_others_do_not() {
        let named = |params: &str| {
            let mut row = JobRow::example("1");
            row.definition.runtime_params = Some(params.into());
            own_slot(1, &row)
        };
        let plain = own_slot(1, &JobRow::example("1"));
        for nothing in [
            "{}",
            r#"{"force": true, "pooling": null, "prompt": {"query": "q: "}}"#,
            r#"{"task": {"query": "separation"}}"#,
        ] {
            assert_eq!(named(nothing), plain, "{nothing}");
        }
        let cls = named(r#"{"pooling": "cls", "max_tokens": 9}"#);
        assert_ne!(cls, plain);
        assert_eq!(
            cls,
            named(r#"{"max_tokens":9,"pooling":"cls","prompt":{"query":"q"}}"#)
        );
        assert_ne!(cls, named(r#"{"pooling": "mean", "max_tokens": 9}"#));
        assert_ne!(
            named(r#"{"prompt": "a"}"#),
            named(r#"{"prompt_name": "a"}"#)
        );
    }

    #[test]
    fn a_table_for_passages_and_how_documents_are_cut_give_another_name() {
        let named = |chunk_table: Option<&str>, params: Option<&str>| {
            let mut row = JobRow::example("1");
            row.definition.chunk_table = chunk_table.map(str::to_owned);
            row.definition.runtime_params = params.map(str::to_owned);
            own_slot(1, &row)
        };
        let chunks = named(Some("chunks"), None);
        assert_ne!(chunks, named(None, None));
        assert_ne!(chunks, named(Some("others"), None));
        assert_eq!(
            chunks,
            named(Some("chunks"), Some(r#"{"max_document_bytes": 9}"#))
        );
        for params in [
            r#"{"chunk_tokens": 64}"#,
            r#"{"chunk_mode": "markdown"}"#,
            r#"{"template": "{chunk}"}"#,
        ] {
            assert_ne!(chunks, named(Some("chunks"), Some(params)), "{params}");
        }
    }

    #[test]
    fn another_key_or_server_of_a_model_gives_no_other_name() {
        let named = |runtime: &str, params: &str| {
            let mut row = JobRow::example("1");
            row.definition.runtime = Some(runtime.into());
            row.definition.runtime_params = Some(params.into());
            own_slot(1, &row)
        };
        assert_eq!(named("ort", "{}"), own_slot(1, &JobRow::example("1")));
        let remote = named("openai", "{}");
        assert_ne!(remote, named("ort", "{}"));
        assert_ne!(remote, named("ollama", "{}"));
        for params in [
            r#"{"api_key": "a", "base_url": "https://a.example/v1"}"#,
            r#"{"api_key_env": "KEY", "headers": {"a": "b"}, "timeout": 3, "max_in_flight": 2}"#,
            r#"{"max_batch": 7, "max_batch_tokens": 9, "price_per_million": 0.02}"#,
            r#"{"input_type": {"query": "q"}}"#,
        ] {
            assert_eq!(named("openai", params), remote, "{params}");
        }
        for params in [
            r#"{"dimensions": 256}"#,
            r#"{"model": "n"}"#,
            r#"{"input_type": {"document": "d"}}"#,
        ] {
            assert_ne!(named("openai", params), remote, "{params}");
        }
    }

    #[test]
    fn names_of_shared_slots_differ_from_those_of_jobs() {
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
