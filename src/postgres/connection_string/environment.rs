//! The process and its user, as defaults for what a connection string leaves out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use nix::unistd::{User, geteuid};

/// Looked up once: the answer may come over the network (LDAP).
static ACCOUNT: LazyLock<Option<User>> = LazyLock::new(|| User::from_uid(geteuid()).ok().flatten());

/// Environment variables, home folder and name of the user.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: HashMap<String, String>,
    home: Option<PathBuf>,
    user: Option<String>,
}

impl Environment {
    /// That of this process.
    pub fn from_process() -> Environment {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let account = ACCOUNT.as_ref();
        let home = std::env::var_os("HOME").map(PathBuf::from);
        Environment {
            variables: std::env::vars_os().filter_map(text).collect(),
            home: home.or_else(|| account.map(|account| account.dir.clone())),
            user: account.map(|account| account.name.clone()),
        }
    }

    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// The name of the user that the process runs as: libpq's default for `user`.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// A file in `~/.postgresql`, where libpq looks for certificates, if it exists.
    pub fn certificate_file(&self, name: &str) -> Option<String> {
        let path = self.home()?.join(".postgresql").join(name);
        let path = path.is_file().then_some(path)?;
        path.into_os_string().into_string().ok()
    }
}

#[cfg(test)]
impl Environment {
    pub fn with(variables: &[(&str, &str)], home: &Path) -> Environment {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        Environment {
            variables: variables.iter().map(owned).collect(),
            home: Some(home.to_owned()),
            user: Some("somebody".to_owned()),
        }
    }
}
