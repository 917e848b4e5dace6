//! `lantern-cli jobs list`

use clap::Args;

use crate::cli::jobs_table::JobsTableArguments;
use crate::cli::{json, output, table};
use crate::pipeline::commands::status::Observer;
use crate::plural::form;
use crate::postgres::JobAccess;
use crate::status::JobStatus;

const HEADINGS: [&str; 5] = ["id", "state", "job", "model", "reason"];
/// Keeps most lines within 80 columns.
const MAX_CELL_WIDTH: usize = 60;

/// List the jobs of a jobs table, a line each
///
/// `lantern-cli status` shows how they are.
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    jobs_table: JobsTableArguments,

    /// Print JSON: an array with an object for each job, as of status --json
    #[arg(long)]
    json: bool,
}

/// Lists the jobs, in the order of their ids.
///
/// # Errors
/// The jobs table cannot be read, or the result not be printed.
pub async fn run(arguments: List) -> anyhow::Result<()> {
    let observer = Observer {
        store: arguments.jobs_table.open().await?,
        access: JobAccess::default(),
        target: None,
    };
    let observed = observer.look(None, None).await?;
    let jobs = observed.jobs;
    if arguments.json {
        return json::print(&jobs);
    }
    let table = observer.store.table().qualified();
    if jobs.is_empty() {
        output::line(format_args!(
            "{table} has no job; lantern-cli jobs add adds one"
        ))?;
    } else {
        let cells: Vec<Vec<String>> = jobs.iter().map(cells).collect();
        table::print(&HEADINGS, &cells, MAX_CELL_WIDTH)?;
    }
    if observed.nameless > 0 {
        output::line(format_args!(
            "{} more {}",
            observed.nameless,
            form(
                observed.nameless,
                &format!("row of {table} has no id, or one that is too long, and is no job"),
                &format!("rows of {table} have no id, or one that is too long, and are no jobs")
            )
        ))?;
    }
    Ok(())
}

fn cells(job: &JobStatus) -> Vec<String> {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "?".to_owned());
    vec![
        job.id.clone(),
        job.state.name().to_owned(),
        format!(
            "{}.{} -> {}",
            job.table,
            name(&job.source),
            name(&job.destination)
        ),
        name(&job.model),
        job.reason.clone().unwrap_or_default(),
    ]
}
