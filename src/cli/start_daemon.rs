//! `lantern-cli start-daemon`: runs the supervisor until a signal arrives, or until everything is embedded.
//!
//! The doc comments of the arguments are the output of `--help`, and so the reference of the options.

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::catch_up::CatchUpArguments;
use super::configuration::print::PrintConfigArgument;
use super::daemon_progress;
use super::engine_arguments::{EngineArguments, InferenceArguments};
use super::job_access::JobAccessArguments;
use super::listen_arguments::ListenArguments;
use super::logging::{self, Logging};
use super::output;
use super::refuse_superuser::RefuseSuperuserArguments;
use super::service_manager::ServiceManager;
use super::stop_signals::stop_on_signals;
use crate::embedded::{
    Installation, PrivatePostgres, ServerOptions, default_directory, percent_encoded,
};
use crate::jobs::creation;
use crate::pipeline::slot::retention_limit::RetentionLimit;
use crate::pipeline::supervisor::catch_up::RunEnd;
use crate::pipeline::supervisor::options::{SlotAllocation, SupervisorOptions};
use crate::pipeline::supervisor::state::Supervisor;
use crate::postgres::{ConnectionString, Session};
use crate::status::StatusBoard;

/// The exit status of a service that is not configured (`EX_CONFIG` of sysexits.h): starting it again does not help.
const NOT_CONFIGURED: u8 = 78;

/// A private server is for a person at a terminal, who is told how to connect. A service that runs on one would look as
/// if it worked.
const NO_DATABASE: &str =
    "no jobs database is named, and this is a service: set --uri or LANTERN_URI";

/// Watch a jobs table and keep the embeddings of each job's table up to date
///
/// Without --uri the daemon starts a private PostgreSQL server in the data path, creates the jobs table in it and
/// prints how to connect.
#[derive(Args)]
pub struct StartDaemon {
    /// Connection string of the jobs database: postgresql://user:password@host:port/database. The environment variable
    /// keeps the password out of the process list [default: a private server]
    #[arg(long, env = "LANTERN_URI", hide_env_values = true, value_name = "URI")]
    uri: Option<String>,

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

    /// Run only the jobs with this value in the column "label" [default: all jobs]
    #[arg(long, env = "LANTERN_LABEL", value_name = "LABEL")]
    label: Option<String>,

    /// The most WAL that a replication slot may retain on its server, such as 16GB or 500MB; "off" for no limit. A
    /// job that falls further behind drops its slot and embeds all rows again
    #[arg(
        long,
        env = "LANTERN_MAX_RETAINED_WAL",
        default_value = "16GB",
        value_name = "SIZE"
    )]
    max_retained_wal: RetentionLimit,

    #[command(flatten)]
    access: JobAccessArguments,

    #[command(flatten)]
    refuse_superuser: RefuseSuperuserArguments,

    /// The most jobs that this daemon runs at a time. Further ones wait until others end, or until another daemon takes
    /// them. All daemons of a jobs table should have the same value
    #[arg(
        long,
        env = "LANTERN_MAX_JOBS",
        default_value = "1000",
        value_name = "N"
    )]
    max_jobs: NonZeroUsize,

    /// Use a replication slot for each job, or one for all jobs of a target database. The server decodes the WAL of the
    /// whole database once per slot. All daemons of a jobs table need the same value
    #[arg(long, env = "LANTERN_SLOTS", value_enum, default_value_t = SlotsArgument::Job, value_name = "WHO")]
    slots: SlotsArgument,

    #[command(flatten)]
    catch_up: CatchUpArguments,

    #[command(flatten)]
    engine: EngineArguments,

    #[command(flatten)]
    inference: InferenceArguments,

    #[command(flatten)]
    listen: ListenArguments,

    #[command(flatten)]
    logging: Logging,

    #[command(flatten)]
    _print_config: PrintConfigArgument,
}

/// The values of `--slots`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SlotsArgument {
    /// A slot for each job
    Job,
    /// One slot for all jobs of a target database
    Database,
}

impl From<SlotsArgument> for SlotAllocation {
    fn from(argument: SlotsArgument) -> Self {
        match argument {
            SlotsArgument::Job => SlotAllocation::PerJob,
            SlotsArgument::Database => SlotAllocation::PerDatabase,
        }
    }
}

