//! PostgreSQL servers for tests. Each belongs to the process that started it and ends with it, however that ends.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use lantern::embedded::{EmbeddedError, Installation, PrivatePostgres};

use crate::paths::runtime;
use crate::skip;

/// Names another folder with the server programs under test, for `make test-matrix`.
pub const BINDIR_VARIABLE: &str = "LANTERN_TEST_PG_BINDIR";

/// Commits that survive a crash of the machine. Temporary servers do without unless they are told otherwise.
pub const DURABLE: [(&str, &str); 2] = [("fsync", "on"), ("full_page_writes", "on")];

/// Room for many tests at once, and a log that tells their databases apart.
const ROOM: [(&str, &str); 4] = [
    ("max_connections", "400"),
    ("max_replication_slots", "200"),
    ("max_wal_senders", "200"),
    ("log_line_prefix", "%m [%p] %d "),
];

/// The oldest version of Debian's packages that the tests run on.
const OLDEST_OF_DEBIAN: u32 = 15;

/// The server programs under test: those in [`BINDIR_VARIABLE`], else those that `make setup` has fetched.
///
/// # Panics
///
/// Where there are none.
pub fn installation() -> Installation {
    let bindir = match std::env::var_os(BINDIR_VARIABLE) {
        Some(bindir) => PathBuf::from(bindir),
        None => runtime().join("postgres").join("bin"),
    };
    Installation::at(&bindir).unwrap_or_else(|error| panic!("run `make setup` first: {error}"))
}

/// A client program that belongs to a server. Some builds of older servers come without; then it is the one that `make
/// setup` has fetched.
pub fn client_program(server: &PrivatePostgres, name: &str) -> PathBuf {
    let own = server.bindir().join(name);
    if own.exists() {
        own
    } else {
        runtime().join("postgres/bin").join(name)
    }
}

/// Settings with owned strings, as the embedded server takes them.
pub fn owned_settings(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    settings.iter().map(owned).collect()
}

/// Starts a server in a temporary directory, with no settings but these. Blocks until it answers.
///
/// # Errors
///
/// Where the server does not start.
pub fn start(
    installation: &Installation,
    settings: &[(&str, &str)],
) -> Result<PrivatePostgres, EmbeddedError> {
    PrivatePostgres::start_temporary(installation, owned_settings(settings))
}

/// Starts a server with room for many tests; `settings` win over that.
///
/// # Panics
///
/// Where the server does not start.
pub fn start_with_room(installation: &Installation, settings: &[(&str, &str)]) -> PrivatePostgres {
    let started = start(installation, &[&ROOM, settings].concat());
    started.unwrap_or_else(|error| panic!("no server to test with: {error}"))
}

/// The server that the tests of a process share.
pub fn shared() -> &'static PrivatePostgres {
    static SERVER: LazyLock<PrivatePostgres> =
        LazyLock::new(|| start_with_room(&installation(), &[]));
    &SERVER
}

/// A server of Debian's packages, for the tests that run on a second version or need TLS. `None`, which is reported as
/// a skip, where they are not installed.
pub fn debian() -> Option<&'static PrivatePostgres> {
    static SERVER: LazyLock<Option<PrivatePostgres>> = LazyLock::new(|| {
        let installation = newest_of_debian()?;
        Some(start_with_room(&installation, &[]))
    });
    let server = SERVER.as_ref();
    if server.is_none() {
        report_missing_debian();
    }
    server
}

/// The server programs of Debian's packages, the newest that are installed. `None`, which is reported as a skip, where
/// there are none.
pub fn debian_installation() -> Option<Installation> {
    let newest = newest_of_debian();
    if newest.is_none() {
        report_missing_debian();
    }
    newest
}

fn newest_of_debian() -> Option<Installation> {
    fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Installation::at(&entry.ok()?.path().join("bin")).ok())
        .filter(|installation| installation.version() >= OLDEST_OF_DEBIAN)
        .max_by_key(Installation::version)
}

fn report_missing_debian() {
    skip::missing(
        "no PostgreSQL of Debian's packages in /usr/lib/postgresql",
        "apt-get install postgresql",
    );
}
