//! The private PostgreSQL: what it offers, and that it leaves nothing behind.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lantern::embedded::{EmbeddedError, PrivatePostgres, ServerOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use testkit::psql::psql;
use testkit::wait::wait_until;
use testkit::{TestDatabase, procfs, server, skip};

const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_server_answers_in_utf8_and_streams_logically() {
    let database = TestDatabase::create(server::shared()).await;
    let version = database.psql("SHOW server_version_num").await;
    assert!(version.starts_with(&server::shared().version().to_string()));
    assert_eq!(database.psql("SHOW wal_level").await, "logical\n");
    assert_eq!(database.psql("SHOW server_encoding").await, "UTF8\n");
}

#[tokio::test]
async fn the_server_that_setup_fetches_has_pgvector() {
    if std::env::var_os(server::BINDIR_VARIABLE).is_some() {
        skip::does_not_apply("these are not the server programs that `make setup` fetches");
        return;
    }
    let database = TestDatabase::with_vector(server::shared()).await;
    let distance = database.psql("SELECT '[3,0]'::vector <-> '[0,4]'").await;
    assert_eq!(distance, "5\n");
}

#[tokio::test]
async fn a_wrong_password_is_rejected() {
    let uri = server::shared().uri("postgres");
    let guessed = uri.replace(server::shared().password(), "postgres");
    let refused = tokio_postgres::connect(&guessed, tokio_postgres::NoTls).await;
    let error = refused.err().expect("a wrong password is refused");
    assert_eq!(
        error.code(),
        Some(&tokio_postgres::error::SqlState::INVALID_PASSWORD)
    );
}

#[tokio::test]
async fn a_restarted_server_keeps_its_data_its_password_and_its_port() {
    let place = place();
    let options = || ServerOptions {
        durable: false,
        ..ServerOptions::new(place.path().join("server"))
    };
    let first = PrivatePostgres::start(&server::installation(), options()).expect("it starts");
    let uri = first.uri("postgres");
    psql(&first, "postgres", "CREATE TABLE kept (n int)").await;
    first.stop().expect("it stops");

    let second =
        PrivatePostgres::start(&server::installation(), options()).expect("it starts again");
    assert_eq!(second.uri("postgres"), uri);
    psql(&second, "postgres", "SELECT n FROM kept").await;
}

#[test]
fn a_directory_in_use_is_rejected_and_its_owner_named() {
    let error = PrivatePostgres::start(
        &server::installation(),
        ServerOptions::new(server::shared().data_directory()),
    )
    .expect_err("the tests' own server runs there");
    assert!(matches!(error, EmbeddedError::InUse { .. }));
    let owner = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&owner), "{error}");
}

#[test]
fn a_start_error_quotes_the_servers_log() {
    let wrong = vec![("max_connections".to_owned(), "many".to_owned())];
    let error = PrivatePostgres::start_temporary(&server::installation(), wrong)
        .expect_err("the setting is invalid");
    let said = error.to_string();
    assert!(
        said.contains("invalid value for parameter \"max_connections\""),
        "{said}"
    );
}

#[test]
fn a_taken_port_is_named() {
    let place = place();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let options = ServerOptions {
        port: Some(port),
        durable: false,
        ..ServerOptions::new(place.path().join("server"))
    };
    let error = PrivatePostgres::start(&server::installation(), options).expect_err("it is taken");
    assert!(matches!(error, EmbeddedError::PortTaken { port: named } if named == port));
}

/// Where it is a temporary server, its files must be gone as well.
#[tokio::test]
async fn a_server_never_outlives_an_owner_that_was_killed() {
    let place = place();
    let Some(mut owner) = Owner::start("a_server_never_outlives_an_owner_that_was_killed", &place)
    else {
        return own_a_server(|| {
            PrivatePostgres::start_temporary(&server::installation(), Vec::new())
        });
    };
    let server = owner.server(&place).await;
    assert!(Path::new(&server.directory).exists());
    owner.0.kill().expect("it runs");

    wait_until("server and files are gone", TIMEOUT, async || {
        let leftovers = (server.is_alive(), Path::new(&server.directory).exists());
        (leftovers == (false, false)).then_some(()).ok_or(leftovers)
    })
    .await;
}

