//! Creates a database cluster.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::account::Account;
use super::directory::ServerDirectory;
use super::error::{EmbeddedError, failed_to};
use super::installation::Installation;
use super::supervised_process::{Lifetime, SupervisedProcess};

/// How often a running initdb is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What is needed to create a database cluster.
pub(super) struct Initdb<'a> {
    pub installation: &'a Installation,
    pub account: &'a Account,
    pub directory: &'a ServerDirectory,
    pub lifetime: Lifetime,
    /// Whether to wait until all files are on disk.
    pub durable: bool,
}

impl Initdb<'_> {
    /// Creates the database unless there is one. The directory's password file must exist.
    pub fn run(&self) -> Result<(), EmbeddedError> {
        let data = self.directory.data();
        if data.exists() {
            return Ok(());
        }
        // Created under another name, so that an interrupted initdb leaves nothing that looks like a database.
        let staging = self.directory.root().join("data.new");
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(failed_to("remove", &staging))?;
        }
        let status = self.run_to_end(&self.command(&staging))?;
        if status != 0 {
            return Err(EmbeddedError::Initdb {
                directory: data,
                output: self.directory.log_tail(),
            });
        }
        fs::rename(&staging, &data).map_err(failed_to("rename", &staging))
    }

    fn command(&self, staging: &Path) -> Command {
        let program = self.installation.bindir().join("initdb");
        let mut initdb = self.account.command(&program);
        initdb
            .arg("--pgdata")
            .arg(staging)
            .arg("--pwfile")
            .arg(self.directory.password_file())
            .args(["--username=postgres", "--auth=scram-sha-256"])
            .args(["--encoding=UTF8"])
            .args(self.locale());
        if !self.durable {
            initdb.arg("--no-sync");
        }
        initdb
    }

    /// Runs initdb and returns its exit status.
    fn run_to_end(&self, initdb: &Command) -> Result<i32, EmbeddedError> {
        let mut process =
            SupervisedProcess::start(self.account, self.directory, self.lifetime, initdb)?;
        let status = loop {
            match process.exit_status() {
                Some(status) => break status,
                None => sleep(POLL_INTERVAL),
            }
        };
        process.release();
        Ok(status)
    }

    /// A locale that sorts text by code point and knows the character classes of Unicode, the same on every machine.
    fn locale(&self) -> &'static [&'static str] {
        match self.installation.version() {
            // PostgreSQL's own ("Locale Providers" in the manual): not every system has a locale C.UTF-8.
            17.. => &[
                "--no-locale",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ],
            _ => &["--locale=C.UTF-8", "--lc-messages=C"],
        }
    }
}
