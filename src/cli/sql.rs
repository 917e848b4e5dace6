//! `lantern-cli sql`: prints the scripts of the folder `sql/`, which an installed program does not have beside it.

use clap::{Args, ValueEnum};

use super::output;
use crate::jobs::creation;

const DROP_PGAI: &str = include_str!("../../sql/drop_pgai.sql");
const MIGRATE_FROM_PGAI: &str = include_str!("../../sql/migrate_from_pgai.sql");
const MONITORING: &str = include_str!("../../sql/monitoring.sql");
const PREPARE_PUBLICATION: &str = include_str!("../../sql/prepare_publication.sql");
const ROLE: &str = include_str!("../../sql/role.sql");
const SEARCHERS: &str = include_str!("../../sql/searchers.sql");
const TEARDOWN: &str = include_str!("../../sql/teardown.sql");
const WAIT_FOR_EMBEDDINGS: &str = include_str!("../../sql/wait_for_embeddings.sql");

/// Print an SQL script: the jobs table, roles with few rights, views for dashboards, removal of everything
///
/// Without a name, lists the scripts. Pipe a script into psql, for example: lantern-cli sql jobs | psql mydb
#[derive(Args)]
pub struct Sql {
    /// The script
    #[arg(value_enum)]
    name: Option<Script>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Script {
    /// Creates the jobs table, with all columns that the daemon knows
    Jobs,
    /// Creates a role for the daemon, with no more rights than it needs
    Role,
    /// Creates a view of the jobs table without connection strings, for roles that search
    Searchers,
    /// Prepares a table for a role that does not own it
    #[value(name = "prepare_publication", aliases = ["prepare-publication", "prepare"])]
    PreparePublication,
    /// Creates views of the state of jobs and slots, for dashboards
    Monitoring,
    /// Creates a function by which applications wait for the vectors of what they have written
    #[value(name = "wait_for_embeddings", aliases = ["wait-for-embeddings", "wait"])]
    WaitForEmbeddings,
    /// Moves a vectorizer of pgai to a job, with its chunks and vectors
    #[value(name = "migrate_from_pgai", alias = "migrate-from-pgai")]
    MigrateFromPgai,
    /// Removes a vectorizer of pgai that has been moved
    #[value(name = "drop_pgai", alias = "drop-pgai")]
    DropPgai,
    /// Removes all slots and publications of lantern-cli from a target database
    Teardown,
}

impl Script {
    fn text(self) -> &'static str {
        match self {
            Script::Jobs => creation::SCRIPT,
            Script::Role => ROLE,
            Script::Searchers => SEARCHERS,
            Script::PreparePublication => PREPARE_PUBLICATION,
            Script::Monitoring => MONITORING,
            Script::WaitForEmbeddings => WAIT_FOR_EMBEDDINGS,
            Script::MigrateFromPgai => MIGRATE_FROM_PGAI,
            Script::DropPgai => DROP_PGAI,
            Script::Teardown => TEARDOWN,
        }
    }
}

/// Prints the script, or the list of them.
///
/// # Errors
/// If it cannot be written.
pub fn run(arguments: &Sql) -> anyhow::Result<()> {
    if let Some(script) = arguments.name {
        return Ok(output::data(script.text())?);
    }
    for script in Script::value_variants() {
        let value = script.to_possible_value();
        let (name, help) = value
            .iter()
            .map(|value| (value.get_name(), value.get_help()))
            .next()
            .unwrap_or_default();
        let help = help.map(ToString::to_string).unwrap_or_default();
        output::line(format_args!("{name:<20} {help}"))?;
    }
    Ok(())
}
