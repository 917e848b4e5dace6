//! The table of a job, from what [`preflight`](super::preflight) finds: for the daemon, which creates missing columns,
//! and for commands, which create nothing.
//!
//! ```text
//! complete   what the survey has found ─▶ create missing columns ─▶ inspect ─┐
//! existing   inspect ───────────────────────────────────────────────────────┼─▶ TargetTable
//! planned    what the survey has found ─▶ plan the missing destination ─────┘
//! ```

use crate::embedding::Model;
use crate::jobs::Definition;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::columns::{
    create_destination, create_fingerprint, planned_destination,
};
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::chunk_table::check_rights;
use crate::pipeline::setup::preflight::fingerprint::check_fingerprint;
use crate::pipeline::setup::preflight::inspect::{FoundTable, inspect};
use crate::pipeline::setup::preflight::privileges::check_writable;
use crate::pipeline::setup::preflight::relation::TableUse;
use crate::pipeline::setup::row_access::Sessions;
use crate::pipeline::setup::{chunk_table, documents_view};
use crate::pipeline::table::fingerprint::Fingerprint;
use crate::pipeline::table::passages::{
    CHUNK_FINGERPRINT, Cutting, DocumentFingerprint, PassageCheck, PassageTable,
};
use crate::pipeline::table::target::TargetTable;
use crate::postgres::Session;
use crate::postgres::quote::identifier;

/// The table of a job that is about to run, from what the preflight has found. Creates the destination and the
/// fingerprint column if they are missing.
///
/// # Errors
/// Permanent ones with a remedy, and the server's.
///
/// Cancellation safe: each column is created in a statement of its own, or not at all.
pub async fn complete(
    sessions: Sessions<'_>,
    names: &TargetNames,
    definition: &Definition,
    mut found: FoundTable,
    model: &Model,
) -> Result<TargetTable, JobError> {
    let Sessions { stream, rows } = sessions;
    if let Some(table) = &names.passages
        && found.chunk_table.is_none()
    {
        let vectors = (definition.column_type.as_deref(), model.dimensions());
        chunk_table::create(sessions, names, table, &found, vectors).await?;
        let dimensions = Some(model.dimensions());
        found = inspect(rows, names, dimensions, found.table_use).await?;
    } else if !found.is_complete(names) {
        create_missing(stream, names, definition, &found, model.dimensions()).await?;
        // IF NOT EXISTS also succeeds where another session has just created a column of that name, of any type. And a
        // role of its own for rows needs rights on the new column.
        let dimensions = Some(model.dimensions());
        found = inspect(rows, names, dimensions, found.table_use).await?;
        check_writable(rows, names, &found.columns).await?;
        check_fingerprint(names, &found.columns)?;
    }
    if let (Some(table), Some(oid)) = (&names.passages, found.chunk_table) {
        check_rights(rows, table, oid).await?;
    }
    let cutting = cutting(names, model)?;
    let target = assemble(found, names, model.identity(), cutting).ok_or_else(|| {
        JobError::Transient(format!(
            "{}.{} was dropped as soon as it was created",
            names.written(),
            identifier(&names.destination)
        ))
    })?;
    documents_view::provide(stream, &target).await?;
    Ok(target)
}

/// How the job's documents are cut for this model.
fn cutting(names: &TargetNames, model: &Model) -> Result<Cutting, JobError> {
    let resolved = names.text.cutting(model);
    resolved.map_err(|reason| JobError::permanent(format!("the job's runtime_params: {reason}")))
}

/// The table of a job for a command, which creates nothing. A fingerprint column that does not exist yet is left out.
///
/// # Errors
/// Permanent ones with a remedy, also where the destination does not exist yet, and the server's.
///
/// Cancellation safe: it only reads.
pub async fn existing(
    session: &Session,
    names: &TargetNames,
    model: &Model,
) -> Result<TargetTable, JobError> {
    let dimensions = Some(model.dimensions());
    let found = inspect(session, names, dimensions, TableUse::Followed).await?;
    let cutting = cutting(names, model)?;
    assemble(found, names, model.identity(), cutting).ok_or_else(|| {
        JobError::permanent(match &names.passages {
            Some(table) => format!(
                "there is no table {} (chunk_table) yet; the job creates it when it runs",
                table.qualified()
            ),
            None => format!(
                "{} has no column {} yet; the job creates it when it runs",
                names.qualified(),
                identifier(&names.destination)
            ),
        })
    })
}

/// The table as it will be once the job has created its destination, from what the survey has found. Creates nothing.
///
/// # Errors
/// Permanent where the destination cannot be created, and the server's.
///
/// Cancellation safe: it only reads.
pub async fn planned(
    session: &Session,
    names: &TargetNames,
    definition: &Definition,
    mut found: FoundTable,
    dimensions: usize,
) -> Result<Option<TargetTable>, JobError> {
    if found.destination.is_none() {
        let column_type = definition.column_type.as_deref();
        let planned = planned_destination(session, names, column_type, dimensions).await?;
        found.destination = Some(planned);
    }
    Ok(assemble(found, names, "", Cutting::default()))
}

async fn create_missing(
    session: &Session,
    names: &TargetNames,
    definition: &Definition,
    found: &FoundTable,
    dimensions: usize,
) -> Result<(), JobError> {
    if found.destination.is_none() {
        let column_type = definition.column_type.as_deref();
        create_destination(session, names, column_type, dimensions).await?;
    }
    if let Some(name) = &names.fingerprint
        && found.fingerprint.is_none()
    {
        create_fingerprint(session, names, name).await?;
    }
    Ok(())
}

/// The table with what was found. `identity` is that of the model, and `cutting` how documents are cut for it. `None`
/// without a destination.
pub fn assemble(
    found: FoundTable,
    names: &TargetNames,
    identity: &str,
    cutting: Cutting,
) -> Option<TargetTable> {
    let destination = found.destination?;
    let source = found.source;
    let in_fingerprints = &names.destination_in_fingerprints;
    let passages = names.passages.as_ref().map(|table| PassageTable {
        // That of one that is yet to be created.
        oid: found.chunk_table.unwrap_or(0),
        schema: table.schema.clone(),
        name: table.table.clone(),
        passages: Fingerprint::new(CHUNK_FINGERPRINT, identity, in_fingerprints),
        documents: DocumentFingerprint::new(
            identity,
            in_fingerprints,
            &cutting.canonical(),
            source.template.as_ref(),
        ),
        cutting,
        max_document_bytes: names.text.passages.max_document_bytes,
        check: PassageCheck::default(),
    });
    let fingerprint = found
        .fingerprint
        .map(|name| Fingerprint::new(&name, identity, &names.destination_in_fingerprints));
    Some(TargetTable {
        oid: found.relation.oid,
        schema: names.schema.clone(),
        name: names.table.clone(),
        partitioned: found.relation.partitioned,
        identity_full: found.relation.has_identity_full(),
        ancestors: found.relation.ancestors,
        key: found.key,
        source,
        destination,
        fingerprint,
        passages,
    })
}
