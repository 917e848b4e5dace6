//! The column for the fingerprints, where it exists.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::relation::{TargetColumn, find_column};

/// Checks that the column, where it exists, can hold fingerprints. That the role may read and write it is asked for all
/// columns that are written ([`check_writable`](super::privileges::check_writable)).
///
/// # Errors
/// Permanent, with the remedy.
pub fn check_fingerprint(names: &TargetNames, columns: &[TargetColumn]) -> Result<(), JobError> {
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
    Ok(())
}
