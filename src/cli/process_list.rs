//! Keeps the passwords of `--uri` and of other options that are connection strings out of the process list.
//!
//! On most systems every user can read the arguments of every process, but only the owner of a process can read its
//! environment (`/proc/PID/cmdline` and `/proc/PID/environ` in proc(5)). A program cannot prevent that its arguments
//! are read in its first moments, but it can restart itself without them.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::stderr;
use crate::postgres::ConnectionString;

/// The options that hold a connection string, and their environment variables.
const OPTIONS: [(&str, &str); 4] = [
    ("--uri", "LANTERN_URI"),
    ("--target", "LANTERN_TARGET"),
    ("--db-connection", "LANTERN_DB_CONNECTION"),
    ("--write-connection", "LANTERN_WRITE_CONNECTION"),
];

/// If one of [`OPTIONS`] has a password, restarts the program with the connection string in the environment instead
/// of the arguments. The process id stays the same (execve(2)). Returns if there is nothing to hide or the program cannot be
/// restarted.
///
/// Must be called before any thread is started and any file is opened: the restarted program begins from scratch.
pub fn hide_password() {
    let mut arguments = env::args_os();
    let Some(name) = arguments.next() else { return };
    let mut arguments: Vec<OsString> = arguments.collect();
    let mut hidden = Vec::new();
    for (option, variable) in OPTIONS {
        if let Some((others, uri)) = without(option, &arguments)
            && may_hold_password(&uri)
        {
            arguments = others;
            hidden.push((variable, uri));
        }
    }
    if hidden.is_empty() {
        return;
    }
    // Not the first argument, which may be any name.
    let Ok(program) = env::current_exe() else {
        return;
    };
    let variables: Vec<&str> = hidden.iter().map(|(variable, _)| *variable).collect();
    let variables = variables.join(" and ");
    let error = Command::new(program)
        .arg0(name)
        .args(arguments)
        .envs(hidden)
        .exec();
    stderr::line(&format!(
        "warning: a password is visible in the process list, because the program cannot restart itself: {error}; set \
         {variables} instead"
    ));
}

/// The arguments without this option, and its value; `None` if it is not given.
fn without(option: &str, arguments: &[OsString]) -> Option<(Vec<OsString>, OsString)> {
    let mut others = Vec::with_capacity(arguments.len());
    let mut uri = None;
    let mut rest = arguments.iter().cloned();
    while let Some(argument) = rest.next() {
        let value = argument.as_bytes().strip_prefix(option.as_bytes());
        // After `--` come texts, even if they look like options.
        if argument == "--" {
            others.push(argument);
            others.extend(rest.by_ref());
        } else if argument == option {
            uri = Some(rest.next()?);
        } else if let Some(value) = value.and_then(|value| value.strip_prefix(b"=")) {
            uri = Some(OsStr::from_bytes(value).to_owned());
        } else {
            others.push(argument);
        }
    }
    Some((others, uri?))
}

/// Whether a connection string may have a password. One that cannot be parsed may have anything.
fn may_hold_password(uri: &OsStr) -> bool {
    let parsed = uri
        .to_str()
        .and_then(|uri| uri.parse::<ConnectionString>().ok());
    parsed.is_none_or(|uri| uri.config().get_password().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(arguments: &[&str]) -> Option<(Vec<String>, String)> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let (others, uri) = without("--uri", &arguments)?;
        let text = |text: OsString| text.into_string().unwrap();
        Some((others.into_iter().map(text).collect(), text(uri)))
    }

    #[test]
    fn the_connection_string_is_removed_in_either_form() {
        let expected = Some((
            vec!["start-daemon".into(), "--table".into(), "t".into()],
            "u".into(),
        ));
        assert_eq!(
            split(&["start-daemon", "--uri", "u", "--table", "t"]),
            expected
        );
        assert_eq!(
            split(&["start-daemon", "--uri=u", "--table", "t"]),
            expected
        );
        assert_eq!(split(&["start-daemon", "--table", "t"]), None);
        assert_eq!(split(&["embed", "--", "--uri", "u"]), None);
        assert_eq!(split(&["start-daemon", "--uri"]), None);
    }

    #[test]
    fn only_a_connection_string_that_may_have_a_password_is_hidden() {
        let hidden = |uri: &str| may_hold_password(OsStr::new(uri));
        assert!(!hidden("postgresql://me@localhost/d"));
        assert!(!hidden("host=localhost user=me"));
        assert!(hidden("postgresql://me:s3cret@localhost/d"));
        assert!(hidden("postgresql://me@localhost/d?password=s3cret"));
        assert!(hidden("host=localhost password='s3 cret'"));
        assert!(hidden("not a connection string: s3cret"));
    }
}
