//! `--print-config`: what is in force, as a file that sets the same, with where each value is from.

use std::ffi::OsStr;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command};
use toml::Value;
use unicode_width::UnicodeWidthStr;

use super::Origins;
use super::keys::{self, Kind};
use crate::cli::data_path;
use crate::postgres::connection_string::rewritten;
use crate::shown::shown;

/// The option.
pub const PRINT_CONFIG: &str = "print_config";

/// Where the configuration of a command can be seen.
#[derive(Args)]
pub struct PrintConfigArgument {
    /// Print all options that are in force as a configuration file, with where each is from, and end. Passwords are left
    /// out
    #[arg(long)]
    print_config: bool,
}

/// Where the comments begin, if the values leave the room.
const COMMENT_COLUMN: usize = 40;

/// What is in force for a command.
pub fn print(command: &Command, matches: &ArgMatches, origins: &Origins) -> String {
    let name = command.get_name();
    let mut lines = vec![format!(
        "# What is in force for lantern-cli {name}, and where it is from. Passwords are left out."
    )];
    lines.push(match origins.file() {
        Some(path) => shown(&format!("# The file is {}.", path.display())),
        None => "# No file was read.".to_owned(),
    });
    lines.push(String::new());
    lines.extend(keys::of_command(command).map(|option| line(option, matches, origins)));
    if std::env::var_os("LANTERN_LISTEN_TOKEN").is_some() {
        lines.push(
            "# The token of --listen is that of the environment LANTERN_LISTEN_TOKEN.".to_owned(),
        );
    }
    lines.iter().map(|line| line.clone() + "\n").collect()
}

fn line(option: &Arg, matches: &ArgMatches, origins: &Origins) -> String {
    let long = option.get_long().unwrap_or_default();
    let key = keys::name(long);
    let source = source(option, matches, origins);
    let (setting, remark) = match setting(option, matches) {
        Set::To(value) => (format!("{key} = {value}"), ""),
        Set::WithPassword(value) => (format!("{key} = {value}"), ", without its password"),
        Set::Hidden => (format!("# {key}"), ", not shown: it may have a password"),
        Set::No => match default_in_words(option) {
            Some(default) => (format!("# {key}: {default}"), ""),
            None => return format!("# {key} is not set"),
        },
    };
    let room = COMMENT_COLUMN.saturating_sub(setting.width());
    format!("{setting}{:room$}  # {source}{remark}", "")
}

/// What is known of a value.
enum Set {
    To(Value),
    WithPassword(Value),
    Hidden,
    No,
}

fn setting(option: &Arg, matches: &ArgMatches) -> Set {
    let id = option.get_id().as_str();
    let kind = keys::kind(option);
    if kind == Kind::Switch {
        return Set::To(matches.get_flag(id).into());
    }
    let Some(given) = matches.get_raw(id) else {
        return match (id, data_path::default()) {
            ("data_path", Ok(path)) => Set::To(text(path.as_os_str())),
            _ => Set::No,
        };
    };
    let mut values: Vec<Value> = given.map(text).collect();
    match (kind, values.as_mut_slice()) {
        (Kind::List, _) => Set::To(values.into()),
        (_, []) => Set::No,
        (_, [Value::String(value), ..]) if option.is_hide_env_values_set() => {
            match rewritten::omitting_password(value) {
                None => Set::Hidden,
                Some(shown) if shown == *value => Set::To(shown.into()),
                Some(shown) => Set::WithPassword(shown.into()),
            }
        }
        (Kind::Number, [value, ..]) => Set::To(number(value)),
        (_, [value, ..]) => Set::To(std::mem::replace(value, false.into())),
    }
}

fn text(value: &OsStr) -> Value {
    value.to_string_lossy().into_owned().into()
}

/// A whole number where it is one.
fn number(value: &Value) -> Value {
    let parsed = value.as_str().and_then(|text| text.parse::<i64>().ok());
    parsed.map_or_else(|| value.clone(), Value::from)
}

fn source(option: &Arg, matches: &ArgMatches, origins: &Origins) -> String {
    let long = option.get_long().unwrap_or_default();
    if let Some(origin) = origins.of(long) {
        return origin.to_string();
    }
    match matches.value_source(option.get_id().as_str()) {
        Some(ValueSource::CommandLine) => "flag".to_owned(),
        Some(ValueSource::EnvVariable) => format!("environment {}", keys::variable(long)),
        _ => "default".to_owned(),
    }
}

/// What the help says of a default that is no value: `[default: all jobs]`.
pub fn default_in_words(option: &Arg) -> Option<String> {
    let help = option.get_help()?.to_string();
    let (_, default) = help.rsplit_once("[default: ")?;
    Some(default.strip_suffix(']')?.to_owned())
}
