//! What to do with a batch that the server refused.
//!
//! ```text
//! outage ────────────────▶ retry all, as often as it takes
//! conflict ──────────────▶ retry all; after MAX_CONFLICTS it is taken for the fault of a row
//! fault of a row ────────▶ halve the batch until the row is alone, then quarantine it
//! anything else ─────────▶ fail the job
//! ```
//!
//! An error ends the whole transaction and does not say which row it came from. Halving finds one bad row among 512 in
//! nine steps of two statements each, and writes all the other rows on the way.

use crate::pipeline::write::queue::PendingWrite;
use crate::postgres::error::describe;
use crate::postgres::sqlstate::{SqlStateClass, classify};

/// After this many conflicts a row is treated as their cause: a trigger may raise the SQLSTATE of a deadlock for it
/// each time. With the pauses in between that is four to eight seconds.
const MAX_CONFLICTS: u32 = 16;

/// What to do with the rows of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The server is in trouble: retry, and count nothing against the rows.
    RetryAfterOutage,
    /// Another session was in the way: retry, and count the conflict.
    RetryAfterConflict,
    /// One of several rows is at fault: write the two halves by themselves.
    Halve,
    /// The only row of the batch is at fault.
    Quarantine,
    /// The statement fails whatever the rows are: a person has to act.
    FailJob,
}

/// Decides by the SQLSTATE. An error without one is the network's.
pub fn decide(error: &tokio_postgres::Error, batch: &[PendingWrite]) -> Decision {
    let class = error.code().map_or(SqlStateClass::Outage, classify);
    let conflicts = batch.iter().map(|pending| pending.conflicts);
    decide_on(class, conflicts)
}

/// `conflicts` are those that each row of the batch was in so far.
fn decide_on(class: SqlStateClass, mut conflicts: impl ExactSizeIterator<Item = u32>) -> Decision {
    let rows = conflicts.len();
    match class {
        SqlStateClass::Outage => Decision::RetryAfterOutage,
        SqlStateClass::Permanent => Decision::FailJob,
        SqlStateClass::Conflict if conflicts.any(|count| count < MAX_CONFLICTS) => {
            Decision::RetryAfterConflict
        }
        SqlStateClass::Conflict | SqlStateClass::Row if rows > 1 => Decision::Halve,
        SqlStateClass::Conflict | SqlStateClass::Row => Decision::Quarantine,
    }
}

/// The server's words about one row, without the detail, which would repeat the row's own values.
pub fn refusal(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refused) => format!("{} (SQLSTATE {})", refused.message(), refused.code().code()),
        None => describe(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision_of(class: SqlStateClass, conflicts: &[u32]) -> Decision {
        decide_on(class, conflicts.iter().copied())
    }

    #[test]
    fn the_fault_of_a_row_is_searched_for_by_halving() {
        assert_eq!(decision_of(SqlStateClass::Row, &[0, 0]), Decision::Halve);
        assert_eq!(decision_of(SqlStateClass::Row, &[0]), Decision::Quarantine);
    }

    #[test]
    fn a_conflict_is_retried_until_every_row_was_in_many() {
        for (conflicts, expected) in [
            (&[0][..], Decision::RetryAfterConflict),
            (&[MAX_CONFLICTS, 0], Decision::RetryAfterConflict),
            (&[MAX_CONFLICTS, MAX_CONFLICTS], Decision::Halve),
            (&[MAX_CONFLICTS], Decision::Quarantine),
        ] {
            let decision = decision_of(SqlStateClass::Conflict, conflicts);
            assert_eq!(decision, expected, "{conflicts:?}");
        }
    }

    #[test]
    fn an_outage_is_no_fault_of_the_rows_and_the_rest_fails_the_job() {
        let many = [MAX_CONFLICTS];
        assert_eq!(
            decision_of(SqlStateClass::Outage, &many),
            Decision::RetryAfterOutage
        );
        assert_eq!(
            decision_of(SqlStateClass::Permanent, &many),
            Decision::FailJob
        );
    }
}
