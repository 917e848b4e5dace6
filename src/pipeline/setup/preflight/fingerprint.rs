//! The column for the fingerprints: checked where it exists, created where it does not.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::ddl;
use crate::pipeline::setup::definition::Names;
use crate::pipeline::setup::preflight::destination::check_writable;
use crate::pipeline::setup::preflight::relation::Column;
use crate::postgres::Session;
use crate::postgres::quote::identifier;

pub(super) async fn usable_column(
    session: &Session,
    names: &Names,
    name: &str,
    columns: &[Column],
) -> Result<(), JobError> {
    let table = format!("{}.{}", identifier(&names.schema), identifier(&names.table));
    let quoted = identifier(name);
    match columns.iter().find(|column| column.name == name) {
        None => {
            let statement = format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {quoted} uuid");
            ddl::run(session, &statement).await.map_err(|error| {
                error.with_remedy(format!("create the column yourself: {statement};"))
            })?;
            tracing::info!("created the column {table}.{quoted} uuid");
            Ok(())
        }
        Some(column) if column.generated || column.base_type != "uuid" => {
            Err(JobError::permanent(format!(
                "{table}.{quoted} (fingerprint_column) must be an ordinary column of the type uuid, and is {}{}; name another one",
                if column.generated {
                    "a generated one of the type "
                } else {
                    "of the type "
                },
                column.declared
            )))
        }
        Some(column) if !column.readable => Err(JobError::permanent(format!(
            "the daemon's role may not read {table}.{quoted} (fingerprint_column); run as its owner: \
             GRANT SELECT ({quoted}), UPDATE ({quoted}) ON {table} TO the role;"
        ))),
        Some(column) => check_writable(session, names, column, "fingerprint_column").await,
    }
}
