use std::ffi::OsStr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{User, geteuid};

use super::error::{EmbeddedError, failed_to};

/// The operating system's user that PostgreSQL's programs run as: our own, or another one where we are root, since
/// they refuse to run as root.
#[derive(Clone, Debug)]
pub(super) struct Account {
    other: Option<User>,
}

impl Account {
    pub fn for_server() -> Result<Self, EmbeddedError> {
        if !geteuid().is_root() {
            return Ok(Self { other: None });
        }
        let other = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .ok_or(EmbeddedError::NoAccount)?;
        Ok(Self { other: Some(other) })
    }

    pub fn name(&self) -> &str {
        self.other
            .as_ref()
            .map_or("that runs lantern-cli", |user| &user.name)
    }

    /// A command that runs as this account, from the root directory (ours may be closed to it), in the C locale.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir("/")
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        if let Some(user) = &self.other {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// Makes this account the owner of `path`.
    pub fn own(&self, path: &Path) -> Result<(), EmbeddedError> {
        let Some(user) = &self.other else {
            return Ok(());
        };
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .map_err(failed_to("change the owner of", path))
    }

    /// Whether this account may enter `directory`. Asked of the system itself, which also knows of access control
    /// lists and mounts.
    pub fn can_enter(&self, directory: &Path) -> bool {
        self.command("/bin/sh")
            .args(["-c", "cd -- \"$1\"", "sh"])
            .arg(directory)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}
