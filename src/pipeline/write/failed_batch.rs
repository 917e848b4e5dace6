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
//!
//! **The users' code** runs inside the write-back: triggers, CHECK constraints, index expressions. It may raise any
//! SQLSTATE, and means by it something about its row. So an error of that code is the fault of a row, whatever its
//! SQLSTATE is; see [`context`](crate::postgres::error::context) for how the two are told apart. Only where the
//! SQLSTATE speaks of an outage, the row is not blamed while nothing else can be written either: the table that an
//! audit trigger writes to may be on a server that is down.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::{DbError, SqlState};

use crate::pipeline::table::target::TargetTable;
use crate::postgres::error::{context, describe};
use crate::postgres::quote::identifier;
use crate::postgres::sqlstate::{SqlStateClass, classify};

/// After this many conflicts a row is treated as their cause: a trigger may raise the SQLSTATE of a deadlock for it
/// each time. With the pauses in between that is four to eight seconds.
const MAX_CONFLICTS: u32 = 16;
/// An outage in the users' code that lasts longer than this is no outage, even if nothing else shows that.
const MAX_USER_OUTAGE: Duration = Duration::from_secs(600);

/// How often conflicts ended a statement that a row was in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conflicts {
    /// Their number.
    pub count: u32,
    /// When the first one was.
    since: Option<Instant>,
}

impl Conflicts {
    /// Counts a conflict.
    pub fn note(&mut self) {
        self.count += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    /// Begins to count again.
    pub fn recount(&mut self) {
        self.count = 0;
    }
}

/// What to do with the rows of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The server is in trouble: retry, and count nothing against the rows.
    RetryAfterOutage,
    /// Another session was in the way: retry, and count the conflict.
    RetryAfterConflict,
    /// The users' code is in trouble, for all rows as far as can be seen: retry, and begin to count again.
    RetryAfterUserOutage,
    /// One of several rows is at fault: write the two halves by themselves.
    Halve,
    /// The only row of the batch is at fault.
    Quarantine,
    /// The statement fails whatever the rows are: a person has to act.
    FailJob,
}

/// Who is at fault for an error of a write-back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Server(SqlStateClass),
    /// The users' code raised what is an outage by its SQLSTATE.
    UserOutage,
}

/// Decides by the error's SQLSTATE and origin. `batch` is of the rows that the statement was for, `last_written` when a row
/// of the job was written last.
pub fn decide(
    error: &tokio_postgres::Error,
    batch: &[Conflicts],
    last_written: Option<Instant>,
) -> Decision {
    let fault = match error.as_db_error() {
        // An error without an SQLSTATE is the network's.
        None => Fault::Server(SqlStateClass::Outage),
        Some(refused) => fault(classify(refused.code()), context(refused).is_some()),
    };
    let decision = decide_on(fault, batch.iter().map(|conflicts| conflicts.count));
    let blames_a_row = decision == Decision::Quarantine && fault == Fault::UserOutage;
    let since = batch.first().and_then(|conflicts| conflicts.since);
    match since {
        Some(since) if blames_a_row && !others_succeed(since, last_written) => {
            Decision::RetryAfterUserOutage
        }
        _ => decision,
    }
}

/// Whether the trouble that began at `since` is that of one row.
fn others_succeed(since: Instant, last_written: Option<Instant>) -> bool {
    last_written.is_some_and(|last| last > since) || since.elapsed() > MAX_USER_OUTAGE
}

fn fault(class: SqlStateClass, in_users_code: bool) -> Fault {
    match (class, in_users_code) {
        (SqlStateClass::Permanent, true) => Fault::Server(SqlStateClass::Row),
        (SqlStateClass::Outage, true) => Fault::UserOutage,
        (class, _) => Fault::Server(class),
    }
}

