//! Log lines: on standard error, one an event.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

#[derive(Args, Clone)]
pub struct Logging {
    /// What is logged: error, warn, info, debug or trace; also filters such as `info,lantern::pipeline=debug`
    #[arg(
        long,
        env = "LANTERN_LOG",
        default_value = "info",
        value_name = "LEVEL"
    )]
    log_level: String,

    /// How it is logged
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    log_format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for people
    Text,
    /// A JSON object a line
    Json,
}

/// Sets the process's logger up.
///
/// # Errors
/// When the level cannot be understood.
pub fn start(arguments: &Logging) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&arguments.log_level)
        .map_err(|error| {
            anyhow::anyhow!(
                "--log-level {:?} is not a level (error, warn, info, debug, trace): {error}",
                arguments.log_level
            )
        })?;
    // The driver logs statements with their parameters below info, and other libraries are of no use to an operator.
    let filter = [
        "tokio_postgres=warn",
        "rustls=warn",
        "ort=warn",
        "tokenizers=warn",
        "mio=warn",
    ]
    .into_iter()
    .filter_map(|directive| directive.parse().ok())
    .fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match arguments.log_format {
        Format::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .init(),
    }
    Ok(())
}
