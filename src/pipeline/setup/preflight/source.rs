//! The column with the text.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::Names;
use crate::pipeline::setup::preflight::relation::{Column, Relation};
use crate::pipeline::table::target::{SourceColumn, TextForm};
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

pub(super) async fn source_column(
    names: &Names,
    columns: &[Column],
    session: &Session,
    relation: &Relation,
) -> Result<SourceColumn, JobError> {
    let table = format!("{}.{}", identifier(&names.schema), identifier(&names.table));
    let Some(column) = columns.iter().find(|column| column.name == names.source) else {
        let present: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        return Err(JobError::permanent(format!(
            "the table {table} has no column {} (src_column); it has {}",
            identifier(&names.source),
            present.join(", ")
        )));
    };
    if !column.readable {
        return Err(JobError::permanent(format!(
            "the role {role} may not read {table}.{column}; run as its owner: GRANT SELECT ON {table} TO {role_quoted};",
            role = relation.role,
            role_quoted = identifier(&relation.role),
            column = identifier(&names.source),
        )));
    }
    let hidden: bool = session
        .query_one("SELECT row_security_active($1::oid)", &[&relation.oid])
        .await
        .map_err(DatabaseError::during("checking row security"))?
        .get(0);
    if hidden {
        return Err(JobError::permanent(format!(
            "row level security of {table} applies to the role {role}, so rows may be hidden from it; run as a superuser: ALTER ROLE {} BYPASSRLS;",
            identifier(&relation.role),
            role = relation.role,
        )));
    }
    let form = match (column.base_schema.as_str(), column.base_type.as_str()) {
        ("pg_catalog", "text" | "varchar") | (_, "citext") => TextForm::Plain,
        ("pg_catalog", "bpchar") => TextForm::BlankPadded,
        _ => TextForm::Output,
    };
    Ok(SourceColumn {
        name: column.name.clone(),
        form,
        published: !column.generated,
    })
}
