//! The column with the text.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::relation::{TargetColumn, find_column};
use crate::pipeline::table::target::{SourceColumn, TextForm};
use crate::postgres::Session;
use crate::postgres::quote::identifier;
use crate::similar::most_similar;

/// Finds the source column of a job.
///
/// # Errors
/// Permanent, with the columns that the table has.
pub fn find_source<'a>(
    names: &TargetNames,
    columns: &'a [TargetColumn],
) -> Result<&'a TargetColumn, JobError> {
    find_column(columns, &names.source).ok_or_else(|| {
        let present: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let meant = most_similar(&names.source, present.iter().copied());
        let hint = meant.map(|column| format!("; did you mean {}?", identifier(column)));
        JobError::permanent(format!(
            "the table {} has no column {} (src_column); it has {}{}",
            names.qualified(),
            identifier(&names.source),
            present.join(", "),
            hint.unwrap_or_default()
        ))
    })
}

/// Checks that the role may read the texts.
///
/// # Errors
/// Permanent, with the remedy; and the server's.
pub async fn check_readable(
    session: &Session,
    names: &TargetNames,
    source: &TargetColumn,
) -> Result<(), JobError> {
    if source.readable {
        return Ok(());
    }
    let role = session.role().await?;
    Err(JobError::permanent(format!(
        "the role {role} may not read {column}; run as its owner: GRANT SELECT ({name}) ON {table} TO {quoted};",
        column = names.qualified_column(&names.source),
        name = identifier(&names.source),
        table = names.qualified(),
        quoted = identifier(&role),
    )))
}

impl SourceColumn {
    /// The source, as the catalog has it.
    pub fn from_catalog(column: &TargetColumn) -> SourceColumn {
        SourceColumn {
            name: column.name.clone(),
            form: text_form(column),
            // Servers publish stored generated columns from 18 on, and only where the publication asks for it.
            published: !column.generated,
            template: None,
        }
    }
}

fn text_form(column: &TargetColumn) -> TextForm {
    match (column.base_schema.as_str(), column.base_type.as_str()) {
        ("pg_catalog", "text" | "varchar") | (_, "citext") => TextForm::Plain,
        ("pg_catalog", "bpchar") => TextForm::BlankPadded,
        _ => TextForm::Output,
    }
}