/// Runs the daemon until it is told to stop, or has caught up where that is its end.
///
/// # Errors
/// The jobs database cannot be reached at the start, the jobs table cannot be used, or `--listen` cannot.
pub async fn run(arguments: StartDaemon) -> anyhow::Result<ExitCode> {
    logging::start(&arguments.logging);
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone())?;
    arguments.catch_up.stop_in_time(stop.clone());
    let board = StatusBoard::default();
    let engine = arguments.engine.engine_for_rows(&arguments.inference)?;
    engine.check_provider().await?;
    let http = arguments.listen.start(&board, &engine, &stop)?;

    let service_manager = ServiceManager::find();
    let (database, private) = match &arguments.uri {
        Some(uri) => (ConnectionString::from_operator(uri).context("--uri")?, None),
        None if service_manager.is_some() => {
            tracing::error!("{NO_DATABASE}");
            return Ok(ExitCode::from(NOT_CONFIGURED));
        }
        None => {
            let (uri, server) = private_server(&arguments).await?;
            (uri, Some(server))
        }
    };
    let options = SupervisorOptions {
        database,
        schema: arguments.schema.clone(),
        table: arguments.table.clone(),
        label: arguments.label.clone(),
        max_retained_wal: arguments.max_retained_wal,
        slots: arguments.slots.into(),
        access: arguments.access.access(),
        max_jobs: arguments.max_jobs.get(),
        powerful_roles: arguments.refuse_superuser.powerful_roles(),
    };
    let supervisor = tokio::select! {
        supervisor = Supervisor::open(options, engine.clone(), board.clone(), stop.clone()) => supervisor?,
        () = stop.cancelled() => {
            let end = RunEnd::Stopped { unfinished: Vec::new() };
            return Ok(arguments.catch_up.exit_code(&end));
        }
    };
    // A private server's jobs are those of the user who has started it.
    if private.is_none() && arguments.access.allows_all_hosts() {
        tracing::warn!(
            "jobs may lead to any host: every role that can write to the jobs table chooses where this daemon connects; \
             name the hosts of your databases with --allow-host or LANTERN_ALLOW_HOST"
        );
    }
    let supervisor = arguments.catch_up.apply(supervisor);
    let work = Box::pin(supervisor.heard_by(service_manager).run());
    let end = match arguments.logging.is_for_people() {
        true => daemon_progress::beside(board, work).await,
        false => work.await,
    };
    // It may have to answer requests first.
    tokio::task::spawn_blocking(move || drop(http)).await?;
    // The process unloads the inference library when it ends. By then none of its threads may run.
    tokio::task::spawn_blocking(move || engine.shutdown()).await?;
    drop(private);
    Ok(arguments.catch_up.exit_code(&end))
}

/// Starts a private server in the data path, with the jobs table in it, and prints how to connect to it.
async fn private_server(
    arguments: &StartDaemon,
) -> anyhow::Result<(ConnectionString, PrivatePostgres)> {
    let data_path = arguments.engine.data_path()?;
    let server = tokio::task::spawn_blocking(move || start_private(&data_path)).await??;
    let passfile = percent_encoded(&server.passfile().to_string_lossy());
    let uri = format!("{}?passfile={passfile}", server.uri("postgres"));
    let database = ConnectionString::from_daemon(&uri)?;
    if arguments.table == "jobs" && arguments.schema == "public" {
        let session = Session::open(&database).await?;
        session
            .batch_execute(&format!("SET search_path = public; {}", creation::SCRIPT))
            .await
            .map_err(crate::postgres::DatabaseError::during(
                "creating the jobs table",
            ))?;
        session
            .batch_execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
            .await
            .ok();
    }
    output::print_if_possible(&introduction(&server));
    Ok((database, server))
}

/// How to connect to the server, and what to do then. The password is in a file alone: standard output often ends up in
/// a log.
fn introduction(server: &PrivatePostgres) -> Vec<String> {
    let uri = format!("postgresql://postgres@127.0.0.1:{}/postgres", server.port());
    let psql = server.bindir().join("psql");
    let psql = match psql.is_file() {
        true => quoted(&psql),
        false => "psql".to_owned(),
    };
    let passfile = quoted(&server.passfile());
    let text = format!(
        "A private PostgreSQL is running. Connect with\n\n  PGPASSFILE={passfile} {psql} '{uri}'\n\n\
         and give the daemon a job, for example:\n\n  \
         CREATE TABLE articles (id SERIAL PRIMARY KEY, title TEXT);\n  \
         INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model)\n  \
         VALUES ('{uri}', 'public', 'articles', 'title', 'title_embedding',\n          \
         'sentence-transformers/all-MiniLM-L6-v2');\n  \
         INSERT INTO articles (title) VALUES ('My articles title');\n\n\
         Then find rows by their meaning:\n\n  \
         PGPASSFILE={passfile} lantern-cli search --uri '{uri}' --job 1 'what is this about?'\n\n"
    );
    text.lines().map(str::to_owned).collect()
}

/// A path as a word of a shell.
fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    match path.chars().all(is_plain) {
        true => path.into_owned(),
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

fn start_private(data_path: &Path) -> anyhow::Result<PrivatePostgres> {
    let installation = Installation::find(data_path)?;
    let options = ServerOptions::new(default_directory(data_path)?);
    Ok(PrivatePostgres::start(&installation, options)?)
}
