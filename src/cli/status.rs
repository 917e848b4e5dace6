//! `lantern-cli status`: how the jobs are, for a person or a program.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::job_access::JobAccessArguments;
use super::style::Style;
use super::{output, status_details, status_table, stderr};
use crate::jobs::{JobId, JobStore, JobsTable};
use crate::pipeline::commands::status::{Observed, Observer};
use crate::pipeline::setup::coverage::Counting;
use crate::postgres::{ConnectionString, Session};
use crate::status::JobStatus;
use crate::status::record::DaemonName;

/// While it watches, it asks how many rows have a vector only this often.
const COVERAGE_INTERVAL: Duration = Duration::from_secs(60);
/// Moves the cursor to the upper left corner, and clears the screen (ECMA-48, CUP and ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Show how the jobs are: progress, lag, failures, and which daemon runs them
///
/// Everything comes from the databases, so it works while no daemon runs. A wide terminal shows more columns; with a JOB it
/// shows all that is known of one. Rates and the lag in seconds need the column "stats" of the jobs table (sql/jobs.sql).
///
/// Columns: "vectors" is the share of the rows with a text that have a vector, or passages in a chunk table, after "~" where
/// it is estimated from some pages of the table; "lag" the age of the oldest change that has no vector yet; "behind" the WAL that is not worked
/// off yet; "WAL" what the slot keeps on its server; "failed" the rows in the failures table.
#[derive(Args)]
pub struct Status {
    /// The id of a job, to show all that is known of it [default: a line for each job]
    #[arg(conflicts_with = "job_option")]
    job: Option<String>,

    /// The same, as other commands name it
    #[arg(long = "job", value_name = "ID")]
    job_option: Option<String>,

    /// Connection string of the jobs database, as for start-daemon
    #[arg(long, env = "LANTERN_URI", hide_env_values = true, value_name = "URI")]
    uri: String,

    /// Name of the jobs table
    #[arg(
        long = "jobs-table",
        visible_alias = "table",
        env = "LANTERN_JOBS_TABLE",
        default_value = "jobs",
        value_name = "NAME"
    )]
    table: String,

    /// Schema of the jobs table
    #[arg(
        long = "jobs-schema",
        visible_alias = "schema",
        env = "LANTERN_JOBS_SCHEMA",
        default_value = "public",
        value_name = "NAME"
    )]
    schema: String,

    /// The target database of all jobs, in place of db_connection: for roles that may not read it, or have a login of
    /// their own there
    #[arg(
        long,
        env = "LANTERN_TARGET",
        hide_env_values = true,
        value_name = "URI"
    )]
    target: Option<String>,

    /// Print JSON; with --watch, an object on each line
    #[arg(long)]
    json: bool,

    /// Show it again every so many seconds, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    watch: Option<Duration>,

    /// Count the rows with a vector, also of large tables: that reads them from beginning to end [default: tables beyond
    /// 8 MB are estimated]
    #[arg(long)]
    exact: bool,

    #[command(flatten)]
    access: JobAccessArguments,
}

/// What `--json` prints.
#[derive(Serialize)]
struct JsonStatus<'a> {
    /// Daemons that have this jobs table.
    daemons: usize,
    named_daemons: &'a [DaemonName],
    jobs: &'a [JobStatus],
    problems: &'a [String],
}

/// Prints the state of the jobs.
///
/// # Errors
/// The jobs database cannot be asked, or there is no such job.
pub async fn run(arguments: Status) -> anyhow::Result<()> {
    let observer = arguments.observer().await?;
    let counting = match arguments.exact {
        true => Counting::Always,
        false => Counting::Small,
    };
    let Some(interval) = arguments.watch else {
        let observed = arguments.look(&observer, counting).await?;
        return arguments.print(&observed);
    };
    arguments.watch(observer, counting, interval).await
}

impl Status {
    /// The job that was asked for, if one was.
    fn only(&self) -> Option<&str> {
        self.job.as_deref().or(self.job_option.as_deref())
    }

    async fn observer(&self) -> anyhow::Result<Observer> {
        let jobs = ConnectionString::from_operator(&self.uri).context("--uri")?;
        let session = Session::open(&jobs.named("status")).await?;
        let table = JobsTable::discover_readable(&session, &self.schema, &self.table).await?;
        let target = self.target.as_ref();
        let target = target.map(|target| ConnectionString::of_operator(target).context("--target"));
        Ok(Observer {
            store: JobStore::new(session, table, None),
            access: self.access.access(),
            target: target.transpose()?,
        })
    }

    async fn look(&self, observer: &Observer, counting: Counting) -> anyhow::Result<Observed> {
        let only = self.only().map(JobId::new);
        let observed = observer.look(only.as_ref(), Some(counting)).await?;
        if let Some(id) = &only
            && observed.jobs.is_empty()
        {
            let ids = observer.store.rows().await?.rows;
            let ids: Vec<String> = ids.iter().map(|row| row.id.to_string()).collect();
            let has = match ids.is_empty() {
                true => "none".to_owned(),
                false => ids.join(", "),
            };
            let table = observer.store.table().qualified();
            bail!("there is no job {id} in {table}; it has {has}");
        }
        Ok(observed)
    }

    /// Looks again and again. A jobs database that is away is said to be, and asked again.
    async fn watch(
        &self,
        mut observer: Observer,
        counting: Counting,
        interval: Duration,
    ) -> anyhow::Result<()> {
        let mut counted: Option<(tokio::time::Instant, Observed)> = None;
        loop {
            let is_due = counted
                .as_ref()
                .is_none_or(|(at, _)| at.elapsed() >= COVERAGE_INTERVAL);
            let counting = match is_due {
                true => counting,
                false => Counting::Off,
            };
            match self.look(&observer, counting).await {
                Ok(mut observed) => {
                    match &counted {
                        Some((_, counted)) if !is_due => keep_coverage(&mut observed, counted),
                        _ => {}
                    }
                    self.clear()?;
                    self.print(&observed)?;
                    if is_due {
                        counted = Some((tokio::time::Instant::now(), observed));
                    }
                }
                Err(error) if observer.store.session().is_closed() => {
                    stderr::line(&format!("the jobs database does not answer: {error:#}"));
                    if let Ok(again) = self.observer().await {
                        observer = again;
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(interval).await;
        }
    }

    fn clear(&self) -> anyhow::Result<()> {
        if !self.json && stdout().is_terminal() {
            output::data(CLEAR)?;
        }
        Ok(())
    }

    fn print(&self, observed: &Observed) -> anyhow::Result<()> {
        if self.json {
            let status = JsonStatus {
                daemons: observed.daemons,
                named_daemons: &observed.named_daemons,
                jobs: &observed.jobs,
                problems: &observed.problems,
            };
            let text = match self.watch {
                Some(_) => serde_json::to_string(&status)?,
                None => serde_json::to_string_pretty(&status)?,
            };
            output::data(&(text + "\n"))?;
            return Ok(());
        }
        let style = Style::of_stdout();
        let text = match self.only() {
            Some(_) => status_details::render(observed, style),
            None => status_table::render(observed, style),
        };
        output::data(&text)?;
        Ok(())
    }
}

/// How many rows had a vector when that was asked last.
fn keep_coverage(observed: &mut Observed, counted: &Observed) {
    for job in &mut observed.jobs {
        let before = counted.jobs.iter().find(|before| before.id == job.id);
        job.coverage = before.and_then(|before| before.coverage).or(job.coverage);
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "write a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(interval) if interval >= Duration::from_millis(100) => Ok(interval),
        _ => Err("write a number of seconds, 0.1 or more".to_owned()),
    }
}
