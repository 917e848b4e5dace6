//! Keeps the password of `--uri` out of the process list.
//!
//! On most systems everybody may read the arguments of every process, and only its owner the environment (proc(5)). A
//! program cannot keep others from reading its arguments in its first moments, but it can start over without them.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::postgres::ConnectionString;

/// Where `--uri` is read from where it is not an argument.
const VARIABLE: &str = "LANTERN_URI";

/// Replaces this process by itself, if `--uri` has a password, with the connection string in the environment instead. The
/// process id stays. Returns where there is nothing to hide, or the program cannot be started again.
pub fn hide_password() {
    let mut arguments = env::args_os();
    let Some(name) = arguments.next() else { return };
    let Some((others, uri)) = without_uri(arguments.collect()) else {
        return;
    };
    if !may_hold_password(&uri) {
        return;
    }
    let Ok(program) = env::current_exe() else {
        return;
    };
    let error = Command::new(program)
        .arg0(name)
        .args(others)
        .env(VARIABLE, uri)
        .exec();
    eprintln!("warning: the password stays visible in the process list: {error}");
}

/// The arguments without `--uri`, and its value.
fn without_uri(arguments: Vec<OsString>) -> Option<(Vec<OsString>, OsString)> {
    let mut others = Vec::with_capacity(arguments.len());
    let mut uri = None;
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            others.push(argument);
            others.extend(rest.by_ref());
        } else if argument == "--uri" {
            uri = Some(rest.next()?);
        } else if let Some(value) = argument.as_bytes().strip_prefix(b"--uri=") {
            uri = Some(OsStr::from_bytes(value).to_owned());
        } else {
            others.push(argument);
        }
    }
    Some((others, uri?))
}

/// What cannot be understood may hold anything.
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
        let (others, uri) = without_uri(arguments.iter().map(OsString::from).collect())?;
        let text = |text: OsString| text.into_string().unwrap();
        Some((others.into_iter().map(text).collect(), text(uri)))
    }

    #[test]
    fn the_connection_string_is_taken_out_in_either_form() {
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
    fn only_what_may_hold_a_password_is_hidden() {
        let hidden = |uri: &str| may_hold_password(OsStr::new(uri));
        assert!(!hidden("postgresql://me@localhost/d"));
        assert!(!hidden("host=localhost user=me"));
        assert!(hidden("postgresql://me:s3cret@localhost/d"));
        assert!(hidden("postgresql://me@localhost/d?password=s3cret"));
        assert!(hidden("host=localhost password='s3 cret'"));
        assert!(hidden("not a connection string: s3cret"));
    }
}
