//! Where the value of an option is from: the command line, else the environment, else the configuration file, else the
//! default.
//!
//! ```text
//! arguments, environment ──▶ which options are given, which file ──▶ file ──▶ keys ──▶ arguments, with those of the file
//!                                                                                             │
//!                                                                        clap: checks, errors ▼
//! ```
//!
//! What the file sets becomes an argument, unless the option is given already. So clap checks all three in the same way.

#[cfg(test)]
mod document;
mod file;
pub mod keys;
pub mod print;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use self::file::{File, FileError, Setting};
use self::keys::{CONFIG, Kind};

/// The file that is read if none is named.
pub const DEFAULT_FILE: &str = "/etc/lantern/lantern.toml";

/// The option of the level of the log had this variable once.
const FORMER_VARIABLES: [(&str, &str); 1] = [("LANTERN_LOG", "log-level")];

/// Commands that run for a long time, and may not run with half of their options.
const SERVICES: [&str; 2] = ["start-daemon", "serve"];

/// What was set outside of the command line, by the long names of the options.
static IN_FORCE: OnceLock<Origins> = OnceLock::new();

/// Where the values are from that were added to the arguments.
#[derive(Debug, Default)]
pub struct Origins {
    added: BTreeMap<String, Origin>,
    /// The file that was read.
    file: Option<PathBuf>,
    warning: Option<String>,
    /// The default file is there, and this user may not read it.
    is_unreadable: bool,
}

/// Where a value is from that is neither an argument nor clap's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A variable that has another name now.
    Variable(&'static str),
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// The number of the line.
        line: usize,
    },
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Variable(name) => write!(f, "environment {name}"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file is named.
    #[error("{0}")]
    Named(#[source] FileError),
    /// The file is the default one.
    #[error("{0}; --config FILE names another one, and --config '' none")]
    Default(#[source] FileError),
}

impl Origins {
    /// Where the value of this option is from, if it was added.
    pub fn of(&self, long: &str) -> Option<&Origin> {
        self.added.get(long)
    }

    /// The file that was read, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Which file may have to do with an option that is missing: it was not read, or sets one that requires another.
    pub fn hint(&self) -> Option<String> {
        match &self.file {
            Some(path) => Some(format!("further options are set in {}", path.display())),
            None => self
                .is_unreadable
                .then(|| format!("{DEFAULT_FILE} was not used, because this user may not read it")),
        }
    }
}

/// Remembers where the values of this process are from, for its errors and warnings.
pub fn remember(origins: Origins) -> &'static Origins {
    IN_FORCE.get_or_init(|| origins)
}

/// What to warn of, once there is a log.
pub fn warning() -> Option<&'static str> {
    IN_FORCE.get()?.warning.as_deref()
}

/// Names the line of the file in an error that begins with the name of an option.
pub fn with_origin(error: String) -> String {
    let long = error.strip_prefix("--").map(|rest| {
        let end = rest.find([':', ' ']).unwrap_or(rest.len());
        &rest[..end]
    });
    let origin = long.and_then(|long| IN_FORCE.get()?.of(long));
    match origin {
        Some(origin) => format!("{error} ({origin})"),
        None => error,
    }
}

/// The arguments with what the file and former variables set, and where that is from. Arguments that are wrong, or ask for
/// help, come back as they are: clap says what is wrong.
///
/// # Errors
/// The file cannot be used.
pub fn complete(
    command: &Command,
    arguments: Vec<OsString>,
) -> Result<(Vec<OsString>, Origins), ConfigurationError> {
    let mut command = command.clone().ignore_errors(true);
    let Ok(matches) = command.try_get_matches_from_mut(&arguments) else {
        return Ok((arguments, Origins::default()));
    };
    let Some(called) = Called::find(&command, &matches, &arguments) else {
        return Ok((arguments, Origins::default()));
    };
    let (added, origins) = called.additions(&command)?;
    let (before, behind) = arguments.split_at(called.end_of_name);
    Ok(([before, &added, behind].concat(), origins))
}

/// The subcommand that was called.
struct Called<'a> {
    command: &'a Command,
    matches: &'a ArgMatches,
    /// The place in the arguments behind its name.
    end_of_name: usize,
}

