//! The column with the text.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::privileges::check_all_rows_visible;
use crate::pipeline::setup::preflight::relation::{TargetColumn, TargetRelation, find_column};
use crate::pipeline::table::target::{SourceColumn, TextForm};
use crate::postgres::Session;
use crate::postgres::quote::identifier;

/// The source of a job, if the role can read the text of every row.
///
/// # Errors
/// Permanent ones with the remedy, and the server's.
pub async fn usable_source(
    session: &Session,
    names: &TargetNames,
    relation: &TargetRelation,
    columns: &[TargetColumn],
) -> Result<SourceColumn, JobError> {
    let Some(column) = find_column(columns, &names.source) else {
        let present: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        return Err(JobError::permanent(format!(
            "the table {} has no column {} (src_column); it has {}",
            names.qualified(),
            identifier(&names.source),
            present.join(", ")
        )));
    };
    if !column.readable {
        let role = session.role().await?;
        return Err(JobError::permanent(format!(
            "the role {role} may not read {column}; run as its owner: GRANT SELECT ON {table} TO {quoted};",
            column = names.qualified_column(&names.source),
            table = names.qualified(),
            quoted = identifier(&role),
        )));
    }
    check_all_rows_visible(session, &names.qualified(), relation.oid).await?;
    Ok(SourceColumn {
        name: column.name.clone(),
        form: text_form(column),
        // Servers publish stored generated columns from 18 on, and only where the publication asks for it.
        published: !column.generated,
    })
}

fn text_form(column: &TargetColumn) -> TextForm {
    match (column.base_schema.as_str(), column.base_type.as_str()) {
        ("pg_catalog", "text" | "varchar") | (_, "citext") => TextForm::Plain,
        ("pg_catalog", "bpchar") => TextForm::BlankPadded,
        _ => TextForm::Output,
    }
}
