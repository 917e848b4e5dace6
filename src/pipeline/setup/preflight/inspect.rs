//! Everything that a job needs to know of its table, checked.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::destination::usable_destination;
use crate::pipeline::setup::preflight::key::usable_key;
use crate::pipeline::setup::preflight::privileges::check_type_usable;
use crate::pipeline::setup::preflight::relation::{
    TargetColumn, TargetRelation, find_column, find_relation, read_columns,
};
use crate::pipeline::setup::preflight::source::usable_source;
use crate::pipeline::table::target::{DestinationColumn, KeyColumn, SourceColumn};
use crate::postgres::Session;

/// A table that a job can work on, once it has the columns that are missing.
#[derive(Debug, Clone)]
pub struct FoundTable {
    /// The table itself.
    pub relation: TargetRelation,
    /// All of its columns.
    pub columns: Vec<TargetColumn>,
    /// The columns of the key; at least one.
    pub key: Vec<KeyColumn>,
    /// The column with the text.
    pub source: SourceColumn,
    /// The column for the vectors, if it exists.
    pub destination: Option<DestinationColumn>,
    /// The name of the fingerprint column, if the job has one and it exists.
    pub fingerprint: Option<String>,
}

impl FoundTable {
    /// Whether every column exists that the job needs.
    pub fn is_complete(&self, names: &TargetNames) -> bool {
        self.destination.is_some() && self.fingerprint == names.fingerprint
    }
}

/// Looks at the table of a job whose model has this many dimensions.
///
/// # Errors
/// Permanent ones with a remedy, where the job cannot work on the table; and the server's.
///
/// Cancellation safe: it only reads.
pub async fn inspect(
    session: &Session,
    names: &TargetNames,
    dimensions: usize,
) -> Result<FoundTable, JobError> {
    let relation = find_relation(session, names).await?;
    let columns = read_columns(session, relation.oid).await?;
    let source = usable_source(session, names, &relation, &columns).await?;
    let key = usable_key(session, names, &relation, &columns).await?;
    let destination = match find_column(&columns, &names.destination) {
        Some(column) => {
            check_type_usable(session, names, column).await?;
            Some(usable_destination(names, column, dimensions)?)
        }
        None => None,
    };
    let fingerprint = names.fingerprint.as_deref();
    let fingerprint = fingerprint.and_then(|name| find_column(&columns, name));
    Ok(FoundTable {
        fingerprint: fingerprint.map(|column| column.name.clone()),
        relation,
        key,
        source,
        destination,
        columns,
    })
}