impl<'a> Called<'a> {
    fn find(command: &'a Command, matches: &'a ArgMatches, arguments: &[OsString]) -> Option<Self> {
        let mut called = Called {
            command,
            matches,
            end_of_name: 1,
        };
        while let Some((name, matches)) = called.matches.subcommand() {
            let place = position(&arguments[called.end_of_name..], name)?;
            called = Called {
                command: called.command.find_subcommand(name)?,
                matches,
                end_of_name: called.end_of_name + place + 1,
            };
        }
        // Neither the program itself nor `jobs` does anything, and `sql` has no options.
        let has_keys = keys::of_command(called.command).next().is_some();
        has_keys.then_some(called)
    }

    /// The arguments for what is set elsewhere and not given.
    fn additions(&self, program: &Command) -> Result<(Vec<OsString>, Origins), ConfigurationError> {
        let (file, is_unreadable) = match self.file(program)? {
            Found::File(file) => (Some(file), false),
            Found::None => (None, false),
            Found::Unreadable => (None, true),
        };
        let warning = file.as_ref().filter(|file| file.exposes_password).map(|file| {
            let path = file.path.display();
            format!("every user of this machine can read the password in {path}; run: chmod o= {path}")
        });
        let (mut arguments, mut added) = (Vec::new(), BTreeMap::new());
        for option in keys::of_command(self.command) {
            let Some(long) = option.get_long() else {
                continue;
            };
            let source = self.matches.value_source(option.get_id().as_str());
            let is_set = option
                .get_env()
                .is_some_and(|name| env::var_os(name).is_some());
            if is_set || source == Some(ValueSource::CommandLine) {
                continue;
            }
            if let Some((name, value)) = former_variable(long) {
                arguments.push(argument(long, &value));
                added.insert(long.to_owned(), Origin::Variable(name));
            } else if let Some((file, setting)) = set_in(file.as_ref(), long) {
                arguments.extend(arguments_for(long, keys::kind(option), setting));
                let (path, line) = (file.path.clone(), setting.line);
                added.insert(long.to_owned(), Origin::File { path, line });
            }
        }
        let origins = Origins {
            added,
            file: file.map(|file| file.path),
            warning,
            is_unreadable,
        };
        Ok((arguments, origins))
    }

    fn file(&self, program: &Command) -> Result<Found, ConfigurationError> {
        let keys = keys::of_program(program);
        if let Some(named) = self.matches.get_one::<OsString>(CONFIG) {
            return match named.is_empty() {
                true => Ok(Found::None),
                false => file::read(Path::new(named), &keys)
                    .map(Found::File)
                    .map_err(ConfigurationError::Named),
            };
        }
        let path = Path::new(DEFAULT_FILE);
        if matches!(path.try_exists(), Ok(false)) {
            return Ok(Found::None);
        }
        match file::read(path, &keys) {
            // It is for the daemon's user, and may have a password. Commands of others do without.
            Err(FileError::Unreadable { .. }) if !self.is_service() => Ok(Found::Unreadable),
            read => read.map(Found::File).map_err(ConfigurationError::Default),
        }
    }

    fn is_service(&self) -> bool {
        SERVICES.contains(&self.command.get_name())
    }
}

/// What was found where the file should be.
enum Found {
    File(File),
    None,
    Unreadable,
}

/// Where the name of a subcommand is: options of the commands above it may come first.
fn position(arguments: &[OsString], name: &str) -> Option<usize> {
    let mut place = 0;
    loop {
        let argument = arguments.get(place)?;
        match argument.to_str() {
            Some(text) if text == name => return Some(place),
            Some("--config") => place += 2,
            _ => place += 1,
        }
    }
}

fn set_in<'a>(file: Option<&'a File>, long: &str) -> Option<(&'a File, &'a Setting)> {
    let file = file?;
    Some((file, file.settings.get(&keys::name(long))?))
}

fn former_variable(long: &str) -> Option<(&'static str, OsString)> {
    let names = FORMER_VARIABLES.iter();
    let mut names = names.filter(|(_, of)| *of == long);
    names.find_map(|(name, _)| Some((*name, env::var_os(name)?)))
}

fn arguments_for(long: &str, kind: Kind, setting: &Setting) -> Vec<OsString> {
    let values = setting.values.iter();
    match kind {
        Kind::Switch => values
            .filter(|value| *value == "true")
            .map(|_| format!("--{long}").into())
            .collect(),
        _ => values.map(|value| argument(long, value.as_ref())).collect(),
    }
}

fn argument(long: &str, value: &OsStr) -> OsString {
    let mut argument = OsString::from(format!("--{long}="));
    argument.push(value);
    argument
}
