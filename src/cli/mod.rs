//! The command line: one file per subcommand, which reads arguments and prints results. How things work is in the other
//! modules of the crate.

mod arguments;
mod catch_up;
mod change_model;
mod check;
mod completions;
mod configuration;
mod create_table;
mod daemon_progress;
mod data_path;
mod embed;
mod embed_table;
mod engine_arguments;
mod found_passages;
mod healthcheck;
mod input;
mod job;
mod job_access;
mod job_state;
mod jobs;
mod jobs_table;
mod json;
mod json_flag;
mod listen_arguments;
mod log_format;
mod logging;
mod man;
mod new_job;
mod output;
mod points;
mod process_list;
mod progress;
mod pull;
mod refuse_superuser;
mod remedy_lines;
mod replaced_job;
mod resync;
mod retry_failed;
mod search;
mod serve;
mod service_manager;
mod show_models;
mod sql;
mod start_daemon;
mod status;
mod status_details;
mod status_figures;
mod status_table;
mod stderr;
mod stop_signals;
mod style;
mod table;
mod verify;
mod verify_report;
mod wait;
mod wrapped;

use std::process::ExitCode;

use anyhow::Context;

use arguments::{Command, program};

/// Parses the arguments and runs the subcommand. Errors are printed on standard error.
pub fn main() -> ExitCode {
    process_list::hide_password();
    let command = match arguments::parse() {
        Ok(command) => command,
        Err(status) => return status,
    };
    let status = match run(command) {
        Ok(status) => status,
        Err(error) => {
            logging::report_end(&configuration::with_origin(sentence(&error)));
            ExitCode::FAILURE
        }
    };
    stderr::flush();
    status
}

/// An error with its causes, each of which is said once: many errors of libraries contain the text of their cause.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !sentence.contains(&cause) {
            sentence.push_str(&format!(": {cause}"));
        }
    }
    sentence
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    crate::failpoint::read_environment();
    // One thread runs everything except inference, for all jobs. Two would wake each other every few rows. With many
    // jobs that takes a quarter more processor time, and rows are not written any faster.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start")?;
    if !matches!(command, Command::StartDaemon(_) | Command::Serve(_)) {
        logging::start_for_command();
    }
    let status = runtime.block_on(async {
        match command {
            Command::StartDaemon(arguments) => return start_daemon::run(arguments).await,
            Command::Serve(arguments) => serve::run(*arguments).await?,
            Command::CreateTable(arguments) => create_table::run(arguments).await?,
            Command::Jobs(arguments) => return jobs::run(arguments).await,
            Command::ChangeModel(arguments) => return change_model::run(*arguments).await,
            Command::Check(arguments) => return Box::pin(check::run(*arguments)).await,
            Command::ShowModels(arguments) => show_models::run(&arguments).await?,
            Command::Pull(arguments) => pull::run(&arguments).await?,
            Command::Embed(arguments) => embed::run(arguments).await?,
            Command::EmbedTable(arguments) => return embed_table::run(*arguments).await,
            Command::Status(arguments) => status::run(arguments).await?,
            Command::HealthCheck(arguments) => return healthcheck::run(arguments).await,
            Command::Search(arguments) => search::run(arguments).await?,
            Command::Verify(arguments) => return verify::run(arguments).await,
            Command::Resync(arguments) => Box::pin(resync::run(arguments)).await?,
            Command::RetryFailed(arguments) => Box::pin(retry_failed::run(arguments)).await?,
            Command::Wait(arguments) => return Box::pin(wait::run(arguments)).await,
            Command::Sql(arguments) => sql::run(&arguments)?,
            Command::Completions(arguments) => completions::run(&arguments, program())?,
            Command::Man(arguments) => man::run(&arguments, program())?,
        }
        Ok(ExitCode::SUCCESS)
    });
    runtime.shutdown_background();
    status
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use anyhow::Context;

    #[test]
    fn a_cause_is_said_once() {
        let failed = || Err::<(), _>(Error::from(ErrorKind::StorageFull));
        let error = failed().context("writing").unwrap_err();
        assert_eq!(super::sentence(&error), "writing: no storage space");
        let error = super::output::OutputError::from(Error::from(ErrorKind::StorageFull));
        let sentence = super::sentence(&error.into());
        assert_eq!(
            sentence,
            "cannot write to standard output: no storage space"
        );
    }
}
