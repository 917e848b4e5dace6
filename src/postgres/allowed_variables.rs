//! Which keys of the daemon's jobs may use (`--allow-env`).
//!
//! A job names a key by the name of an environment variable, and never by a path or by its content. Which variables may
//! be named, only the operator says: others of the daemon's environment are none of a job's business.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::plain_file;

/// One `--allow-env`: the name of a variable, maybe with a file that has the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedVariable {
    name: String,
    file: Option<PathBuf>,
}

/// The value of `--allow-env` names no variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write the name of an environment variable, or NAME=FILE for a file with the key")]
pub struct NoVariable;

impl FromStr for AllowedVariable {
    type Err = NoVariable;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, file) = match text.split_once('=') {
            Some((_, "")) => return Err(NoVariable),
            Some((name, file)) => (name, Some(PathBuf::from(file))),
            None => (text, None),
        };
        let name = name.trim();
        let is_name = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(NoVariable);
        }
        Ok(AllowedVariable {
            name: name.to_owned(),
            file,
        })
    }
}

/// The variables that jobs may name. None, unless the operator lists them.
#[derive(Debug, Clone, Default)]
pub struct AllowedVariables(Vec<AllowedVariable>);

/// A job gets no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyDenied {
    /// The operator has not listed the variable. The same for one that does not exist: a job must not learn which do.
    #[error(
        "runtime_params names the environment variable {0} (api_key_env), which jobs may not use; to allow it, start the \
         daemon with --allow-env {0}"
    )]
    NotListed(String),
    /// The variable is not set.
    #[error(
        "the environment variable {0} (api_key_env), which --allow-env lists, is not set for the daemon, or is empty"
    )]
    NotSet(String),
    /// The file cannot be read.
    #[error("the file with the key {name} (--allow-env {name}=FILE) cannot be read: {reason}")]
    Unreadable {
        /// The name of the variable.
        name: String,
        /// The error of the operating system.
        reason: String,
    },
}

impl AllowedVariables {
    /// Only these.
    pub fn new(variables: Vec<AllowedVariable>) -> Self {
        AllowedVariables(variables)
    }

    /// The key with this name. A file is read each time, so that a key that was rotated is found.
    ///
    /// # Errors
    /// The job may not use it, or there is none.
    pub fn key(&self, name: &str) -> Result<String, KeyDenied> {
        let listed = self.0.iter().find(|variable| variable.name == name);
        let Some(variable) = listed else {
            return Err(KeyDenied::NotListed(name.to_owned()));
        };
        let content = match &variable.file {
            None => env::var(name).unwrap_or_default(),
            Some(file) => {
                let read = plain_file::read(file).map_err(|error| KeyDenied::Unreadable {
                    name: name.to_owned(),
                    reason: error.to_string(),
                })?;
                String::from_utf8_lossy(&read.content).into_owned()
            }
        };
        match content.trim() {
            "" => Err(KeyDenied::NotSet(name.to_owned())),
            key => Ok(key.to_owned()),
        }
    }
}

impl fmt::Display for AllowedVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_a_name_and_maybe_a_file() {
        for (text, name, file) in [
            ("OPENAI_API_KEY", "OPENAI_API_KEY", None),
            (" KEY_2 ", "KEY_2", None),
            ("KEY=/run/secrets/a=b", "KEY", Some("/run/secrets/a=b")),
        ] {
            let variable: AllowedVariable = text.parse().unwrap();
            assert_eq!(variable.name, name);
            assert_eq!(variable.file, file.map(PathBuf::from));
        }
        for text in ["", "=", "KEY=", "2KEY", "A-B", "A B", "$KEY", "=/file"] {
            assert_eq!(text.parse::<AllowedVariable>(), Err(NoVariable), "{text}");
        }
    }

    #[test]
    fn only_what_is_listed_is_read_and_a_rotated_file_is_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let listed = |text: &str| AllowedVariables::new(vec![text.parse().unwrap()]);
        let variables = listed(&format!("KEY={}", file.path().display()));
        assert_eq!(variables.key("KEY"), Err(KeyDenied::NotSet("KEY".into())));
        for key in ["one", "two"] {
            std::fs::write(file.path(), format!("{key}\n")).unwrap();
            assert_eq!(variables.key("KEY").as_deref(), Ok(key));
        }
        assert_eq!(
            variables.key("HOME"),
            Err(KeyDenied::NotListed("HOME".into()))
        );
        assert!(listed("HOME").key("HOME").is_ok());
        let gone = listed("KEY=/nowhere/at/all").key("KEY");
        assert!(
            matches!(gone, Err(KeyDenied::Unreadable { .. })),
            "{gone:?}"
        );
    }
}
