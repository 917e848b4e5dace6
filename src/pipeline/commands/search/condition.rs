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

use tokio_postgres::error::{ErrorPosition, SqlState};

use crate::pipeline::commands::search::columns::list;
use crate::pipeline::error::JobError;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::error::describe;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// The first surroundings.
const BEFORE: &str = "SELECT CASE WHEN\n";
const BEHIND: &str = "\nTHEN true END";

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
        let parsed = session.prepare(&format!("{BEFORE}{text}{BEHIND}")).await;
        let back = session
            .batch_execute("ROLLBACK TO SAVEPOINT condition")
            .await;
        back.map_err(failed())?;
        match parsed {
            Err(error) if error.code() == Some(&SqlState::SYNTAX_ERROR) => {
                Err(not_one(&words_on(text, &error)))
            }
            // Without the table most columns are unknown. What counts is that it was parsed.
            Err(error) if error.as_db_error().is_none() => Err(failed()(error).into()),
            _ => Ok(Condition(text.to_owned())),
        }
    }

    /// Within parentheses. A comment at its end does not reach the closing one.
    pub fn sql(&self) -> String {
        format!("(\n{}\n)", self.0)
    }

    /// Whether it has what looks like a parameter, which may also be part of a text.
    fn may_have_parameter(&self) -> bool {
        let mut behind = self.0.split('$').skip(1);
        behind.any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    }
}

fn not_one(words: &str) -> JobError {
    JobError::permanent(format!(
        "--where is not one SQL condition, such as \"views > 10 AND lang = 'en'\": {words}"
    ))
}

/// The server's words on a condition in the first surroundings, without the surroundings.
fn words_on(text: &str, error: &tokio_postgres::Error) -> String {
    let position = error.as_db_error().and_then(|error| error.position());
    let end = BEFORE.chars().count() + text.chars().count();
    match position {
        Some(ErrorPosition::Original(position)) if *position as usize > end => {
            "it ends too early, as where an operand or a closing parenthesis is missing".to_owned()
        }
        // What is not closed, such as a comment, goes on to the end of the statement.
        _ => describe(error).replace(BEHIND, ""),
    }
}

/// Fails where the condition has parameters: they have no values, and the first one is the vector of the query.
///
/// # Errors
/// Permanent; also where the condition does not fit the table.
pub(super) async fn refuse_parameters(
    session: &Session,
    condition: &Condition,
    target: &TargetTable,
    existing: &[String],
) -> Result<(), JobError> {
    let (table, name) = (target.from_clause(), identifier(&target.name));
    let alone = format!("SELECT FROM {table} AS {name} WHERE {}", condition.sql());
    match session.prepare(&alone).await {
        Ok(prepared) if prepared.params().is_empty() => Ok(()),
        Ok(_) => Err(has_parameter()),
        Err(error) if condition.may_have_parameter() && is_about_parameters(&error) => {
            Err(has_parameter())
        }
        Err(error) => Err(explain_refusal(error, target, existing)),
    }
}

fn has_parameter() -> JobError {
    JobError::permanent(
        "--where has a parameter, such as $1, for which there is no value; write the value itself",
    )
}

/// Whether the type of a parameter is what the server stumbles over. It has the same code for an empty array.
fn is_about_parameters(error: &tokio_postgres::Error) -> bool {
    let codes = [
        SqlState::INDETERMINATE_DATATYPE,
        SqlState::AMBIGUOUS_PARAMETER,
        SqlState::UNDEFINED_PARAMETER,
    ];
    error.code().is_some_and(|code| codes.contains(code))
}

/// Why the server refuses the statement with the condition in it.
pub(super) fn explain_refusal(
    cause: tokio_postgres::Error,
    target: &TargetTable,
    existing: &[String],
) -> JobError {
    if cause.code() == Some(&SqlState::SYNTAX_ERROR) {
        return not_one(&describe(&cause));
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
