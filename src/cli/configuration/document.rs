//! What the documents say of each option, from clap: the table in `docs/configuration.md`, and `packaging/lantern.toml`.
//!
//! A test holds both to clap. After a change of an option, this writes them again:
//! `UPDATE_DOCUMENTS=1 cargo test --lib cli::configuration::document`

use std::path::Path;
use std::{env, fs};

use clap::{Arg, Command};

use super::keys::{self, Kind};
use super::print::default_in_words;
use super::{SERVICES, keys::Keys};
use crate::cli::arguments::program;

const BEGIN: &str = "<!-- options -->\n";
const END: &str = "<!-- end of options -->\n";
/// Columns of the comments in the file.
const WIDTH: usize = 98;

/// An option with a key.
struct Documented {
    long: String,
    /// The commands that have it. The services come first.
    of: Vec<(String, Arg)>,
}

impl Documented {
    fn option(&self) -> &Arg {
        &self.of[0].1
    }

    fn key(&self) -> String {
        keys::name(&self.long)
    }

    /// The commands, as the table has them.
    fn commands(&self) -> String {
        let services = self.of.iter().map(|(name, _)| name.as_str());
        let mut names: Vec<&str> = services.filter(|name| SERVICES.contains(name)).collect();
        if names.len() < self.of.len() {
            names.push("others");
        }
        names.join(", ")
    }

    /// What the help says, without the default.
    fn help(&self) -> String {
        let help = self
            .option()
            .get_help()
            .expect("each option is documented")
            .to_string();
        let help = help.split(" [default: ").next().unwrap_or_default();
        let values = self.option().get_possible_values();
        let values: Vec<String> = values
            .iter()
            .map(|value| format!("{:?}", value.get_name()))
            .collect();
        match keys::kind(self.option()) {
            Kind::Text if !values.is_empty() => format!("{help}: {}", values.join(" or ")),
            _ => help.to_owned(),
        }
    }

    fn default(&self) -> String {
        let mut services = self
            .of
            .iter()
            .filter(|(name, _)| SERVICES.contains(&name.as_str()));
        let first = services.next().unwrap_or(&self.of[0]);
        let mut text = default(&first.1);
        for (name, option) in services {
            if default(option) != text {
                text.push_str(&format!("; {name}: {}", default(option)));
            }
        }
        text
    }

    /// The line of the file, without the `#`.
    fn setting(&self) -> String {
        let option = self.option();
        let default = option.get_default_values().first();
        let default = default.and_then(|value| value.to_str());
        let name = option.get_value_names().and_then(|names| names.first());
        let name = match option.is_hide_env_values_set() {
            true => Some("postgresql://lantern@localhost:5432/app"),
            false => name.map(|name| name.as_str()),
        };
        let text = default.or(name).unwrap_or_default();
        let value = match keys::kind(option) {
            Kind::Switch => "false".to_owned(),
            Kind::Number => default.unwrap_or("1").to_owned(),
            Kind::Text => format!("{text:?}"),
            Kind::List => format!("[{text:?}]"),
        };
        format!("{} = {value}", self.key())
    }
}

fn default(option: &Arg) -> String {
    let values = option.get_default_values().first();
    match (values.and_then(|value| value.to_str()), keys::kind(option)) {
        (_, Kind::Switch) => "`false`".to_owned(),
        (Some(value), _) => format!("`{value}`"),
        (None, _) => default_in_words(option).unwrap_or_default(),
    }
}

/// All options with a key, those of the services first.
fn documented() -> Vec<Documented> {
    let program = program();
    let mut found: Vec<Documented> = Vec::new();
    let services = SERVICES.map(|name| program.find_subcommand(name).expect("a service").clone());
    let others = all_commands(&program).into_iter();
    let others = others.filter(|command| !SERVICES.contains(&command.get_name()));
    for command in services.into_iter().chain(others) {
        for option in keys::of_command(&command) {
            let long = option.get_long().expect("it has a long name");
            let of = (command.get_name().to_owned(), option.clone());
            match found.iter_mut().find(|documented| documented.long == long) {
                Some(documented) => documented.of.push(of),
                None => found.push(Documented {
                    long: long.to_owned(),
                    of: vec![of],
                }),
            }
        }
    }
    found
}

fn all_commands(command: &Command) -> Vec<Command> {
    let below = command.get_subcommands().flat_map(all_commands);
    below.chain([command.clone()]).collect()
}

/// The table of the document.
fn table() -> String {
    let mut table = "| option | environment | file | default | of | what it does |\n".to_owned();
    table.push_str("| --- | --- | --- | --- | --- | --- |\n");
    for option in documented() {
        table.push_str(&format!(
            "| `--{}` | `{}` | `{}` | {} | {} | {} |\n",
            option.long,
            keys::variable(&option.long),
            option.key(),
            option.default(),
            option.commands(),
            option.help().replace('|', "\\|")
        ));
    }
    table
}

/// The file.
fn file() -> String {
    let mut file = "\
# Options of lantern-cli. Each line that begins with # and a key shows the default, or what a value
# looks like; remove the # to set it. Arguments and environment variables come before this file.
# `lantern-cli start-daemon --print-config` shows what is in force, and where it is from.
"
    .to_owned();
    for option in documented() {
        let default = default(option.option());
        let in_words = option.option().get_default_values().is_empty() && !default.is_empty();
        let default = match in_words && !default.starts_with('`') {
            true => format!(" [default: {default}]"),
            false => String::new(),
        };
        let text = format!("{}{default} ({})", option.help(), option.commands());
        let lines = crate::cli::remedy_lines::wrap(&text, WIDTH);
        file.push('\n');
        for line in lines {
            file.push_str(&format!("# {line}\n"));
        }
        file.push_str(&format!("#{}\n", option.setting()));
    }
    file
}

fn hold(path: &str, expected: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let found = fs::read_to_string(&path).unwrap_or_default();
    let expected = expected(&found);
    if env::var_os("UPDATE_DOCUMENTS").is_some() {
        return fs::write(&path, expected).unwrap();
    }
    let differs = found
        .lines()
        .zip(expected.lines())
        .find(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "{} is not what clap says: {differs:?}; UPDATE_DOCUMENTS=1 cargo test --lib cli::configuration::document",
        path.display()
    );
}

#[test]
fn the_table_of_options_is_what_clap_says() {
    hold("docs/configuration.md", |document| {
        let (before, rest) = document.split_once(BEGIN).expect("a place for the table");
        let (_, behind) = rest.split_once(END).expect("an end of the table");
        format!("{before}{BEGIN}\n{}\n{END}{behind}", table())
    });
}

#[test]
fn the_example_of_the_file_is_what_clap_says() {
    hold("packaging/lantern.toml", |_| file());
}

#[test]
fn each_line_of_the_example_can_be_used() {
    let text = file();
    let settings = text
        .lines()
        .filter(|line| line.starts_with('#') && !line.starts_with("# "));
    let settings: Vec<&str> = settings.map(|line| &line[1..]).collect();
    let keys: Keys = keys::of_program(&program());
    assert_eq!(settings.len(), keys.len());
    let read = super::file::parse(settings.join("\n").as_bytes(), &keys);
    assert_eq!(read.map(|settings| settings.len()).ok(), Some(keys.len()));
    assert!(super::file::parse(text.as_bytes(), &keys).is_ok_and(|settings| settings.is_empty()));
}
