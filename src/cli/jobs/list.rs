//! `lantern-cli jobs list`

use clap::Args;

use crate::cli::jobs_table::JobsTableArguments;
use crate::cli::style::Style;
use crate::cli::{json, output, table, wrapped};
use crate::pipeline::commands::status::Observer;
use crate::plural::form;
use crate::postgres::JobAccess;
use crate::status::JobStatus;

const HEADINGS: [&str; 4] = ["id", "state", "job", "model"];
/// The columns that are cut where a terminal is too narrow for them.
const CUT: [usize; 2] = [3, 2];
/// What stays of such a cell.
const MIN_WIDTH: usize = 12;

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
        output::data(&render(&jobs, Style::of_stdout().width))?;
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
            name(&job.place_of_vectors())
        ),
        name(&job.model),
    ]
}

/// The table in this many columns, and the reasons below it.
fn render(jobs: &[JobStatus], width: usize) -> String {
    let mut cells: Vec<Vec<String>> = jobs.iter().map(cells).collect();
    for place in CUT {
        let text = table::render(&HEADINGS, &cells, usize::MAX);
        let excess = text.lines().map(table::width).max().unwrap_or(0);
        let excess = excess.saturating_sub(width);
        let widest = cells.iter().map(|row| table::width(&row[place])).max();
        let fitting = widest.unwrap_or(0).saturating_sub(excess).max(MIN_WIDTH);
        for row in &mut cells {
            row[place] = table::fit(&row[place], fitting);
        }
    }
    let mut text = table::render(&HEADINGS, &cells, usize::MAX);
    let reasons = jobs
        .iter()
        .filter_map(|job| Some((&job.id, job.reason.as_ref()?)));
    for (place, (id, reason)) in reasons.enumerate() {
        if place == 0 {
            text.push('\n');
        }
        text.push_str(&wrapped::paragraph(&format!("job {id}: {reason}"), width));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::JobRow;
    use crate::status::job_status::JobFacts;

    #[test]
    fn it_fits_into_eighty_columns_and_is_whole_where_there_is_room() {
        let mut row = JobRow::example("0b0e7d0e-0000-4000-8000-00000000000a");
        row.definition.table = Some("a_table_with_a_long_name".into());
        row.definition.embedding_model = Some("sentence-transformers/all-MiniLM-L6-v2".into());
        row.failed = true;
        row.failure_reason = Some("word ".repeat(40));
        let jobs = [JobStatus::assemble(&row, JobFacts::default())];
        let narrow = render(&jobs, 80);
        for line in narrow.lines() {
            assert!(table::width(line) <= 80, "{narrow}");
        }
        assert!(
            narrow.contains("failed") && narrow.contains("job 0b0e7d0e-0000"),
            "{narrow}"
        );
        let wide = render(&jobs, usize::MAX);
        assert!(
            wide.contains("all-MiniLM-L6-v2") && wide.contains("a_table_with_a_long_name"),
            "{wide}"
        );
    }
}
