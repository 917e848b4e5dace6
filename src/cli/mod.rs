//! The command line: one file a subcommand, which reads arguments and prints. How anything works is in the other rooms.

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

/// Parses the arguments, runs the subcommand and says on standard error what went wrong.
pub fn main() -> ExitCode {
    process_list::hide_password();
    let cli = Cli::parse();
    // One thread does for all jobs what is not inference. Two would wake each other for every few rows, which costs the processor
    // a quarter more with many jobs, and write no faster.
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