/// `conflicts` are those that each row of the batch was in so far.
fn decide_on(fault: Fault, mut conflicts: impl ExactSizeIterator<Item = u32>) -> Decision {
    let rows = conflicts.len();
    let mut are_few = || conflicts.any(|count| count < MAX_CONFLICTS);
    match fault {
        Fault::Server(SqlStateClass::Outage) => Decision::RetryAfterOutage,
        Fault::Server(SqlStateClass::Permanent) => Decision::FailJob,
        Fault::Server(SqlStateClass::Conflict) | Fault::UserOutage if are_few() => {
            Decision::RetryAfterConflict
        }
        _ if rows > 1 => Decision::Halve,
        _ => Decision::Quarantine,
    }
}

/// The server's words about one row and what to do.
pub fn refusal(error: &tokio_postgres::Error, target: &TargetTable) -> String {
    let statement = format!("an UPDATE of {}", identifier(&target.destination.name));
    let mut text = refusal_of(error, &statement);
    let of_null = error
        .as_db_error()
        .filter(|refused| context(refused).is_none() && is_null_in_destination(refused, target));
    if of_null.is_some() {
        text.push_str(&format!(
            "; a row whose text is empty has no vector; run: ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL;",
            target.qualified(),
            identifier(&target.destination.name)
        ));
    }
    text
}

/// The server's words about a row, for which `statement` was executed, without the detail, which would repeat the row's own
/// values; and what to do where they come from the users' code.
pub fn refusal_of(error: &tokio_postgres::Error, statement: &str) -> String {
    let Some(refused) = error.as_db_error() else {
        return describe(error);
    };
    let (message, code) = (refused.message(), refused.code().code());
    let mut text = format!("{message} (SQLSTATE {code})");
    if let Some(context) = context(refused) {
        text.push_str(&format!(
            "; context: {context}; this is code of the table, which each write-back runs as {statement} by the daemon's \
             role, or by the owner where that role is a superuser: let it accept that, or set skip_triggers = true in the \
             jobs table"
        ));
    }
    text
}

fn is_null_in_destination(refused: &DbError, target: &TargetTable) -> bool {
    refused.code() == &SqlState::NOT_NULL_VIOLATION
        && refused.column() == Some(target.destination.name.as_str())
}

/// Why the row of an update that a trigger has canceled is quarantined.
pub fn cancellation(target: &TargetTable) -> String {
    format!(
        "a BEFORE UPDATE trigger of {} canceled the write-back, that is, returned NULL; let it pass updates of {}, or set \
         skip_triggers = true in the jobs table",
        target.qualified(),
        identifier(&target.destination.name)
    )
}

/// Why a row is quarantined whose write-backs fire triggers that cause the next one.
pub fn endless_cascade(target: &TargetTable, depth: u8) -> String {
    format!(
        "each write-back fires triggers that change a text or write a row of {} again, {depth} times in a row; let them \
         ignore updates of {} alone, or set skip_triggers = true in the jobs table",
        target.qualified(),
        identifier(&target.destination.name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision_of(class: SqlStateClass, conflicts: &[u32]) -> Decision {
        decide_on(Fault::Server(class), conflicts.iter().copied())
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
            assert_eq!(
                decide_on(Fault::UserOutage, conflicts.iter().copied()),
                expected
            );
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

    #[test]
    fn an_error_of_the_users_code_never_fails_the_job() {
        for class in [SqlStateClass::Permanent, SqlStateClass::Row] {
            assert_eq!(fault(class, true), Fault::Server(SqlStateClass::Row));
        }
        assert_eq!(fault(SqlStateClass::Outage, true), Fault::UserOutage);
        let conflict = Fault::Server(SqlStateClass::Conflict);
        assert_eq!(fault(SqlStateClass::Conflict, true), conflict);
    }

    #[test]
    fn an_outage_in_the_users_code_is_a_rows_fault_once_others_succeed() {
        let since = Instant::now();
        assert!(!others_succeed(since, None));
        assert!(!others_succeed(since, Some(since)));
        let later = since + Duration::from_millis(1);
        assert!(others_succeed(since, Some(later)));
    }
}
