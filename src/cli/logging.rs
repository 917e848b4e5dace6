//! The log: one line for each event, on standard error, so that standard output has results only.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// What libraries may log. The PostgreSQL driver logs statements with their parameters, which are texts of users, below
/// `info`; the others log details that are of no use to an operator.
const LIBRARY_LEVELS: [&str; 5] = [
    "tokio_postgres=warn",
    "rustls=warn",
    "ort=warn",
    "tokenizers=warn",
    "mio=warn",
];

/// What is logged, and how.
#[derive(Args, Clone)]
pub struct Logging {
    /// The lowest level that is logged: error, warn, info, debug or trace. Also takes filters by module, such as
    /// `info,lantern::pipeline=debug`
    #[arg(
        long,
        env = "LANTERN_LOG",
        default_value = "info",
        value_name = "LEVEL"
    )]
    log_level: String,

    /// The format of the log, on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// One line for people, colored on a terminal
    Text,
    /// One JSON object on a line, for log collectors
    Json,
}

/// Starts the logger of this process.
///
/// # Errors
///
/// If the level is not valid.
pub fn start(arguments: &Logging) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&arguments.log_level)
        .map_err(|error| {
            anyhow::anyhow!(
                "--log-level {:?} is not a level (error, warn, info, debug, trace) or a filter: {error}",
                arguments.log_level
            )
        })?;
    // Directives that are added later win over those that the user gave.
    let filter = LIBRARY_LEVELS
        .into_iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match arguments.log_format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .init(),
    }
    Ok(())
}
