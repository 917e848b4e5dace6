use std::fs;

use clap::{Arg, Command};

use super::keys::{of_command, of_program, variable};
use super::*;
use crate::cli::arguments::program;

/// Options of services that are about one call, and are not kept anywhere.
const OF_A_CALL: [&str; 3] = ["help", "config", "print-config"];

fn all_commands(command: &Command) -> Vec<Command> {
    let below = command.get_subcommands().flat_map(all_commands);
    below.chain([command.clone()]).collect()
}

fn long(option: &Arg) -> &str {
    option
        .get_long()
        .expect("an option with a key has a long name")
}

#[test]
fn each_option_of_a_service_has_a_variable_and_a_key() {
    let program = program();
    for service in SERVICES {
        let service = program.find_subcommand(service).unwrap();
        for option in service.get_arguments() {
            let long = long(option);
            if !OF_A_CALL.contains(&long) {
                let expected = variable(long);
                let found = option.get_env().and_then(OsStr::to_str);
                assert_eq!(
                    found,
                    Some(expected.as_str()),
                    "--{long} of {}",
                    service.get_name()
                );
            }
        }
    }
}

#[test]
fn variables_and_keys_have_the_name_of_their_option_in_each_command() {
    for command in all_commands(&program()) {
        for option in of_command(&command) {
            let long = long(option);
            assert_eq!(
                option.get_env().and_then(OsStr::to_str),
                Some(&*variable(long)),
                "{}",
                command.get_name()
            );
        }
    }
    assert!(of_program(&program()).contains_key("max_jobs"));
}

/// The arguments that a file adds to these.
fn added(file: &str, arguments: &str) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lantern.toml");
    fs::write(&path, file).unwrap();
    let arguments = arguments.replace("FILE", path.to_str().unwrap());
    let given: Vec<OsString> = arguments.split(' ').map(OsString::from).collect();
    let count = given.len();
    let (completed, _) = complete(&program(), given.clone()).map_err(|error| error.to_string())?;
    let first = completed
        .iter()
        .zip(&given)
        .take_while(|(a, b)| a == b)
        .count();
    let added = &completed[first..first + completed.len() - count];
    Ok(added
        .iter()
        .map(|text| text.to_string_lossy().into_owned())
        .collect())
}

#[test]
fn what_is_set_in_the_file_is_added_where_the_command_takes_it_and_has_none() {
    let file = "max_jobs = 5\nuri = 'postgresql://h/d'\noffline = true\nallow_host = ['a', 'b']\n";
    let daemon = added(file, "lantern-cli start-daemon --config FILE").unwrap();
    assert_eq!(
        daemon,
        [
            "--uri=postgresql://h/d",
            "--allow-host=a",
            "--allow-host=b",
            "--max-jobs=5",
            "--offline"
        ]
    );
    let given = "lantern-cli --config FILE start-daemon --max-jobs 7 --allow-host c --uri=x";
    assert_eq!(added(file, given).unwrap(), ["--offline"]);
    let other = added(file, "lantern-cli jobs --config FILE list").unwrap();
    assert_eq!(other, ["--uri=postgresql://h/d"]);
    for none in [
        "start-daemon --config=",
        "jobs --config FILE",
        "--config FILE",
        "--config FILE sql jobs",
    ] {
        assert_eq!(
            added(file, &format!("lantern-cli {none}")).unwrap(),
            [""; 0],
            "{none}"
        );
    }
}

#[test]
fn a_list_of_the_command_line_replaces_that_of_the_file() {
    let file = "allow_host = ['a', 'b']\noffline = false\n";
    assert_eq!(
        added(
            file,
            "lantern-cli start-daemon --config FILE --allow-host c"
        )
        .unwrap(),
        [""; 0]
    );
}

#[test]
fn help_and_mistakes_on_the_command_line_come_first() {
    for arguments in [
        "start-daemon --config FILE --help",
        "--version",
        "nonsense --config FILE",
        "",
    ] {
        let arguments = format!("lantern-cli {arguments}");
        assert_eq!(
            added("nonsense = 1", arguments.trim()).unwrap(),
            [""; 0],
            "{arguments}"
        );
    }
}

#[test]
fn an_error_names_the_file() {
    let error = added(
        "nonsense = 1\nmaxjobs = 2",
        "lantern-cli start-daemon --config FILE",
    )
    .unwrap_err();
    assert!(
        error.contains("lantern.toml:1: the key \"nonsense\" is not known"),
        "{error}"
    );
    assert!(
        error.contains("lantern.toml:2: the key \"maxjobs\" is not known; did you mean max_jobs?"),
        "{error}"
    );
    let error = added("", "lantern-cli start-daemon --config FILE.missing").unwrap_err();
    assert!(
        error.ends_with(".missing cannot be read: there is no such file"),
        "{error}"
    );
    let error = added("", "lantern-cli start-daemon --config /").unwrap_err();
    assert_eq!(
        error,
        "the configuration file / cannot be read: it is not a file of at most 1 MiB"
    );
}
