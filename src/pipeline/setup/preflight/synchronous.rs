//! Synchronous replication must not count the daemon as a standby.
//!
//! A reader of a stream whose `application_name` is in `synchronous_standby_names` counts as one, and `*` stands for all
//! names (PostgreSQL manual, "synchronous_standby_names"). The daemon keeps no copy of the data, and confirms a change only
//! once its vector is there: users would wait for inference, and a commit that the daemon confirms may be on no standby.

use crate::pipeline::error::JobError;
use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};

/// Checks that commits do not wait for the daemon.
///
/// # Errors
/// [`JobError::AccessRefused`] with the remedy, since a job that has run can wait for another setting; and the server's.
pub async fn check_synchronous(session: &Session) -> Result<(), JobError> {
    let (names, own): (String, String) = session
        .query_one(
            "SELECT current_setting('synchronous_standby_names'), current_setting('application_name')",
            &[],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("checking the target server"))?;
    refuse_if_counted(&names, &own)
}

/// Fails if the setting counts every reader of a stream as a standby. The tool that manages a cluster may set that for a
/// while, to hold commits up until a standby is there.
///
/// # Errors
/// As [`check_synchronous`].
pub fn refuse_if_all_count(names: &str) -> Result<(), JobError> {
    refuse_if_counted(names, "*")
}

fn refuse_if_counted(names: &str, own: &str) -> Result<(), JobError> {
    let Some(counted) = counted(names, own) else {
        return Ok(());
    };
    Err(JobError::AccessRefused(format!(
        "synchronous_standby_names = '{names}' counts the daemon as a synchronous standby, because of {counted}: commits \
         would wait for vectors, and those that the daemon confirms may be on no standby; name the standbys themselves, \
         such as ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (standby1, standby2)'; SELECT pg_reload_conf()"
    )))
}

/// The name in the setting that stands for a reader with the application name `own`.
fn counted<'a>(setting: &'a str, own: &str) -> Option<&'a str> {
    // `FIRST 2 (a, b)`, `ANY 2 (a, b)`, `2 (a, b)` or `a, b`; names with other characters are in double quotes.
    let list = setting.split_once('(').map_or(setting, |(_, list)| list);
    list.trim_end_matches([')', ' '])
        .split(',')
        .map(|name| name.trim().trim_matches('"'))
        .find(|name| *name == "*" || name.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_and_the_own_name_count() {
        let own = "lantern-cli: job 1";
        for setting in [
            "*",
            "FIRST 1 (*)",
            "ANY 2 (a, *)",
            "2 (a,\"*\" )",
            "\"Lantern-CLI: job 1\"",
        ] {
            assert!(counted(setting, own).is_some(), "{setting}");
        }
        for setting in ["", "a", "FIRST 1 (a, b)", "ANY 1 (lantern)", "\"a*\""] {
            assert_eq!(counted(setting, own), None, "{setting}");
        }
    }
}
