//! How far an index is searched.

use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// As many candidates as are asked for, and further ones for as long as the condition leaves too few: iterative
/// scans, which pgvector has from 0.8 on. A setting that its version does not have is left out. `ef_search` may be at
/// most 1000 (`HNSW_MAX_EF_SEARCH` in `hnsw.h`).
const STATEMENT: &str = "SELECT set_config(s.name, CASE s.name \
       WHEN 'hnsw.iterative_scan' THEN 'strict_order' \
       WHEN 'ivfflat.iterative_scan' THEN 'relaxed_order' \
       ELSE LEAST(1000, GREATEST(s.setting::bigint, $1::bigint))::text END, true) \
     FROM pg_settings s WHERE s.name IN ('hnsw.iterative_scan', 'ivfflat.iterative_scan', 'hnsw.ef_search')";

/// Sets this for the transaction, for so many candidates. `schema` is that of pgvector.
///
/// # Errors
/// The server's.
pub async fn search_far(
    session: &Session,
    schema: &str,
    candidates: u64,
) -> Result<(), DatabaseError> {
    let candidates = i64::try_from(candidates).unwrap_or(i64::MAX);
    let failed = || DatabaseError::during("setting how far an index is searched");
    // The settings exist from the first use of the extension on.
    let load = format!("SELECT ARRAY[0]::real[]::{}.vector", identifier(schema));
    session.batch_execute(&load).await.map_err(failed())?;
    session
        .execute(STATEMENT, &[&candidates])
        .await
        .map_err(failed())?;
    Ok(())
}
