//! The private PostgreSQL: what it offers, and that it leaves neither a process nor files behind.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lantern::embedded::{EmbeddedError, PrivatePostgres, ServerOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::{TestDatabase, installation, program_of, server, wait_until};

const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_server_uses_utf8_and_allows_logical_replication() {
    let database = TestDatabase::create(server()).await;
    let version = database.psql("SHOW server_version_num").await;
    assert!(version.starts_with(&server().version().to_string()));
    assert_eq!(database.psql("SHOW wal_level").await, "logical\n");
    assert_eq!(database.psql("SHOW server_encoding").await, "UTF8\n");
}

#[tokio::test]
async fn the_server_that_make_setup_fetches_has_pgvector() {
    if std::env::var_os("LANTERN_TEST_PG_BINDIR").is_some() {
        println!("skipped: LANTERN_TEST_PG_BINDIR names another server");
        return;
    }
    let database = TestDatabase::with_vector(server()).await;
    let distance = database.psql("SELECT '[3,0]'::vector <-> '[0,4]'").await;
    assert_eq!(distance, "5\n");
}

#[tokio::test]
async fn a_wrong_password_is_rejected() {
    let uri = server().uri("postgres");
    let guessed = uri.replace(server().password(), "postgres");
    let refused = tokio_postgres::connect(&guessed, tokio_postgres::NoTls).await;
    let error = refused.err().expect("the password is wrong");
    assert_eq!(
        error.code(),
        Some(&tokio_postgres::error::SqlState::INVALID_PASSWORD)
    );
}

#[test]
fn a_restarted_server_keeps_its_data_its_password_and_its_port() {
    let place = place();
    let options = || ServerOptions {
        durable: false,
        ..ServerOptions::new(place.path().join("server"))
    };
    let first = PrivatePostgres::start(&installation(), options()).expect("it starts");
    let uri = first.uri("postgres");
    psql(&first, "CREATE TABLE kept (n int)");
    first.stop().expect("it stops");

    let second = PrivatePostgres::start(&installation(), options()).expect("it starts again");
    assert_eq!(second.uri("postgres"), uri);
    psql(&second, "SELECT n FROM kept");
}

#[test]
fn a_directory_in_use_is_rejected_with_the_id_of_its_owner() {
    let error = PrivatePostgres::start(
        &installation(),
        ServerOptions::new(server().data_directory()),
    )
    .expect_err("the tests' own server runs there");
    assert!(matches!(error, EmbeddedError::InUse { .. }));
    let owner = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&owner), "{error}");
}

#[test]
fn the_error_message_quotes_the_log_of_the_server() {
    let wrong = vec![("max_connections".to_owned(), "many".to_owned())];
    let error = PrivatePostgres::start_temporary(&installation(), wrong)
        .expect_err("the setting is invalid");
    let message = error.to_string();
    assert!(
        message.contains("invalid value for parameter \"max_connections\""),
        "{message}"
    );
}

#[test]
fn a_port_in_use_is_rejected_by_its_number() {
    let place = place();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let options = ServerOptions {
        port: Some(port),
        durable: false,
        ..ServerOptions::new(place.path().join("server"))
    };
    let error = PrivatePostgres::start(&installation(), options).expect_err("it is taken");
    assert!(matches!(error, EmbeddedError::PortTaken { port: named } if named == port));
}

/// A temporary server must leave no files either.
#[tokio::test]
async fn a_server_does_not_outlive_an_owner_that_was_killed() {
    let place = place();
    let Some(mut owner) =
        Owner::start("a_server_does_not_outlive_an_owner_that_was_killed", &place)
    else {
        return own_a_server(|| PrivatePostgres::start_temporary(&installation(), Vec::new()));
    };
    let server = owner.server(&place).await;
    assert!(Path::new(&server.directory).exists());
    owner.0.kill().expect("it runs");

    wait_until("the server and its files are gone", TIMEOUT, async || {
        let leftovers = (server.is_alive(), Path::new(&server.directory).exists());
        (leftovers == (false, false)).then_some(()).ok_or(leftovers)
    })
    .await;
}

/// As after the out-of-memory killer: even the script that should have stopped the server was killed.
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
            PrivatePostgres::start(&installation(), options)
        });
    };
    let leftover = owner.server(&place).await;
    kill(leftover.parent(), Signal::SIGKILL).expect("the script runs");
    owner.0.kill().expect("it runs");
    owner.0.wait().expect("it is our child");
    assert!(leftover.is_alive());

    let server = PrivatePostgres::start(&installation(), options()).expect("it starts");
    assert!(!leftover.is_alive());
    psql(&server, "SELECT 1");
}

/// A temporary directory that the account of the server can enter.
fn place() -> TempDir {
    let place = TempDir::new().expect("a temporary directory");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(place.path(), open).expect("it is ours");
    place
}

fn psql(server: &PrivatePostgres, sql: &str) {
    let status = Command::new(program_of(server, "psql"))
        .args(["--no-psqlrc", "--quiet", "--command", sql])
        .arg(server.uri("postgres"))
        .stdout(Stdio::null())
        .status()
        .expect("psql starts");
    assert!(status.success());
}

/// The environment variable of a process that owns a server until it is killed. Its value is the directory in which the
/// process describes the server.
const OWNER: &str = "LANTERN_TEST_OWNER";

/// A second process of this test binary, which runs the same test and takes its other branch.
struct Owner(Child);

impl Owner {
    /// `None` in the second process.
    fn start(test: &str, place: &TempDir) -> Option<Self> {
        if std::env::var_os(OWNER).is_some() {
            return None;
        }
        let process = Command::new(std::env::current_exe().expect("it has a path"))
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
            let description =
                fs::read_to_string(place.path().join("server.txt")).unwrap_or_default();
            let (directory, process) = description
                .trim_end()
                .split_once('\n')
                .ok_or(description.clone())?;
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

/// The part of the second process: starts a server, describes it in a file, and waits to be killed.
fn own_a_server(start: impl FnOnce() -> Result<PrivatePostgres, EmbeddedError>) {
    let server = start().expect("the server starts");
    let directory = server.data_directory();
    let pid_file = fs::read_to_string(directory.join("data/postmaster.pid")).expect("it runs");
    let process = pid_file.lines().next().expect("the process id");
    let place = std::env::var_os(OWNER).expect("set by the test");
    let description = format!("{}\n{process}\n", directory.display());
    let (written, final_name) = (
        Path::new(&place).join("server.txt.new"),
        Path::new(&place).join("server.txt"),
    );
    fs::write(&written, description).expect("the place is writable");
    fs::rename(written, final_name).expect("the place is writable");
    std::thread::sleep(Duration::from_secs(60));
}

struct OwnedServer {
    directory: String,
    process: i32,
}

impl OwnedServer {
    fn is_alive(&self) -> bool {
        // The command line of a zombie, whose parent has not waited for it yet, is empty (proc(5)).
        fs::read(format!("/proc/{}/cmdline", self.process)).is_ok_and(|line| !line.is_empty())
    }

    fn parent(&self) -> Pid {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process)).expect("it runs");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        Pid::from_raw(parent.expect("a line").trim().parse().expect("a number"))
    }
}
