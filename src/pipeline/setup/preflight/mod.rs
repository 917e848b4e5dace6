//! Looks at the target before anything is changed there, as the daemon's own role, and says what a person has to do
//! where the job cannot work.

mod destination;
mod fingerprint;
mod key;
mod relation;
mod server;
mod source;

pub use server::{check_free_slot, check_server, is_standby};

use crate::embedding::Model;
use crate::jobs::Definition;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::Names;
use crate::pipeline::table::fingerprint::Fingerprint;
use crate::pipeline::table::target::{DestinationColumn, KeyColumn, SourceColumn, TargetTable};
use crate::postgres::Session;
use crate::postgres::quote::identifier;
use destination::{check_writable, create_destination, existing_destination};
use key::usable_key;
use relation::{Relation, columns, find_relation};
use source::source_column;

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
        return Err(JobError::permanent(format!(
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
