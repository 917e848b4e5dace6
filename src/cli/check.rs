//! `lantern-cli check`

use std::process::ExitCode;

use clap::{ArgGroup, Args};
use serde_json::json;

use super::engine_arguments::EngineArguments;
use super::job_access::JobAccessArguments;
use super::jobs_table::{JobsTableArguments, explain};
use super::new_job::{NewJobArguments, Place};
use super::refuse_superuser::RefuseSuperuserArguments;
use super::start_daemon::SlotsArgument;
use super::{job, json, output, points};
use crate::jobs::table::JobsTableError;
use crate::jobs::{JobRow, JobStore, JobsTable};
use crate::pipeline::commands::check;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::preflight::points::{Outcome, Points};
use crate::pipeline::setup::preflight::users_code::{PowerfulRoles, find_exposure};
use crate::postgres::Session;

/// Look at everything that a job needs, and say what to do where something is missing
///
/// Looks as the daemon's own role would: give it the connection and the options that the daemon has. Nothing is
/// changed. With --job it checks a job of the jobs table, also one that runs; with --table and --column one that does
/// not exist yet. A line begins with ✓ where all is well, ✗ where the job would not start, ! for advice, and · where
/// something could not be looked at. A job that starts makes the same checks, and fails with the same words. Exits with
/// 1 if the job would not start.
#[derive(Args)]
#[command(group(ArgGroup::new("subject").required(true).args(["job", "table"])))]
pub struct Check {
    #[command(flatten)]
    jobs_table: JobsTableArguments,

    /// The id of a job
    #[arg(long, value_name = "ID")]
    job: Option<String>,

    /// The table of a job that does not exist yet
    #[arg(long, value_name = "NAME", requires = "column")]
    table: Option<String>,

    /// Its column with the text
    #[arg(long, value_name = "NAME", conflicts_with = "job", requires = "table")]
    column: Option<String>,

    /// The target database, in place of the job's db_connection
    #[arg(
        long,
        env = "LANTERN_TARGET",
        hide_env_values = true,
        value_name = "URI"
    )]
    target: Option<String>,

    #[command(flatten)]
    new_job: NewJobArguments,

    #[command(flatten)]
    daemon: DaemonArguments,

    /// Print JSON: an object with all points
    #[arg(long)]
    json: bool,
}

/// The options of the daemon that decide whether a job starts.
#[derive(Args)]
pub struct DaemonArguments {
    /// Whose slots the daemon uses, as for start-daemon
    #[arg(long, env = "LANTERN_SLOTS", value_enum, default_value_t = SlotsArgument::Job, value_name = "WHO")]
    slots: SlotsArgument,

    #[command(flatten)]
    access: JobAccessArguments,

    #[command(flatten)]
    refuse_superuser: RefuseSuperuserArguments,

    #[command(flatten)]
    engine: EngineArguments,
}

impl DaemonArguments {
    /// Looks at a job, as a daemon with these options.
    ///
    /// # Errors
    /// If there is no data folder.
    pub async fn check(
        &self,
        row: &JobRow,
        store: Option<&JobStore>,
        label: Option<&str>,
        points: &mut Points,
    ) -> anyhow::Result<()> {
        let engine = self.engine.engine_without_downloads()?;
        let check = check::Check {
            row,
            store,
            engine: &engine,
            downloads: self.engine.downloads(),
            access: &self.access.access(),
            powerful_roles: self.refuse_superuser.powerful_roles(),
            shares_slots: self.slots == SlotsArgument::Database,
            label,
        };
        check.run(points).await;
        tokio::task::spawn_blocking(move || engine.shutdown()).await?;
        Ok(())
    }
}

/// Looks, and prints what was found.
///
/// # Errors
/// The arguments are not valid, or the result cannot be printed.
pub async fn run(arguments: Check) -> anyhow::Result<ExitCode> {
    let mut points = Points::default();
    arguments.jobs_table.database()?;
    let (row, store) = match (&arguments.job, &arguments.table, &arguments.column) {
        (None, Some(table), Some(column)) => {
            let place = Place { table, column };
            let uri = &arguments.jobs_table.uri;
            let values = arguments.new_job.values(&place, uri)?;
            if arguments.target.is_none() {
                arguments.new_job.warn_of_password(uri);
            }
            (Some(arguments.new_job.row(&values)), None)
        }
        (id, ..) => {
            let id = id.as_deref().unwrap_or_default();
            arguments.find(&mut points, id).await
        }
    };
    if row.is_none() {
        check::skip(&mut points, "there is no job to look at");
    }
    if let Some(mut row) = row {
        if let Some(target) = &arguments.target {
            row.definition.db_connection.clone_from(target);
        }
        let label = arguments.new_job.label.as_deref();
        let daemon = &arguments.daemon;
        daemon
            .check(&row, store.as_ref(), label, &mut points)
            .await?;
    }
    report(&points, arguments.job.as_deref(), arguments.json)
}

