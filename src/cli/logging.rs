//! The log: one line for each event, on standard error, so that standard output has results only.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::env;
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::OnceLock;
use std::thread;

use clap::{Args, ValueEnum};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::configuration;
use super::log_format::LogLine;
use super::stderr::{self, StandardError};

/// Libraries that may log warnings at most. The PostgreSQL driver logs statements with their parameters, which are
/// texts of users, below `info`; the others log details that are of no use to an operator.
const LIBRARIES: [&str; 5] = ["tokio_postgres", "rustls", "ort", "tokenizers", "mio"];

/// The form of the lines of this process.
static FORM: OnceLock<LogLine> = OnceLock::new();

/// What is logged, and how.
#[derive(Args, Clone)]
pub struct Logging {
    /// The lowest level that is logged: error, warn, info, debug, trace, or off for nothing. Also takes other levels
    /// for single modules, such as `info,lantern::pipeline=debug`
    #[arg(
        long,
        env = "LANTERN_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    log_level: LogLevels,

    /// The format of the log, on standard error
    #[arg(
        long,
        env = "LANTERN_LOG_FORMAT",
        value_enum,
        default_value_t = LogFormat::Text,
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
}

/// A level for everything, and others for single modules.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LogLevels {
    level: LevelFilter,
    modules: Vec<(String, LevelFilter)>,
}

/// A word is no level, and does not name a module with one.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not a level; it must be one of error, warn, info, debug, trace, off, or lantern::MODULE= with one of them"
)]
struct NoLevel(String);

impl FromStr for LogLevels {
    type Err = NoLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut levels = LogLevels {
            level: LevelFilter::INFO,
            modules: Vec::new(),
        };
        for word in text.split(',').map(str::trim) {
            let unknown = || NoLevel(word.to_owned());
            match word.split_once('=') {
                None => levels.level = level(word).ok_or_else(unknown)?,
                Some((module, word)) => {
                    let level = level(word).ok_or_else(unknown)?;
                    if !is_module(module) {
                        return Err(unknown());
                    }
                    levels.modules.push((module.to_owned(), level));
                }
            }
        }
        Ok(levels)
    }
}

/// The level of this name, in any case.
fn level(word: &str) -> Option<LevelFilter> {
    Some(match word.to_ascii_lowercase().as_str() {
        "error" => LevelFilter::ERROR,
        "warn" | "warning" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        "off" => LevelFilter::OFF,
        _ => return None,
    })
}

/// Whether events may come from a module of this name. Any other would be a misspelt level or module, which would
/// switch off the log without a word.
fn is_module(name: &str) -> bool {
    let package = name.split("::").next().unwrap_or_default();
    package == "lantern" || package == "onnxruntime" || LIBRARIES.contains(&package)
}

impl Logging {
    /// Whether people read the log, so that a progress bar may stand below it.
    pub fn is_for_people(&self) -> bool {
        self.log_format == LogFormat::Text
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// One line for people, colored on a terminal unless NO_COLOR is set
    Text,
    /// One JSON object on a line, for log collectors
    Json,
}

/// Starts the log of the daemon. Panics go to it too.
pub fn start(arguments: &Logging) {
    let line = match arguments.log_format {
        LogFormat::Json => LogLine::Json,
        LogFormat::Text if has_colors(&io::stderr()) => LogLine::Colored,
        LogFormat::Text => LogLine::Plain,
    };
    install(&arguments.log_level, line);
    // The default hook writes to standard error itself, and would wait for its reader.
    std::panic::set_hook(Box::new(log_panic));
}

/// Has a command show what goes wrong beside its work, such as a password file that is not used.
pub fn start_for_command() {
    let warnings = LogLevels {
        level: LevelFilter::WARN,
        modules: Vec::new(),
    };
    install(&warnings, LogLine::Command);
}

/// Says why the process ends. Where the log has a form for collectors, this has it too.
pub fn report_end(reason: &str) {
    match FORM.get() {
        Some(LogLine::Json) if tracing::enabled!(tracing::Level::ERROR) => {
            tracing::error!("{reason}");
        }
        _ => stderr::line(&format!("error: {reason}")),
    }
}

/// Whether a stream takes colors: a terminal that has them, of a user who has not asked for none
/// (<https://no-color.org>).
pub fn has_colors(stream: &impl IsTerminal) -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    stream.is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

fn install(levels: &LogLevels, line: LogLine) {
    let line = *FORM.get_or_init(|| line);
    let layer = tracing_subscriber::fmt::layer()
        .fmt_fields(JsonFields::new())
        .event_format(line)
        .with_writer(StandardError)
        .log_internal_errors(false);
    // There is one call for a process, so no other subscriber can be in the way.
    let _ = tracing_subscriber::registry()
        .with(layer.with_filter(levels.filter()))
        .try_init();
    if let Some(warning) = configuration::warning() {
        tracing::warn!("{warning}");
    }
}

impl LogLevels {
    fn filter(&self) -> Targets {
        let bounded = |module: &str, level: LevelFilter| {
            let is_library = LIBRARIES.iter().any(|library| module.starts_with(library));
            match is_library {
                true => level.min(LevelFilter::WARN),
                false => level,
            }
        };
        let libraries = LIBRARIES.map(|library| (library, bounded(library, self.level)));
        let modules = self.modules.iter();
        let modules = modules.map(|(module, level)| (module.as_str(), bounded(module, *level)));
        Targets::new()
            .with_default(self.level)
            .with_targets(libraries)
            .with_targets(modules)
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("?").to_owned();
    let place = panic.location().map(ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(
        "the thread {name} panicked at {}: {message}",
        place.unwrap_or_default()
    );
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        // Each of its lines for itself: it is longer than a line of the log may be.
        for line in backtrace.to_string().lines() {
            tracing::error!("backtrace: {line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for (text, expected) in [
            ("info", LevelFilter::INFO),
            ("WARN", LevelFilter::WARN),
            ("Warning", LevelFilter::WARN),
            ("off", LevelFilter::OFF),
            ("trace,lantern::pipeline=debug", LevelFilter::TRACE),
            ("lantern=debug", LevelFilter::INFO),
        ] {
            assert_eq!(text.parse::<LogLevels>().unwrap().level, expected, "{text}");
        }
        for text in [
            "",
            "verbose",
            "lantern",
            "0",
            "info,",
            "lantern=loud",
            "lantren=debug",
            "=info",
        ] {
            let error = text.parse::<LogLevels>().unwrap_err().to_string();
            assert!(
                error.contains("error, warn, info, debug, trace, off"),
                "{error}"
            );
        }
    }

    #[test]
    fn libraries_log_warnings_at_most() {
        let filter = |text: &str| text.parse::<LogLevels>().unwrap().filter();
        let all = filter("trace,tokio_postgres::query=trace,rustls=trace,lantern::jobs=error");
        let enabled = |target| {
            let levels = [
                Level::TRACE,
                Level::DEBUG,
                Level::INFO,
                Level::WARN,
                Level::ERROR,
            ];
            levels
                .into_iter()
                .find(|level| all.would_enable(target, level))
        };
        assert_eq!(enabled("tokio_postgres::query"), Some(Level::WARN));
        assert_eq!(enabled("rustls::client"), Some(Level::WARN));
        assert_eq!(enabled("lantern::jobs::store"), Some(Level::ERROR));
        assert_eq!(enabled("lantern::pipeline"), Some(Level::TRACE));
        assert!(!filter("error").would_enable("rustls", &Level::WARN));
    }
}
