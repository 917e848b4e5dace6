use std::fs;
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use xxhash_rust::xxh3::Xxh3;

use super::account::Account;
use super::error::{EmbeddedError, failed_to};

/// Where root keeps what PostgreSQL's account must be able to reach.
pub(super) const SYSTEM_DIRECTORY: &str = "/var/lib/lantern-cli";

/// PostgreSQL's server programs.
#[derive(Clone, Debug)]
pub struct Installation {
    bindir: PathBuf,
    major: u32,
}

impl Installation {
    /// Finds a server: in `<data_path>/postgres/bin`, else where `pg_config --bindir` points, else by PATH.
    pub fn find(data_path: &Path) -> Result<Self, EmbeddedError> {
        let own = data_path.join("postgres").join("bin");
        [Some(own.clone()), bindir_of_pg_config(), bindir_on_path()]
            .into_iter()
            .flatten()
            .find(|bindir| bindir.join("postgres").exists())
            .map_or(Err(EmbeddedError::NoInstallation { bindir: own }), |dir| {
                Self::at(&dir)
            })
    }

    /// The server whose programs lie in `bindir`.
    ///
    /// Where we are root and the account that PostgreSQL runs as cannot reach `bindir` (a checkout in `/root`), this
    /// is a copy in `/var/lib/lantern-cli`, made once.
    pub fn at(bindir: &Path) -> Result<Self, EmbeddedError> {
        // Through symbolic links, such as Debian's /usr/local/bin/postgres, to where the other programs are.
        let bindir = fs::canonicalize(bindir).map_err(failed_to("find", bindir))?;
        for program in ["postgres", "initdb"] {
            if !bindir.join(program).is_file() {
                return Err(EmbeddedError::Incomplete { bindir, program });
            }
        }
        let account = Account::for_server()?;
        let bindir = match account.can_enter(&bindir) {
            true => bindir,
            false => copy_within_reach(&bindir, &account)?,
        };
        let major = major_version(&bindir.join("postgres"), &account)?;
        Ok(Self { bindir, major })
    }

    /// The directory of the programs: `postgres`, `initdb`, and usually `psql`.
    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// The major version: 18.
    pub fn version(&self) -> u32 {
        self.major
    }
}

fn bindir_of_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(said.trim()))
}

fn bindir_on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let server = std::env::split_paths(&path)
        .map(|directory| directory.join("postgres"))
        .find(|program| program.is_file())?;
    fs::canonicalize(server).ok()?.parent().map(Path::to_owned)
}

/// Reads `postgres (PostgreSQL) 18.6 (Debian …)`.
fn major_version(server: &Path, account: &Account) -> Result<u32, EmbeddedError> {
    let output = account
        .command(server)
        .arg("--version")
        .output()
        .map_err(failed_to("run", server))?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.split_once("(PostgreSQL) ")
        .and_then(|(_, version)| version.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|major| major.parse().ok())
        .ok_or_else(|| EmbeddedError::UnknownVersion {
            program: server.to_owned(),
            said: format!("{said}{}", String::from_utf8_lossy(&output.stderr)),
        })
}

/// Copies the installation that `bindir` belongs to where `account` can reach it; returns the copy's bindir.
///
/// The copy is named by its content, so that any number of checkouts share one, and another version gets its own.
fn copy_within_reach(bindir: &Path, account: &Account) -> Result<PathBuf, EmbeddedError> {
    let unreachable = || EmbeddedError::Unreachable {
        directory: bindir.to_owned(),
        account: account.name().to_owned(),
    };
    let root = bindir.parent().ok_or_else(unreachable)?;
    // Only a tree that is known to be relocatable, and to be nothing but PostgreSQL.
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
            // Somebody else was quicker, or there really is an error.
            let _ = fs::remove_dir_all(&staging);
            if !copy.exists() {
                return Err(failed_to("create", &copy)(error));
            }
        }
    }
    Ok(copy.join("bin"))
}

/// A hash of the server program and of pgvector, where it is there.
fn fingerprint(root: &Path) -> io::Result<u64> {
    let mut hash = Xxh3::new();
    hash.write(&fs::read(root.join("bin").join("postgres"))?);
    hash.write(&fs::read(root.join("lib").join("vector.so")).unwrap_or_default());
    Ok(hash.finish())
}

/// Copies a directory, readable by all.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match fs::metadata(entry.path())?.is_dir() {
            true => copy_tree(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}