fn report(points: &Points, job: Option<&str>, as_json: bool) -> anyhow::Result<ExitCode> {
    let may_start = points.may_start();
    if as_json {
        json::print(&json!({
            "job": job,
            "would_start": may_start,
            "points": points::to_json(points),
        }))?;
    } else {
        points::print(points, |_| true)?;
        output::lines(&[String::new(), verdict(points)])?;
    }
    Ok(match may_start {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The end of the report.
pub fn verdict(points: &Points) -> String {
    let failures = points
        .iter()
        .filter(|point| matches!(point.outcome, Outcome::Failed(_)));
    match failures.count() {
        0 => "The job would start.".into(),
        1 => "The job would not start: see ✗ above for what to do.".into(),
        count => format!("The job would not start: see the {count} ✗ above for what to do."),
    }
}

impl Check {
    /// The row of the job, as far as there is one.
    async fn find(&self, points: &mut Points, id: &str) -> (Option<JobRow>, Option<JobStore>) {
        let Some(store) = self.open_jobs_table(points).await else {
            return (None, None);
        };
        let row = match job::find(&store, id).await {
            Ok(row) => row,
            Err(error) => {
                points.add(
                    "job",
                    Outcome::Failed(JobError::permanent(format!("{error:#}"))),
                );
                return (None, None);
            }
        };
        note_state(points, &store, &row);
        if row.definition.db_connection.is_empty() && self.target.is_none() {
            let reason = format!(
                "db_connection of job {id} is empty, or {} does not show it to this role: name the target database \
                 with --target",
                store.table().qualified()
            );
            points.add("connection", Outcome::Failed(JobError::permanent(reason)));
            return (None, None);
        }
        (Some(row), Some(store))
    }

    /// The jobs table as the daemon uses it. Where the role may only read it, that is a failure, and the job can be
    /// looked at all the same.
    async fn open_jobs_table(&self, points: &mut Points) -> Option<JobStore> {
        let arguments = &self.jobs_table;
        let opened = match arguments.database() {
            Ok(database) => check::open_read_only(&database).await,
            Err(_) => return None,
        };
        let session = points.note("jobs database", opened, |session| {
            session.server().to_string()
        })?;
        let (schema, name) = (&arguments.jobs_schema, &arguments.jobs_table);
        let label = self.new_job.label.as_deref();
        let table = match JobsTable::discover(&session, schema, name, label).await {
            Ok(table) => {
                points.add("jobs table", Outcome::Passed(table.qualified().to_owned()));
                table
            }
            Err(error) => {
                let may_be_readable = matches!(error, JobsTableError::Privilege { .. });
                let error = JobError::permanent(explain(&error));
                points.add("jobs table", Outcome::Failed(error));
                if !may_be_readable {
                    return None;
                }
                JobsTable::discover_readable(&session, schema, name)
                    .await
                    .ok()?
            }
        };
        self.note_exposure(points, &session, table.qualified())
            .await;
        Some(JobStore::new(session, table, None))
    }

    /// Whether the owner of the jobs table could gain rights of the daemon's role.
    async fn note_exposure(&self, points: &mut Points, session: &Session, table: &str) {
        let Some(exposure) = points
            .note_failure("jobs table", find_exposure(session, table).await)
            .flatten()
        else {
            return;
        };
        let text = format!(
            "{exposure}; let --uri name a role that has no more rights than the daemon needs: lantern-cli sql role \
             prints a script that creates one"
        );
        let outcome = match self.daemon.refuse_superuser.powerful_roles() {
            PowerfulRoles::Warn => Outcome::Advice(text),
            PowerfulRoles::Refuse => Outcome::Failed(JobError::permanent(text)),
        };
        points.add("jobs table", outcome);
    }
}

/// Says whether the job is one that a daemon runs.
fn note_state(points: &mut Points, store: &JobStore, row: &JobRow) {
    let table = store.table();
    let outcome = if row.canceled {
        Outcome::Failed(JobError::permanent(format!(
            "job {} is canceled; to run it again: {}",
            row.id,
            table.resume_statement(&row.id)
        )))
    } else if row.failed {
        let reason = row
            .failure_reason
            .as_deref()
            .unwrap_or("no reason is given");
        Outcome::Failed(JobError::permanent(format!(
            "job {id} has failed, and waits until it is started again: lantern-cli jobs retry {id}. It had failed \
             because: {reason}",
            id = row.id,
        )))
    } else {
        Outcome::Passed(format!("job {}: {}", row.id, row.definition))
    };
    points.add("job", outcome);
}
