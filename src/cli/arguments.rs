//! Reads the command line, and explains what is wrong with it.

use std::ffi::OsString;
use std::io::stdout;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};

use super::change_model::ChangeModel;
use super::check::Check;
use super::completions::Completions;
use super::configuration::print::PRINT_CONFIG;
use super::configuration::{self, ConfigurationError, Origins};
use super::create_table::CreateTable;
use super::embed::Embed;
use super::embed_table::EmbedTable;
use super::healthcheck::HealthCheck;
use super::jobs::Jobs;
use super::logging::has_colors;
use super::man::Man;
use super::pull::Pull;
use super::resync::Resync;
use super::retry_failed::RetryFailed;
use super::search::Search;
use super::serve::Serve;
use super::show_models::ShowModels;
use super::sql::Sql;
use super::start_daemon::StartDaemon;
use super::status::Status;
use super::verify::Verify;
use super::wait::Wait;
use super::{output, stderr};
use crate::shown::shown;

/// The place in the help behind all other options.
const LAST: usize = 1000;

/// The exit status for arguments that are wrong.
const USAGE: u8 = 2;

/// Keeps vector embeddings in PostgreSQL up to date by logical replication: no triggers, no queue, no extension.
#[derive(Parser)]
#[command(name = "lantern-cli", version, about, max_term_width = 100)]
struct Cli {
    /// A file in TOML with options: max_jobs = 100 for --max-jobs. Arguments and environment variables come before it; ''
    /// for no file [default: /etc/lantern/lantern.toml, if it is there]
    #[arg(
        long,
        global = true,
        env = "LANTERN_CONFIG",
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        display_order = LAST
    )]
    config: Option<OsString>,

    #[command(subcommand)]
    command: Command,
}

/// A subcommand with its arguments.
#[derive(Subcommand)]
pub enum Command {
    StartDaemon(StartDaemon),
    Serve(Box<Serve>),
    Status(Status),
    #[command(name = "healthcheck")]
    HealthCheck(HealthCheck),
    CreateTable(CreateTable),
    #[command(subcommand)]
    Jobs(Jobs),
    Check(Box<Check>),
    ChangeModel(Box<ChangeModel>),
    ShowModels(ShowModels),
    Pull(Pull),
    Embed(Embed),
    EmbedTable(Box<EmbedTable>),
    Search(Search),
    Verify(Verify),
    Resync(Resync),
    RetryFailed(RetryFailed),
    Wait(Wait),
    Sql(Sql),
    Completions(Completions),
    Man(Man),
}

/// The program with all of its options.
pub fn program() -> clap::Command {
    Cli::command()
}

/// Parses the arguments of the process, completed by its configuration.
///
/// # Errors
/// The exit status, after the help, the version, the configuration or what is wrong was printed.
pub fn parse() -> Result<Command, ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let completed = configuration::complete(&program(), arguments);
    let (arguments, origins) = completed.map_err(|error| refuse(&error))?;
    let origins = configuration::remember(origins);
    let explain = |error| explain(error, &arguments, origins);
    let matches = program().try_get_matches_from(&arguments);
    let matches = matches.map_err(explain)?;
    if let Some((name, matches)) = matches.subcommand()
        && let Ok(Some(true)) = matches.try_get_one(PRINT_CONFIG)
        && let Some(command) = program().find_subcommand(name)
    {
        return Err(print(&configuration::print::print(
            command, matches, origins,
        )));
    }
    let cli = Cli::from_arg_matches(&matches).map_err(explain)?;
    Ok(cli.command)
}

fn refuse(error: &ConfigurationError) -> ExitCode {
    for mistake in error.to_string().lines() {
        stderr::line(&format!("error: {mistake}"));
    }
    stderr::flush();
    ExitCode::from(USAGE)
}

/// Prints what `error` says. It may be the help that was asked for, which is a result.
fn explain(mut error: clap::Error, arguments: &[OsString], origins: &Origins) -> ExitCode {
    let texts = arguments
        .iter()
        .map(|text| text.to_string_lossy().into_owned());
    if let Some(mut command) = subcommand(texts) {
        if let Some(tip) = tip(&error, &command).or_else(|| origin(&error, origins)) {
            let tips = ContextValue::StyledStrs(vec![tip.into()]);
            error.insert(ContextKind::Suggested, tips);
        }
        if error.get(ContextKind::Usage).is_some() {
            let usage = ContextValue::StyledStr(command.render_usage());
            error.insert(ContextKind::Usage, usage);
        }
    }
    let text = error.render();
    if error.use_stderr() {
        let text = match has_colors(&std::io::stderr())
            && arguments
                .iter()
                .all(|text| is_plain(&text.to_string_lossy()))
        {
            true => text.ansi().to_string(),
            false => text
                .to_string()
                .lines()
                .map(|line| shown(line) + "\n")
                .collect(),
        };
        stderr::data(text.trim_end());
        stderr::flush();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
    }
    let text = match has_colors(&stdout()) {
        true => text.ansi().to_string(),
        false => text.to_string(),
    };
    print(&text)
}

