//! `lantern-cli jobs list`

use clap::Args;
use serde_json::{Value, json};

use crate::cli::jobs_table::JobsTableArguments;
use crate::cli::{job_state, json, output, table};
use crate::jobs::JobRow;

const HEADINGS: [&str; 5] = ["id", "state", "job", "model", "reason"];
/// Keeps most lines within 80 columns.
const MAX_CELL_WIDTH: usize = 60;

/// List the jobs of a jobs table, a line each
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    jobs_table: JobsTableArguments,

    /// Print JSON: an array with an object for each job
    #[arg(long)]
    json: bool,
}

/// Lists the jobs, in the order of their ids.
///
/// # Errors
/// The jobs table cannot be read, or the result not be printed.
pub async fn run(arguments: List) -> anyhow::Result<()> {
    let store = arguments.jobs_table.open().await?;
    let found = store.all_rows().await?;
    let mut rows = found.rows;
    rows.sort_by_key(|row| row.id.as_str().parse::<i64>().unwrap_or(i64::MAX));
    if arguments.json {
        let objects: Vec<Value> = rows.iter().map(object).collect();
        return json::print(&objects);
    }
    let table = store.table().qualified();
    if rows.is_empty() {
        output::line(format_args!(
            "{table} has no job; lantern-cli jobs add adds one"
        ))?;
    } else {
        let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
        table::print(&HEADINGS, &cells, MAX_CELL_WIDTH)?;
    }
    if found.nameless > 0 {
        output::line(format_args!(
            "{} more rows of {table} have no id, or one that is too long, and are no jobs",
            found.nameless
        ))?;
    }
    Ok(())
}

fn object(row: &JobRow) -> Value {
    let definition = &row.definition;
    json!({
        "id": row.id.as_str(),
        "state": job_state::word(row),
        "schema": definition.schema,
        "table": definition.table,
        "src_column": definition.src_column,
        "dst_column": definition.dst_column,
        "embedding_model": definition.embedding_model,
        "failed": row.failed,
        "canceled": row.canceled,
        "reason": reason(row),
    })
}

fn cells(row: &JobRow) -> Vec<String> {
    let model = row.definition.embedding_model.clone();
    vec![
        row.id.to_string(),
        job_state::word(row).to_owned(),
        row.definition.to_string(),
        model.unwrap_or_else(|| "?".into()),
        reason(row).unwrap_or_default().to_owned(),
    ]
}

fn reason(row: &JobRow) -> Option<&str> {
    row.failure_reason.as_deref().filter(|_| row.failed)
}
