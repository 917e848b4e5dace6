use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use lantern::embedded::{Installation, PrivatePostgres};

/// The root of the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `make setup` has fetched.
pub fn runtime() -> PathBuf {
    checkout().join(".runtime")
}

/// The server programs under test: those in `LANTERN_TEST_PG_BINDIR`, else those that `make setup` has fetched.
pub fn installation() -> Installation {
    let bindir = match std::env::var_os("LANTERN_TEST_PG_BINDIR") {
        Some(bindir) => PathBuf::from(bindir),
        None => runtime().join("postgres").join("bin"),
    };
    Installation::at(&bindir).unwrap_or_else(|error| panic!("run `make setup` first: {error}"))
}

/// A client program that belongs to a server; for builds that come without, the one that `make setup` has fetched.
pub fn program_of(server: &PrivatePostgres, name: &str) -> PathBuf {
    let own = server.bindir().join(name);
    if own.exists() {
        own
    } else {
        runtime().join("postgres/bin").join(name)
    }
}

/// The server that all tests share. It stops and its files go when the test process ends, however that happens.
pub fn server() -> &'static PrivatePostgres {
    static SERVER: LazyLock<PrivatePostgres> = LazyLock::new(|| start(&installation(), &[]));
    &SERVER
}

/// A server of Debian's packages, the newest that is installed, for the tests that run on a second version.
pub fn debian_server() -> Option<&'static PrivatePostgres> {
    static SERVER: LazyLock<Option<PrivatePostgres>> =
        LazyLock::new(|| Some(start(&debian_installation()?, &[])));
    SERVER.as_ref()
}

/// The server programs of Debian's packages, the newest that are installed.
pub fn debian_installation() -> Option<Installation> {
    fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Installation::at(&entry.ok()?.path().join("bin")).ok())
        .filter(|installation| installation.version() >= 15)
        .max_by_key(Installation::version)
}

/// Starts a server with room for many tests; `settings` win over what is chosen here.
pub fn start(installation: &Installation, settings: &[(&str, &str)]) -> PrivatePostgres {
    let own = [
        ("max_connections", "400"),
        ("max_replication_slots", "200"),
        ("max_wal_senders", "200"),
        // The log is read when a test has failed.
        ("log_line_prefix", "%m [%p] %d "),
    ];
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let settings = own.iter().chain(settings).map(owned).collect();
    PrivatePostgres::start_temporary(installation, settings)
        .unwrap_or_else(|error| panic!("no server to test with: {error}"))
}
