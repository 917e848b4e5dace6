//! `lantern-cli start-daemon`

use std::path::Path;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::EngineArguments;
use super::logging::{self, Logging};
use crate::embedded::{Installation, Options, PrivatePostgres, default_directory};
use crate::pipeline::{self, RetentionLimit, Supervisor};
use crate::postgres::allowed_hosts::{AllowedHost, AllowedHosts};
use crate::postgres::{ConnectionString, Session};

/// The jobs table that the embedded default starts with.
const JOBS_TABLE: &str = include_str!("../../sql/jobs.sql");

/// Watch a jobs table and keep the embeddings of each job's table up to date
///
/// Without --uri the daemon starts a private PostgreSQL under the data path, creates the jobs table there and prints how to
/// connect.
#[derive(Args)]
pub struct StartDaemon {
    /// The database with the jobs table: postgresql://user:password@host:port/database (the environment variable keeps the
    /// password out of the process list)
    #[arg(long, env = "LANTERN_URI", hide_env_values = true, value_name = "URI")]
    uri: Option<String>,

    /// The jobs table
    #[arg(long, default_value = "jobs")]
    table: String,

    /// The schema of the jobs table
    #[arg(long, default_value = "public")]
    schema: String,

    /// Take only jobs whose label column says this
    #[arg(long)]
    label: Option<String>,

    /// The most WAL that each job may hold back on its server while it is behind (16GB, 500MB, off). Past it the job drops
    /// its replication slot and embeds every row again
    #[arg(
        long,
        env = "LANTERN_MAX_RETAINED_WAL",
        default_value = "16GB",
        value_name = "SIZE"
    )]
    max_retained_wal: RetentionLimit,
    /// A host that jobs may connect to: host, host:port, or the directory of a Unix socket. May be given several times
    /// [default: any host]
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<AllowedHost>,

    /// Who has a replication slot: each job, or all jobs of a target database together. The server decodes the WAL of the whole
    /// database once for each slot
    #[arg(long, env = "LANTERN_SLOTS", value_enum, default_value_t = Slots::Job, value_name = "WHO")]
    slots: Slots,

    #[command(flatten)]
    engine: EngineArguments,

    #[command(flatten)]
    logging: Logging,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Slots {
    /// A slot for each job
    Job,
    /// One slot for all jobs of a database
    Database,
}

pub async fn run(arguments: StartDaemon) -> anyhow::Result<()> {
    logging::start(&arguments.logging)?;
    crate::failpoint::read_environment();
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone())?;

    let (database, private) = match &arguments.uri {
        Some(uri) => (ConnectionString::from_operator(uri).context("--uri")?, None),
        None => {
            let (uri, server) = private_server(&arguments).await?;
            (uri, Some(server))
        }
    };
    let options = pipeline::Options {
        database,
        schema: arguments.schema.clone(),
        table: arguments.table.clone(),
        label: arguments.label.clone(),
        max_retained_wal: arguments.max_retained_wal,
        slots: match arguments.slots {
            Slots::Job => pipeline::Slots::Job,
            Slots::Database => pipeline::Slots::Database,
        },
        allowed_hosts: AllowedHosts::new(arguments.allow_host.clone()),
    };
    let engine = arguments.engine.engine();
    let supervisor = tokio::select! {
        supervisor = Supervisor::open(options, engine.clone(), stop.clone()) => supervisor?,
        () = stop.cancelled() => return Ok(()),
    };
    supervisor.run().await;
    // Its threads must be at rest before the process tears the inference library down.
    tokio::task::spawn_blocking(move || engine.shutdown()).await?;
    drop(private);
    Ok(())
}

/// The first SIGTERM or Ctrl-C asks for an orderly end, the second ends the process at once.
fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::spawn(async move {
        for round in 0.. {
            let status = tokio::select! {
                _ = terminate.recv() => 143,
                _ = interrupt.recv() => 130,
            };
            if round > 0 {
                std::process::exit(status);
            }
            tracing::info!("asked to stop; a second signal ends at once");
            stop.cancel();
        }
    });
    Ok(())
}

/// The embedded default: a server under the data path with the jobs table in it.
async fn private_server(
    arguments: &StartDaemon,
) -> anyhow::Result<(ConnectionString, PrivatePostgres)> {
    let data_path = arguments.engine.data_path();
    let server = tokio::task::spawn_blocking(move || start_private(&data_path)).await??;
    let uri = server.uri("postgres");
    let database: ConnectionString = uri.parse()?;
    if arguments.table == "jobs" && arguments.schema == "public" {
        let session = Session::open(&database).await?;
        session
            .batch_execute(&format!("SET search_path = public; {JOBS_TABLE}"))
            .await
            .map_err(crate::postgres::DatabaseError::during(
                "creating the jobs table",
            ))?;
        session
            .batch_execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
            .await
            .ok();
    }
    println!(
        "A private PostgreSQL is running. Connect with\n\n  psql '{uri}'\n\nand give the daemon a job, for example:\n\n  \
         CREATE TABLE articles (id SERIAL PRIMARY KEY, title TEXT);\n  \
         INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model)\n  \
         VALUES ('{uri}', 'public', 'articles', 'title', 'title_embedding',\n          \
         'sentence-transformers/all-MiniLM-L6-v2');\n  \
         INSERT INTO articles (title) VALUES ('My articles title');\n"
    );
    Ok((database, server))
}

fn start_private(data_path: &Path) -> anyhow::Result<PrivatePostgres> {
    let installation = Installation::find(data_path)?;
    let options = Options::new(default_directory(data_path)?);
    Ok(PrivatePostgres::start(&installation, options)?)
}
