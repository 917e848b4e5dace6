//! Finds PostgreSQL's server programs.
//!
//! If we are root and the account that PostgreSQL runs as cannot reach the programs, for example in a checkout below
//! `/root`, they are copied to a place that it can reach.

use std::fs;
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use xxhash_rust::xxh3::Xxh3;

use super::account::Account;
use super::error::{EmbeddedError, failed_to};

/// The directory for files of root that PostgreSQL's account must be able to reach.
pub(super) const SYSTEM_DIRECTORY: &str = "/var/lib/lantern-cli";

/// The programs of a PostgreSQL server, in one directory.
#[derive(Clone, Debug)]
pub struct Installation {
    bindir: PathBuf,
    major: u32,
}

impl Installation {
    /// Finds a server: in `<data_path>/postgres/bin`, else in the directory that `pg_config --bindir` prints, else by
    /// `PATH`, else the newest one where packages of distributions put them.
    ///
    /// # Errors
    ///
    /// If there is no server, or it cannot be used.
    pub fn find(data_path: &Path) -> Result<Self, EmbeddedError> {
        let own = data_path.join("postgres").join("bin");
        [Some(own.clone()), bindir_of_pg_config(), bindir_on_path()]
            .into_iter()
            .flatten()
            .chain(bindirs_of_packages(Path::new("/")))
            .find(|bindir| bindir.join("postgres").exists())
            .map_or(Err(EmbeddedError::NoInstallation { bindir: own }), |dir| {
                Self::at(&dir)
            })
    }

    /// The server whose programs are in `bindir`.
    ///
    /// If we are root and the account that PostgreSQL runs as cannot reach `bindir`, this is a copy in
    /// `/var/lib/lantern-cli`, which is made once.
    ///
    /// # Errors
    ///
    /// If a program is missing, cannot be run, or cannot be copied.
    pub fn at(bindir: &Path) -> Result<Self, EmbeddedError> {
        // Follows symbolic links, such as /usr/local/bin/postgres, to the directory that has the other programs too.
        let bindir = fs::canonicalize(bindir).map_err(failed_to("find", bindir))?;
        for program in ["postgres", "initdb"] {
            if !bindir.join(program).is_file() {
                return Err(EmbeddedError::Incomplete { bindir, program });
            }
        }
        let account = Account::for_server()?;
        let bindir = if account.can_enter(&bindir) {
            bindir
        } else {
            copy_within_reach(&bindir, &account)?
        };
        let major = major_version(&bindir.join("postgres"), &account)?;
        Ok(Self { bindir, major })
    }

    /// The directory of the programs: `postgres`, `initdb`, and usually `psql`.
    #[must_use]
    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// The major version, such as 18.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.major
    }
}

fn bindir_of_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let bindir = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| PathBuf::from(bindir.trim()))
}

fn bindir_on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let server = std::env::split_paths(&path)
        .map(|directory| directory.join("postgres"))
        .find(|program| program.is_file())?;
    fs::canonicalize(server).ok()?.parent().map(Path::to_owned)
}

/// The directories of packaged servers, the newest version first. Debian keeps them in `/usr/lib/postgresql/15/bin`, and
/// PostgreSQL's own packages for Red Hat and its kin in `/usr/pgsql-15/bin`: neither is in `PATH`.
fn bindirs_of_packages(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (parent, prefix) in [("usr/lib/postgresql", ""), ("usr", "pgsql-")] {
        for entry in fs::read_dir(root.join(parent))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix));
            if let Some(version) = version.and_then(|version| version.parse::<u32>().ok()) {
                found.push((version, entry.path().join("bin")));
            }
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, bindir)| bindir).collect()
}

/// Parses the output of `postgres --version`: `postgres (PostgreSQL) 18.6 (Debian …)`.
fn major_version(server: &Path, account: &Account) -> Result<u32, EmbeddedError> {
    let output = account
        .command(server)
        .arg("--version")
        .output()
        .map_err(failed_to("run", server))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    printed
        .split_once("(PostgreSQL) ")
        .and_then(|(_, version)| version.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|major| major.parse().ok())
        .ok_or_else(|| EmbeddedError::UnknownVersion {
            program: server.to_owned(),
            output: format!("{printed}{}", String::from_utf8_lossy(&output.stderr)),
        })
}

/// Copies the installation that `bindir` belongs to to a place that `account` can reach; returns the copy's `bindir`.
///
/// The copy is named after its content, so several checkouts share one, and another version gets its own.
fn copy_within_reach(bindir: &Path, account: &Account) -> Result<PathBuf, EmbeddedError> {
    let unreachable = || EmbeddedError::Unreachable {
        directory: bindir.to_owned(),
        account: account.name().to_owned(),
    };
    let root = bindir.parent().ok_or_else(unreachable)?;
    // Only a tree of PostgreSQL alone can be copied: it finds its files relative to its programs (`src/port/path.c`).
    // Programs in /usr/bin have their files all over the system.
    if !root.join("lib").is_dir() || !root.join("share").is_dir() {
        return Err(unreachable());
    }
    let name = fingerprint(root).map_err(failed_to("read", root))?;
    let system = Path::new(SYSTEM_DIRECTORY);
    let copy = system.join(format!("postgres-{name:016x}"));
    if !copy.exists() {
        fs::create_dir_all(system).map_err(failed_to("create", system))?;
        let staging = system.join(format!(".postgres-{name:016x}.{}", std::process::id()));
        copy_tree(root, &staging).map_err(failed_to("copy PostgreSQL to", &staging))?;
        if let Err(error) = fs::rename(&staging, &copy) {
            // Another process has made the copy in the meantime, or there is a real error.
            let _ = fs::remove_dir_all(&staging);
            if !copy.exists() {
                return Err(failed_to("create", &copy)(error));
            }
        }
    }
    Ok(copy.join("bin"))
}

/// A hash of the server program and, if it is there, of pgvector.
fn fingerprint(root: &Path) -> io::Result<u64> {
    let mut hash = Xxh3::new();
    hash.write(&fs::read(root.join("bin").join("postgres"))?);
    hash.write(&fs::read(root.join("lib").join("vector.so")).unwrap_or_default());
    Ok(hash.finish())
}

/// Copies a directory and makes it readable for everyone.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if fs::metadata(entry.path())?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_packaged_server_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for bindir in [
            "usr/lib/postgresql/9/bin",
            "usr/lib/postgresql/15/bin",
            "usr/lib/postgresql/common/bin",
            "usr/pgsql-17/bin",
            "usr/share/bin",
        ] {
            fs::create_dir_all(root.path().join(bindir)).unwrap();
        }
        let found = bindirs_of_packages(root.path());
        let found: Vec<_> = found
            .iter()
            .map(|bindir| bindir.strip_prefix(root.path()).unwrap().to_str().unwrap())
            .collect();
        let expected = [
            "usr/pgsql-17/bin",
            "usr/lib/postgresql/15/bin",
            "usr/lib/postgresql/9/bin",
        ];
        assert_eq!(found, expected);
    }
}
