//! The account of the operating system that PostgreSQL's programs run as.
//!
//! PostgreSQL refuses to run as root ("The PostgreSQL User Account" in the manual). If we are root, for example in a
//! container, its programs run as another user, who must be able to reach them and the data directory.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::fchown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User, geteuid};

use super::error::{EmbeddedError, failed_to};

/// The account for root. Not `nobody`, whom other programs use as well: each of them could read and change the
/// database.
const NAME: &str = "postgres";

/// The user that PostgreSQL's programs run as: our own, or another one if we are root.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// `None`: our own user.
    other: Option<User>,
}

impl Account {
    /// Our own user; if we are root, `postgres`.
    ///
    /// A user id without an account would not do: initdb and PostgreSQL ask for the name of their own.
    pub fn for_server() -> Result<Self, EmbeddedError> {
        if !geteuid().is_root() {
            return Ok(Self { other: None });
        }
        let other = User::from_name(NAME).ok().flatten();
        let other = other.filter(|user| !user.uid.is_root());
        Ok(Self {
            other: Some(other.ok_or(EmbeddedError::NoAccount)?),
        })
    }

    /// The user's name, for messages: "the user {name}".
    pub fn name(&self) -> &str {
        self.other
            .as_ref()
            .map_or("that runs lantern-cli", |user| &user.name)
    }

    /// A command that runs as this account, in the C locale, because its output is parsed. Its working directory is the
    /// root directory: the account may not be allowed to enter ours.
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

    /// Its user id.
    pub fn id(&self) -> Uid {
        self.other.as_ref().map_or_else(geteuid, |user| user.uid)
    }

    /// Makes this account the owner of a file or directory that is open, whatever is at its path by now.
    pub fn own(&self, file: &File, path: &Path) -> Result<(), EmbeddedError> {
        let Some(user) = &self.other else {
            return Ok(());
        };
        fchown(file, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .map_err(failed_to("change the owner of", path))
    }

    /// Whether this account may enter `directory`. A process of the account tries it, because permission bits are not
    /// the whole answer: there are access control lists and mount options.
    pub fn can_enter(&self, directory: &Path) -> bool {
        self.command("/bin/sh")
            .args(["-c", "cd -- \"$1\"", "sh"])
            .arg(directory)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}