fn print(text: &str) -> ExitCode {
    match output::data(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stderr::line(&format!("error: {error}"));
            stderr::flush();
            ExitCode::FAILURE
        }
    }
}

/// Whether a text may stand beside the colors of an error about it: an argument may come from a script that has it from
/// elsewhere.
fn is_plain(text: &str) -> bool {
    shown(text) == text
}

/// The subcommand among these arguments. Its usage is what an error shows: clap's own line has each option that has a value
/// as a required one, also where an environment variable set it.
fn subcommand(mut arguments: impl Iterator<Item = String>) -> Option<clap::Command> {
    let mut command = Cli::command();
    command.build();
    let name = arguments.find(|argument| command.find_subcommand(argument).is_some())?;
    let mut found = command.find_subcommand_mut(&name)?;
    // `jobs` has subcommands of its own.
    if let Some(name) = arguments.find(|argument| found.find_subcommand(argument).is_some()) {
        found = found.find_subcommand_mut(&name)?;
    }
    Some(found.clone())
}

/// Where the value is from that an error is about, if it is not an argument; or why one may be missing.
fn origin(error: &clap::Error, origins: &Origins) -> Option<String> {
    if error.kind() == ErrorKind::MissingRequiredArgument {
        return origins.hint();
    }
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let long = argument.strip_prefix("--")?.split([' ', '=']).next()?;
    Some(format!("the value is from {}", origins.of(long)?))
}

/// What to write in place of an argument that the subcommand does not take.
fn tip(error: &clap::Error, command: &clap::Command) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    if argument.starts_with('-') {
        return None;
    }
    let takes_job = command
        .get_arguments()
        .any(|known| known.get_long() == Some("job"));
    let text = command
        .get_positionals()
        .next()
        .map(|known| known.get_id().as_str());
    match (text, takes_job) {
        (Some("query"), _) => Some(
            "write a query of several words in quotes, and the job as an option: --job 1 'two words'".to_owned(),
        ),
        (None, true) => Some("write the job as an option: --job 1".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_lines_show_what_must_be_given() {
        let usage = |arguments: &str| {
            let arguments = arguments.split(' ').map(str::to_owned);
            subcommand(arguments).unwrap().render_usage().to_string()
        };
        assert_eq!(
            usage("lantern-cli search --job 1"),
            "Usage: lantern-cli search [OPTIONS] --uri <URI> --job <ID> <QUERY>"
        );
        assert_eq!(
            usage("lantern-cli start-daemon --nonsense"),
            "Usage: lantern-cli start-daemon [OPTIONS]"
        );
        assert_eq!(
            usage("lantern-cli jobs cancel --nonsense"),
            "Usage: lantern-cli jobs cancel [OPTIONS] --uri <URI> <ID>..."
        );
    }

    #[test]
    fn an_argument_in_a_wrong_place_is_answered_with_what_to_write() {
        let tip = |arguments: &str| {
            let arguments = arguments.split(' ').map(str::to_owned);
            let error = Cli::try_parse_from(arguments.clone()).err().unwrap();
            tip(&error, &subcommand(arguments).unwrap())
        };
        let uri = "--uri postgresql://h";
        for command in ["wait", "verify", "resync", "retry-failed", "check"] {
            let found = tip(&format!("lantern-cli {command} {uri} 1"));
            assert!(
                found.is_some_and(|tip| tip.contains("--job 1")),
                "{command}"
            );
        }
        for words in ["--job 1 two words", "1 words"] {
            let found = tip(&format!("lantern-cli search {uri} {words}"));
            assert!(
                found.is_some_and(|tip| tip.contains("'two words'")),
                "{words}"
            );
        }
        assert_eq!(tip(&format!("lantern-cli wait {uri} --nonsense")), None);
        assert_eq!(tip("lantern-cli create-table jobs"), None);
    }
}