/// As after the out-of-memory killer: even the script that should have stopped the server is gone.
#[tokio::test]
async fn a_leftover_server_is_stopped_by_the_next_start() {
    let place = place();
    let directory = place.path().join("server");
    let options = || ServerOptions {
        durable: false,
        ..ServerOptions::new(&directory)
    };
    let Some(mut owner) = Owner::start("a_leftover_server_is_stopped_by_the_next_start", &place)
    else {
        return own_a_server(|| {
            let directory = std::env::var_os(OWNER).expect("set by the test");
            let options = ServerOptions {
                durable: false,
                ..ServerOptions::new(Path::new(&directory).join("server"))
            };
            PrivatePostgres::start(&server::installation(), options)
        });
    };
    let leftover = owner.server(&place).await;
    let supervisor = Pid::from_raw(procfs::parent(leftover.process).cast_signed());
    kill(supervisor, Signal::SIGKILL).expect("the supervisor runs");
    owner.0.kill().expect("it runs");
    owner.0.wait().expect("it is our child");
    assert!(leftover.is_alive());

    let server = PrivatePostgres::start(&server::installation(), options()).expect("it starts");
    assert!(!leftover.is_alive());
    psql(&server, "postgres", "SELECT 1").await;
}

/// A directory that the account of the server can enter.
fn place() -> TempDir {
    let place = TempDir::new().expect("a temporary directory");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(place.path(), open).expect("it is ours");
    place
}

/// Set in a process that owns a server until it is killed: the folder into which it writes where the server is.
const OWNER: &str = "LANTERN_TEST_OWNER";

/// A second process of this test binary, which runs the same test and takes its other branch.
struct Owner(Child);

impl Owner {
    /// `None` in the second process.
    fn start(test: &str, place: &TempDir) -> Option<Self> {
        if std::env::var_os(OWNER).is_some() {
            return None;
        }
        let process = Command::new(std::env::current_exe().expect("we have a name"))
            .args(["--exact", &format!("embedded::{test}"), "--nocapture"])
            .env(OWNER, place.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("the test binary starts");
        Some(Self(process))
    }

    /// The server, once it runs.
    async fn server(&self, place: &TempDir) -> OwnedServer {
        wait_until("the owner has a server", TIMEOUT, async || {
            let told = fs::read_to_string(place.path().join("told")).unwrap_or_default();
            let (directory, process) = told.trim_end().split_once('\n').ok_or(told.clone())?;
            Ok::<_, String>(OwnedServer {
                directory: directory.to_owned(),
                process: process.parse().expect("a process id"),
            })
        })
        .await
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the second process does: starts a server, writes down where it is, and waits to be killed.
fn own_a_server(start: impl FnOnce() -> Result<PrivatePostgres, EmbeddedError>) {
    let server = start().expect("the server starts");
    let directory = server.data_directory();
    let pid_file = fs::read_to_string(directory.join("data/postmaster.pid")).expect("it runs");
    let process = pid_file.lines().next().expect("the process id");
    let place = std::env::var_os(OWNER).expect("set by the test");
    let told = format!("{}\n{process}\n", directory.display());
    let (written, final_name) = (
        Path::new(&place).join("told.new"),
        Path::new(&place).join("told"),
    );
    fs::write(&written, told).expect("the place is writable");
    fs::rename(written, final_name).expect("the place is writable");
    std::thread::sleep(Duration::from_secs(60));
}

struct OwnedServer {
    directory: String,
    process: u32,
}

impl OwnedServer {
    fn is_alive(&self) -> bool {
        !procfs::command_line(self.process).is_empty()
    }
}
