//! Looks at the target before anything is changed there, as the daemon's own role, and says what a person has to do where
//! the job cannot work.

mod destination;
mod fingerprint;
mod key;
mod relation;
mod server;
mod source;

pub use key::{TableState, table_state};
pub use server::{check_free_slot, check_server, is_standby};

use crate::embedding::Model;
use crate::jobs::Definition;
use crate::postgres::Session;
use crate::postgres::quote::identifier;

use super::error::JobError;
use super::fingerprint::Fingerprint;
use super::target::{DestinationColumn, KeyColumn, SourceColumn, TargetTable};
use destination::{check_writable, create_destination, existing_destination};
use key::usable_key;
use relation::{Relation, columns, find_relation};
use source::source_column;

/// The names that a definition gives, all present.
pub struct Names {
    pub schema: String,
    pub table: String,
    pub source: String,
    pub destination: String,
    pub model: String,
    pub fingerprint: Option<String>,
}

/// Checks a definition by itself, without any server.
pub fn names(definition: &Definition) -> Result<Names, JobError> {
    let required = |value: &Option<String>, column: &str| {
        value.clone().ok_or_else(|| {
            JobError::definite(format!(
                "the job's {column} is empty; set it in the jobs table"
            ))
        })
    };
    let names = Names {
        schema: definition.schema.clone(),
        table: required(&definition.table, "\"table\"")?,
        source: required(&definition.src_column, "src_column")?,
        destination: required(&definition.dst_column, "dst_column")?,
        model: required(&definition.embedding_model, "embedding_model")?,
        fingerprint: definition.fingerprint_column.clone(),
    };
    if let Some(column) = names
        .fingerprint
        .as_ref()
        .filter(|column| [&names.source, &names.destination].contains(column))
    {
        return Err(JobError::definite(format!(
            "fingerprint_column names {}, which is the source or the destination; fingerprints need a column of their own",
            identifier(column)
        )));
    }
    if names.source == names.destination {
        return Err(JobError::definite(format!(
            "src_column and dst_column are both {}; the vectors need a column of their own",
            identifier(&names.source)
        )));
    }
    if let Some(runtime) = definition
        .runtime
        .as_deref()
        .filter(|runtime| *runtime != "ort")
    {
        return Err(JobError::definite(format!(
            "the runtime {runtime:?} is not known; only \"ort\" (models in this process) is"
        )));
    }
    if definition.batch_size.is_some_and(|size| size < 1) {
        return Err(JobError::definite(
            "batch_size must be at least 1; set it to NULL for the default",
        ));
    }
    let parameters = definition.runtime_params.as_deref().unwrap_or("{}");
    if !matches!(serde_json::from_str(parameters), Ok(serde_json::Value::Object(map)) if map.is_empty())
    {
        return Err(JobError::definite(format!(
            "the job's runtime_params are {parameters}, but the runtime \"ort\" has no parameters; set them to NULL"
        )));
    }
    Ok(names)
}

/// Reads the table from the catalogue. The destination is created where it is missing.
pub async fn target_table(
    session: &Session,
    names: &Names,
    definition: &Definition,
    model: &Model,
) -> Result<TargetTable, JobError> {
    let relation = find_relation(session, names).await?;
    let columns = columns(session, relation.oid).await?;
    let source = source_column(names, &columns, session, &relation).await?;
    let key = usable_key(session, &relation, names, definition.pk.as_deref()).await?;
    let destination = match columns
        .iter()
        .find(|column| column.name == names.destination)
    {
        Some(column) => {
            let destination = existing_destination(names, column, model.dimensions())?;
            check_writable(session, names, column, "dst_column").await?;
            destination
        }
        None => create_destination(session, names, definition, model.dimensions()).await?,
    };
    let fingerprint = match &names.fingerprint {
        Some(name) => {
            fingerprint::usable_column(session, names, name, &columns).await?;
            Some(Fingerprint::new(name, model.identity(), &destination.name))
        }
        None => None,
    };
    Ok(TargetTable {
        fingerprint,
        ..assemble(relation, names, key, source, destination)
    })
}

/// As [`target_table`], for commands: nothing is created. A fingerprint column that is not there yet is left out.
pub async fn existing_table(
    session: &Session,
    names: &Names,
    model: &Model,
) -> Result<TargetTable, JobError> {
    let relation = find_relation(session, names).await?;
    let columns = columns(session, relation.oid).await?;
    let source = source_column(names, &columns, session, &relation).await?;
    let key = usable_key(session, &relation, names, None).await?;
    let Some(column) = columns
        .iter()
        .find(|column| column.name == names.destination)
    else {
        return Err(JobError::definite(format!(
            "{}.{} has no column {} yet; the job creates it when it runs",
            identifier(&names.schema),
            identifier(&names.table),
            identifier(&names.destination)
        )));
    };
    let destination = existing_destination(names, column, model.dimensions())?;
    let fingerprint = names
        .fingerprint
        .as_ref()
        .filter(|name| columns.iter().any(|column| column.name == **name))
        .map(|name| Fingerprint::new(name, model.identity(), &destination.name));
    Ok(TargetTable {
        fingerprint,
        ..assemble(relation, names, key, source, destination)
    })
}

fn assemble(
    relation: Relation,
    names: &Names,
    key: Vec<KeyColumn>,
    source: SourceColumn,
    destination: DestinationColumn,
) -> TargetTable {
    TargetTable {
        oid: relation.oid,
        schema: names.schema.clone(),
        name: names.table.clone(),
        partitioned: relation.kind == b'p' as i8,
        key,
        identity_full: relation.identity == b'f' as i8,
        source,
        destination,
        fingerprint: None,
    }
}
