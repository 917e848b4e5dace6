//! `lantern-cli create-table`

use anyhow::Context;
use clap::Args;

use super::output;
use crate::jobs::creation::create;
use crate::postgres::{ConnectionString, Session};

/// Create the jobs table and the failures table beside it, with all columns that the daemon knows
///
/// What is there already stays as it is.
#[derive(Args)]
pub struct CreateTable {
    /// The jobs database, as for start-daemon
    #[arg(long, env = "LANTERN_URI", hide_env_values = true, value_name = "URI")]
    uri: String,

    /// The name of the jobs table
    #[arg(
        long = "jobs-table",
        visible_alias = "table",
        env = "LANTERN_JOBS_TABLE",
        default_value = "jobs",
        value_name = "NAME"
    )]
    table: String,

    /// Its schema
    #[arg(
        long = "jobs-schema",
        visible_alias = "schema",
        env = "LANTERN_JOBS_SCHEMA",
        default_value = "public",
        value_name = "NAME"
    )]
    schema: String,
}

/// Creates the tables, or says that they are there.
///
/// # Errors
/// The role may not, there is no such schema, or a table of the name that is no jobs table.
pub async fn run(arguments: CreateTable) -> anyhow::Result<()> {
    let database = ConnectionString::from_operator(&arguments.uri).context("--uri")?;
    let session = Session::open(&database.named("create-table")).await?;
    let created = create(&session, &arguments.schema, &arguments.table).await?;
    let tables = [
        (&created.jobs, created.had_jobs),
        (&created.failures, created.had_failures),
    ];
    for (table, was_there) in tables {
        output::line(match was_there {
            false => format!("created the table {table}"),
            true => format!("the table {table} exists already; nothing was changed"),
        })?;
    }
    if let Some(addition) = &created.addition {
        output::line(format_args!(
            "{} lacks columns that this version knows; to add them, run as its owner: {addition} Then give the daemon's role \
             its rights again (lantern-cli sql role), and restart the daemon",
            created.jobs
        ))?;
    }
    if !created.had_jobs {
        output::line(
            "lantern-cli sql role prints a script for a role of the daemon with few rights",
        )?;
    }
    Ok(())
}
