//! The beginning of a change: checks what can be checked, and adds the second job.

use anyhow::{Context, bail};

use super::new_model::NewModelArguments;
use super::pair::Pair;
use crate::cli::engine_arguments::EngineArguments;
use crate::cli::job::JobArguments;
use crate::cli::{output, stderr};
use crate::embedding::ModelName;
use crate::jobs::edit::NewValues;
use crate::jobs::{Definition, JobRow, JobStore, presence};
use crate::pipeline::changeover::names::ColumnNames;
use crate::pipeline::changeover::obstacle;
use crate::pipeline::index::catalog;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::model;
use crate::pipeline::setup::preflight::relation::{TableUse, find_relation};
use crate::postgres::Session;

/// What a change is begun with.
pub struct Beginning<'a> {
    /// Where the jobs are, and the table.
    pub job: &'a JobArguments,
    /// The new model.
    pub model: &'a NewModelArguments,
    /// Loads it.
    pub engine: &'a EngineArguments,
    /// Rows that could not be embedded do not hold the change up.
    pub despite_failures: bool,
}

/// Checks the change of the job `old`, and adds the job that is to replace it.
///
/// # Errors
/// The change is not possible: the message says what to do.
pub async fn begin(
    arguments: Beginning<'_>,
    store: &JobStore,
    old: JobRow,
) -> anyhow::Result<Pair> {
    check_job(store, &old).await?;
    let mut definition = arguments.model.definition(&old);
    definition.accept_failures = arguments.despite_failures;
    check_model(&old.definition, &definition)?;
    let values = values(&definition);
    store.check_columns(&values)?;
    // The daemon records there that the change has happened.
    store.check_columns(&vec![("replaced_by", String::new())])?;
    let names = TargetNames::from_definition(&definition)?;
    let engine = arguments.engine.engine()?;
    let access = arguments.job.access.access();
    let model = model::load(&engine, &names, &access).await?;
    output::line(format_args!(
        "{} makes vectors of {} dimensions",
        model.name(),
        model.dimensions()
    ))?;
    drop(model);
    tokio::task::spawn_blocking(move || engine.shutdown()).await?;
    let session = arguments.job.open_target(store, &old).await?;
    warn(&session, &names, &old, &definition).await?;
    let id = store.add_successor(&old.id, &values).await?;
    let successor = store.rows_with_id(&id).await?.pop();
    let successor = successor.context("the job that was added is gone")?;
    output::line(format_args!(
        "job {id} is added: it fills a column beside {}, and replaces job {} once every row has a vector",
        names.qualified_column(&names.destination),
        old.id
    ))?;
    if presence::is_any_there(store).await? == Some(false) {
        stderr::line(&format!(
            "warning: no daemon works on {}: start one with lantern-cli start-daemon",
            store.table().qualified()
        ));
    }
    Ok(Pair {
        predecessor: Some(old),
        successor,
    })
}

/// Lets the change go on without rows that could not be embedded.
///
/// # Errors
/// The role may not; and the server's.
pub async fn accept_failures(store: &JobStore, pair: &Pair) -> anyhow::Result<()> {
    store.accept_failures(&pair.successor.id).await?;
    output::line(format_args!(
        "job {} does not wait for rows of the failures table any more",
        pair.successor.id
    ))?;
    Ok(())
}

async fn check_job(store: &JobStore, old: &JobRow) -> anyhow::Result<()> {
    let id = &old.id;
    if let Some(successor) = &old.replaced_by {
        bail!("job {id} was replaced by job {successor}: name that one");
    }
    if old.canceled {
        bail!(
            "job {id} is canceled; to run it again: {}",
            store.table().resume_statement(id)
        );
    }
    if let Some(chunk_table) = &old.definition.chunk_table {
        bail!(
            "job {id} has a chunk_table ({chunk_table}), and change-model exchanges columns; add a second job with another \
             chunk_table and the new model, and cancel job {id} when that one is complete"
        );
    }
    if let Some(replaced) = &old.definition.replaces {
        let predecessor = store.rows_with_id(replaced).await?.pop();
        if predecessor.is_some_and(|row| row.replaced_by.as_ref() != Some(id)) {
            bail!(
                "job {id} is about to replace job {replaced} itself; wait for that, or give it up: \
                 lantern-cli change-model --job {replaced} --cancel"
            );
        }
    }
    let successors = store.successors(id).await?;
    if let Some(other) = successors.iter().find(|other| !other.canceled) {
        bail!(
            "job {} is about to replace job {id} already; lantern-cli change-model --job {id} says how far it is, and \
             --cancel gives it up",
            other.id
        );
    }
    Ok(())
}

fn check_model(old: &Definition, new: &Definition) -> anyhow::Result<()> {
    let canonical = |definition: &Definition| {
        let name = definition.embedding_model.as_deref().unwrap_or_default();
        match name.parse::<ModelName>() {
            Ok(parsed) if definition.remote_runtime().is_none() => parsed.to_string(),
            _ => name.to_owned(),
        }
    };
    let is_same = canonical(old) == canonical(new)
        && old.remote_runtime() == new.remote_runtime()
        && old.runtime_params == new.runtime_params;
    if is_same {
        bail!(
            "the job has the model {} already, with the same runtime_params",
            canonical(new)
        );
    }
    Ok(())
}

/// The values of the new row that are not copied from the old one.
fn values(definition: &Definition) -> NewValues {
    let replaces = definition.replaces.as_ref();
    let all = [
        ("embedding_model", definition.embedding_model.clone()),
        ("runtime", definition.runtime.clone()),
        ("runtime_params", definition.runtime_params.clone()),
        ("column_type", definition.column_type.clone()),
        ("create_index", definition.create_index.clone()),
        ("index_params", definition.index_params.clone()),
        ("replaces", replaces.map(|id| id.as_str().to_owned())),
        (
            "accept_failures",
            definition.accept_failures.then(|| "true".to_owned()),
        ),
    ];
    let set = all.into_iter();
    set.filter_map(|(column, value)| Some((column, value?)))
        .collect()
}

/// Says what will be in the way at the end, while there is time.
async fn warn(
    session: &Session,
    names: &TargetNames,
    old: &JobRow,
    definition: &Definition,
) -> anyhow::Result<()> {
    let table = find_relation(session, names, TableUse::Followed).await?.oid;
    // The names of columns do not matter here, and the job has no id yet.
    let Some(columns) = ColumnNames::new(definition, &old.id) else {
        return Ok(());
    };
    if let Some(reason) = obstacle::find(session, names, table, &columns).await? {
        stderr::line(&format!(
            "warning: before the new job can take over: {reason}"
        ));
    }
    let indexes = catalog::read(session, table, &names.destination).await?;
    if let Some(index) = catalog::best(&indexes)
        && definition.create_index.is_none()
    {
        stderr::line(&format!(
            "warning: the index {} stays with the old vectors, and the new ones get none: add --create-index hnsw \
             --index-params '{{\"distance\": \"{}\"}}' to have one built before they are exchanged",
            index.qualified(),
            index.distance.name()
        ));
    }
    Ok(())
}
