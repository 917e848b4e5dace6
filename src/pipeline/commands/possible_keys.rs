//! Which keys of the failures table a row can still have.
//!
//! A key is kept there as text. Since then a value of an enum may have been renamed, or a column retyped, so that the
//! text is no value of the column any more. One such key would fail the statement for all others.

use crate::pipeline::error::JobError;
use crate::pipeline::table::key_sql::parameters;
use crate::pipeline::table::row::Key;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{DatabaseError, Session};

/// Divides keys into those that can be values of the key columns and those that cannot.
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it only reads.
pub async fn possible_keys(
    session: &Session,
    target: &TargetTable,
    keys: Vec<Key>,
) -> Result<(Vec<Key>, Vec<Key>), JobError> {
    let (mut possible, mut impossible) = (Vec::new(), Vec::new());
    // A statement that fails without a key fails for another reason.
    cast(session, target, &[]).await?;
    let mut parts = vec![keys];
    while let Some(mut part) = parts.pop() {
        match cast(session, target, &part).await {
            Ok(()) => possible.extend(part),
            Err(error) if error.is_transient() || error.code().is_none() => {
                return Err(error.into());
            }
            Err(_) if part.len() == 1 => impossible.extend(part),
            Err(_) => {
                let second = part.split_off(part.len() / 2);
                parts.extend([second, part]);
            }
        }
    }
    Ok((possible, impossible))
}

/// Casts keys to the types of their columns.
async fn cast(session: &Session, target: &TargetTable, keys: &[Key]) -> Result<(), DatabaseError> {
    // A column that is not used would not be computed.
    let used: Vec<String> = (0..target.key.len())
        .map(|position| format!("count(format('%s', i.k{position}))"))
        .collect();
    let statement = format!(
        "SELECT {} FROM (SELECT {} FROM {}) i",
        used.join(", "),
        target.key_casts("u"),
        target.unnest_keys(&[])
    );
    let arrays = target.key_arrays(keys);
    let counted = session.query_one(&statement, &parameters(&arrays)).await;
    counted.map_err(DatabaseError::during(
        "reading the keys of the failures table",
    ))?;
    Ok(())
}
