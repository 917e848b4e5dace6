//! The caller's condition: that it is one expression, and cannot end or change the statement around it.
//!
//! The server's own parser decides, by what it makes of the text in two surroundings:
//!
//! ```text
//! SELECT CASE WHEN ⏎ condition ⏎ THEN true END      neither parentheses nor quotes around it: it must balance its own
//! … WHERE ( ⏎ condition ⏎ )                         no list, no THEN, no second clause: it is one expression
//! ```
//!
//! `true) OR (true` fails in the first one, `true THEN true WHEN false` in the second. A comment ends with its line,
//! and a second statement is none that can be prepared (PostgreSQL manual, "Extended Query").

use tokio_postgres::error::SqlState;

use crate::pipeline::commands::search::columns::list;
use crate::pipeline::error::JobError;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::error::describe;
use crate::postgres::{DatabaseError, Session};

/// An SQL expression over the columns of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition(String);

impl Condition {
    /// Has the server parse the first surroundings. The second ones are the statement itself.
    ///
    /// # Errors
    /// Permanent where it is not one expression, and the server's. A failed parse ends a transaction, so this one goes
    /// on from a savepoint.
    pub async fn check(session: &Session, text: &str) -> Result<Condition, JobError> {
        if text.trim().is_empty() {
            return Err(JobError::permanent(
                "--where is empty; write a condition, or leave it out",
            ));
        }
        let failed = || DatabaseError::during("checking the condition");
        let set = session.batch_execute("SAVEPOINT condition").await;
        set.map_err(failed())?;
        let parsed = session
            .prepare(&format!("SELECT CASE WHEN\n{text}\nTHEN true END"))
            .await;
        let back = session
            .batch_execute("ROLLBACK TO SAVEPOINT condition")
            .await;
        back.map_err(failed())?;
        match parsed {
            Err(error) if error.code() == Some(&SqlState::SYNTAX_ERROR) => Err(not_one(&error)),
            // Without the table most columns are unknown. What counts is that it was parsed.
            Err(error) if error.as_db_error().is_none() => Err(failed()(error).into()),
            _ => Ok(Condition(text.to_owned())),
        }
    }

    /// Within parentheses. A comment at its end does not reach the closing one.
    pub fn sql(&self) -> String {
        format!("(\n{}\n)", self.0)
    }
}

fn not_one(error: &tokio_postgres::Error) -> JobError {
    JobError::permanent(format!(
        "--where is not one SQL condition, such as \"views > 10 AND lang = 'en'\": {}",
        describe(error)
    ))
}

/// Why the server refuses the statement with the condition in it.
pub(super) fn explain_refusal(
    cause: tokio_postgres::Error,
    target: &TargetTable,
    existing: &[String],
) -> JobError {
    if cause.code() == Some(&SqlState::SYNTAX_ERROR) {
        return not_one(&cause);
    }
    let is_of_columns = cause.code() == Some(&SqlState::UNDEFINED_COLUMN);
    let error =
        DatabaseError::during(format!("searching {} with --where", target.qualified()))(cause);
    match is_of_columns {
        true => JobError::permanent(format!(
            "{error}; {} {}",
            target.qualified(),
            list(existing)
        )),
        false => error.into(),
    }
}
