//! Which options can be set by environment variable and in the file, and what they are called there.
//!
//! All of it is read from clap: an option `--max-jobs` with the variable `LANTERN_MAX_JOBS` has the key `max_jobs`. A
//! test holds the three names together.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use clap::{Arg, ArgAction, Command};

/// The option that names the file.
pub const CONFIG: &str = "config";

/// What the value of a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// true or false.
    Switch,
    /// A number, which the option takes without a unit.
    Number,
    /// Text: names, paths, sizes, times.
    Text,
    /// One text or several.
    List,
}

/// An option that can be set in the file.
#[derive(Debug, Clone)]
pub struct Key {
    /// What its value is.
    pub kind: Kind,
    /// A value that it takes, for error messages.
    pub example: Option<String>,
    /// Whether the value may hold a password: it is a connection string.
    pub is_secret: bool,
}

/// All keys of a program, by their names.
pub type Keys = BTreeMap<String, Key>;

/// The keys of a command and of all commands below it.
pub fn of_program(command: &Command) -> Keys {
    let mut keys: Keys = of_command(command).map(key).collect();
    for below in command.get_subcommands() {
        keys.extend(of_program(below));
    }
    keys
}

/// The options of one command that have a key, in the order of its help.
pub fn of_command(command: &Command) -> impl Iterator<Item = &Arg> {
    let arguments = command.get_arguments();
    arguments.filter(|option| option.get_env().is_some() && option.get_id() != CONFIG)
}

/// The name of the key of an option: `max_jobs` for `--max-jobs`.
pub fn name(long: &str) -> String {
    long.replace('-', "_")
}

/// The name of the environment variable of an option: `LANTERN_MAX_JOBS` for `--max-jobs`.
pub fn variable(long: &str) -> String {
    format!("LANTERN_{}", name(long).to_uppercase())
}

/// What the value of an option is.
pub fn kind(option: &Arg) -> Kind {
    let numbers = [
        TypeId::of::<u8>(),
        TypeId::of::<usize>(),
        TypeId::of::<NonZeroUsize>(),
    ];
    let value = option.get_value_parser().type_id();
    match option.get_action() {
        ArgAction::SetTrue => Kind::Switch,
        ArgAction::Append => Kind::List,
        _ if numbers.iter().any(|number| value == *number) => Kind::Number,
        _ => Kind::Text,
    }
}

fn key(option: &Arg) -> (String, Key) {
    let long = option.get_long().unwrap_or(option.get_id().as_str());
    let values = option.get_possible_values();
    let mut examples = values.iter().map(|value| value.get_name().to_owned());
    let defaults = option.get_default_values();
    let default = defaults.first().and_then(|default| default.to_str());
    let key = Key {
        kind: kind(option),
        example: examples.next().or(default.map(str::to_owned)),
        is_secret: option.is_hide_env_values_set(),
    };
    (name(long), key)
}
