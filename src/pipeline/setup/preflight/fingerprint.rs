//! The column for the fingerprints, where it exists.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::relation::{TargetColumn, find_column};
use crate::postgres::Session;
use crate::postgres::quote::identifier;

/// Checks that the column, where it exists, can hold fingerprints and that the role may read them. Each write-back compares
/// with what is there.
///
/// # Errors
/// Permanent ones with the remedy, and the server's.
pub async fn check_fingerprint(
    session: &Session,
    names: &TargetNames,
    columns: &[TargetColumn],
) -> Result<(), JobError> {
    let name = names.fingerprint.as_deref();
    let Some(column) = name.and_then(|name| find_column(columns, name)) else {
        return Ok(());
    };
    let shown = names.qualified_column(&column.name);
    if column.generated || column.base_type != "uuid" {
        let kind = if column.generated {
            "a generated one of the type "
        } else {
            "of the type "
        };
        return Err(JobError::permanent(format!(
            "{shown} (fingerprint_column) must be an ordinary column of the type uuid, and is {kind}{}; name another one",
            column.declared
        )));
    }
    if !column.readable {
        let role = session.role().await?;
        return Err(JobError::permanent(format!(
            "the role {role} may not read {shown} (fingerprint_column); \
             run as its owner: GRANT SELECT ({name}), UPDATE ({name}) ON {table} TO {quoted};",
            name = identifier(&column.name),
            table = names.qualified(),
            quoted = identifier(&role),
        )));
    }
    Ok(())
}
