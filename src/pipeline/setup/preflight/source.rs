//! The columns with texts: the source, and those that the template names.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::relation::{TargetColumn, find_column};
use crate::pipeline::table::target::SourceColumn;
use crate::pipeline::table::template::{FieldForm, Template};
use crate::pipeline::table::text_form::TextForm;
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
        JobError::permanent(format!(
            "the table {} has no column {} (src_column); it has {}",
            names.qualified(),
            identifier(&names.source),
            present(columns, &names.source)
        ))
    })
}

/// The system columns of a table (PostgreSQL manual, "System Columns").
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// Finds the columns that the template names, in its order.
///
/// # Errors
/// Permanent, with the columns that the table has.
pub fn find_fields<'a>(
    names: &TargetNames,
    columns: &'a [TargetColumn],
) -> Result<Vec<&'a TargetColumn>, JobError> {
    let fields = names.text.template.iter().flat_map(Template::columns);
    let find = |name: &String| {
        find_column(columns, name).ok_or_else(|| {
            let (table, field) = (names.qualified(), identifier(name));
            JobError::permanent(match SYSTEM_COLUMNS.contains(&name.as_str()) {
                true => format!(
                    "the template names {field}, a system column of {table}, which says nothing of the row's content; \
                     remove it from template in runtime_params"
                ),
                false => format!(
                    "the table {table} has no column {field}, which the template names; correct template in \
                     runtime_params: the table has {}",
                    present(columns, name)
                ),
            })
        })
    };
    fields.map(find).collect()
}

/// The names of the columns, and which of them was most likely meant by `name`.
fn present(columns: &[TargetColumn], name: &str) -> String {
    let present: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let meant = most_similar(name, present.iter().copied());
    let hint = meant.map(|column| format!("; did you mean {}?", identifier(column)));
    format!("{}{}", present.join(", "), hint.unwrap_or_default())
}

/// Checks that the role may read the texts: the source and the columns that the template names.
///
/// # Errors
/// Permanent, with the remedy; and the server's.
pub async fn check_readable(
    session: &Session,
    names: &TargetNames,
    texts: &[&TargetColumn],
) -> Result<(), JobError> {
    let unreadable: Vec<&TargetColumn> = texts
        .iter()
        .copied()
        .filter(|column| !column.readable)
        .collect();
    if unreadable.is_empty() {
        return Ok(());
    }
    let list = |shown: &dyn Fn(&str) -> String| {
        let columns = unreadable.iter().map(|column| shown(&column.name));
        columns.collect::<Vec<_>>().join(", ")
    };
    let role = session.role().await?;
    Err(JobError::permanent(format!(
        "the role {role} may not read {columns}; run as its owner: GRANT SELECT ({names}) ON {table} TO {quoted};",
        columns = list(&|name| names.qualified_column(name)),
        names = list(&identifier),
        table = names.qualified(),
        quoted = identifier(&role),
    )))
}

impl SourceColumn {
    /// The source, as the catalog has it, with a template that names the columns `fields`.
    pub fn from_catalog(
        column: &TargetColumn,
        template: Option<&Template>,
        fields: &[&TargetColumn],
    ) -> SourceColumn {
        // Servers publish stored generated columns from 18 on, and only where the publication asks for it.
        let is_published = |column: &TargetColumn| !column.generated;
        let form = |column: &&TargetColumn| FieldForm {
            form: text_form(column),
            published: is_published(column),
        };
        let forms = fields.iter().map(form).collect();
        SourceColumn {
            name: column.name.clone(),
            form: text_form(column),
            published: is_published(column),
            template: template.map(|template| template.clone().with_forms(forms)),
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
