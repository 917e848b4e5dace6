use std::fs;
use std::thread::sleep;
use std::time::Duration;

use super::account::Account;
use super::directory::ServerDirectory;
use super::error::{EmbeddedError, failed_to};
use super::installation::Installation;
use super::supervisor::{Afterwards, Supervisor};

/// How the database is created.
pub(super) struct Initdb<'a> {
    pub installation: &'a Installation,
    pub account: &'a Account,
    pub directory: &'a ServerDirectory,
    pub afterwards: Afterwards,
    /// Whether to wait until all is on disk.
    pub durable: bool,
}

impl Initdb<'_> {
    /// Creates the database where there is none yet. The directory's password file exists.
    pub fn run(&self) -> Result<(), EmbeddedError> {
        let data = self.directory.data();
        if data.exists() {
            return Ok(());
        }
        // Made under another name, so that an interrupted initdb leaves nothing that looks like a database.
        let staging = self.directory.root().join("data.new");
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(failed_to("remove", &staging))?;
        }
        let program = self.installation.bindir().join("initdb");
        let mut initdb = self.account.command(&program);
        initdb
            .arg("--pgdata")
            .arg(&staging)
            .arg("--pwfile")
            .arg(self.directory.password_file())
            .args(["--username=postgres", "--auth=scram-sha-256"])
            .args(["--encoding=UTF8"])
            .args(self.locale());
        if !self.durable {
            initdb.arg("--no-sync");
        }
        let mut supervisor =
            Supervisor::start(self.account, self.directory, self.afterwards, &initdb)?;
        let status = loop {
            match supervisor.ended() {
                Some(status) => break status,
                None => sleep(Duration::from_millis(5)),
            }
        };
        supervisor.dismiss();
        if status != 0 {
            return Err(EmbeddedError::Initdb {
                directory: data,
                output: self.directory.log_tail(),
            });
        }
        fs::rename(&staging, &data).map_err(failed_to("rename", &staging))
    }

    /// Text sorted by code point, and the character classes of Unicode.
    fn locale(&self) -> &'static [&'static str] {
        match self.installation.version() {
            // PostgreSQL's own, since not every system has that locale.
            17.. => &[
                "--no-locale",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ],
            _ => &["--locale=C.UTF-8", "--lc-messages=C"],
        }
    }
}
