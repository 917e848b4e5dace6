//! The command line: one file per subcommand, which reads arguments and prints results. How things work is in the other
//! modules of the crate.

mod allow_host;
mod data_path;
mod embed;
mod engine_arguments;
mod job;
mod logging;
mod process_list;
mod resync;
mod retry_failed;
mod search;
mod show_models;
mod start_daemon;
mod table;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps vector embeddings in PostgreSQL up to date by logical replication: no triggers, no queue, no extension.
#[derive(Parser)]
#[command(name = "lantern-cli", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    StartDaemon(start_daemon::StartDaemon),
    ShowModels(show_models::ShowModels),
    Embed(embed::Embed),
    Search(search::Search),
    Verify(verify::Verify),
    Resync(resync::Resync),
    RetryFailed(retry_failed::RetryFailed),
}

/// Parses the arguments and runs the subcommand. Errors are printed on standard error.
pub fn main() -> ExitCode {
    process_list::hide_password();
    let cli = Cli::parse();
    // One thread runs everything except inference, for all jobs. Two would wake each other every few rows. With many
    // jobs that takes a quarter more processor time, and rows are not written any faster.
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result: anyhow::Result<ExitCode> = runtime.block_on(async {
        match cli.command {
            Command::StartDaemon(arguments) => start_daemon::run(arguments).await?,
            Command::ShowModels(arguments) => show_models::run(&arguments),
            Command::Embed(arguments) => embed::run(arguments).await?,
            Command::Search(arguments) => search::run(arguments).await?,
            Command::Verify(arguments) => return verify::run(arguments).await,
            Command::Resync(arguments) => resync::run(arguments).await?,
            Command::RetryFailed(arguments) => retry_failed::run(arguments).await?,
        }
        Ok(ExitCode::SUCCESS)
    });
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_fit_together() {
        super::Cli::command().debug_assert();
    }
}
