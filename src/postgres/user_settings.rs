//! The settings under which the users' own code runs inside our statements: triggers, CHECK functions, index
//! expressions, event triggers.
//!
//! Our sessions fix settings that their own statements depend on ([`session`](super::session)). The users' code must
//! not see them: `INSERT INTO audit_log …` in a trigger means the table that the search path of the users finds, and
//! `current_date` is the day in their time zone. So each statement of ours that may run such code gives it the values
//! that a session of the role has by default (`ALTER DATABASE … SET`, `ALTER ROLE … SET`, `postgresql.conf`).
//!
//! Settings that only bound time or durability stay ours.

use super::answer;
use super::error::DatabaseError;
use super::quote::literal;
use super::session::Session;

/// What our sessions change and the users' code can notice.
const NAMES: &[&str] = &[
    "search_path",
    "DateStyle",
    "TimeZone",
    "IntervalStyle",
    "extra_float_digits",
    "bytea_output",
    "standard_conforming_strings",
    "row_security",
    "enable_seqscan",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_partition_pruning",
    "jit",
    "plan_cache_mode",
];

/// For a transaction block: gives the rest of the transaction the defaults of the session.
pub fn set_local_defaults() -> String {
    let set = |name: &&str| format!("SET LOCAL {name} TO DEFAULT; ");
    NAMES.iter().map(set).collect()
}

/// Outside of a transaction block: gives the rest of the session its defaults. For a statement that cannot run in a block.
pub fn set_defaults() -> String {
    let set = |name: &&str| format!("SET {name} TO DEFAULT; ");
    NAMES.iter().map(set).collect()
}

/// The defaults of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSettings {
    values: Vec<(String, String)>,
}

impl UserSettings {
    /// Reads the defaults of this session, whatever it has changed since it began.
    ///
    /// # Errors
    /// The server's.
    pub async fn read(session: &Session) -> Result<UserSettings, DatabaseError> {
        let values = session
            .query(
                "SELECT name, reset_val FROM pg_settings \
                 WHERE lower(name) = ANY (SELECT lower(n) FROM unnest($1::text[]) n) AND reset_val IS NOT NULL ORDER BY name",
                &[&NAMES],
            )
            .await
            .and_then(|rows| answer::all(&rows))
            .map_err(DatabaseError::during(
                "reading the default settings of the session",
            ))?;
        Ok(UserSettings { values })
    }

    /// SQL expressions that set the defaults for the rest of the transaction, as soon as they are evaluated. At least one.
    pub fn set_config(&self) -> String {
        let set = |(name, value): &(String, String)| {
            format!("set_config({}, {}, true)", literal(name), literal(value))
        };
        let all: Vec<String> = self.values.iter().map(set).collect();
        match all.is_empty() {
            true => "NULL".to_owned(),
            false => all.join(", "),
        }
    }
}

#[cfg(test)]
impl UserSettings {
    /// One setting, for unit tests.
    pub fn example() -> Self {
        UserSettings {
            values: vec![("search_path".into(), "\"$user\", public".into())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        let settings = UserSettings {
            values: vec![("search_path".into(), "o'brien".into())],
        };
        assert_eq!(
            settings.set_config(),
            "set_config('search_path', 'o''brien', true)"
        );
    }
}
