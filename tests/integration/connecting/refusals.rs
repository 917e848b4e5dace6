//! Servers that accept connections but do not allow replication, and the reasons that the job gets.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lantern::embedded::PrivatePostgres;
use testkit::client::{execute, wait_for_value};
use testkit::wait::wait_until;
use testkit::{server, skip};

use super::secure_server::{JobsDatabase, PASSWORD_IN_URL, SecureServer};

async fn jobs_database_on(settings: &[(&str, &str)]) -> JobsDatabase {
    let server = server::start_with_room(&server::installation(), settings);
    JobsDatabase::create(Box::leak(Box::new(server))).await
}

#[tokio::test]
async fn a_wal_level_that_is_too_low_is_rejected_with_the_remedy() {
    let target = jobs_database_on(&[("wal_level", "replica")]).await;
    let _daemon = target.start_daemon();
    target
        .assert_failure(
            "docs",
            &target.database.uri(),
            &["ALTER SYSTEM SET wal_level = logical", "restart"],
        )
        .await;
}

/// Where every name counts as a standby, commits would wait for vectors.
#[tokio::test]
async fn a_server_that_counts_every_reader_as_a_synchronous_standby_is_refused() {
    let settings = [
        ("synchronous_standby_names", "FIRST 1 (*)"),
        // The test's own commits do not wait.
        ("synchronous_commit", "local"),
    ];
    let target = jobs_database_on(&settings).await;
    let _daemon = target.start_daemon();
    target
        .assert_failure(
            "docs",
            &target.database.uri(),
            &[
                "synchronous_standby_names = 'FIRST 1 (*)'",
                "commits would wait for vectors",
                "name the standbys",
            ],
        )
        .await;
}

/// As some tools do for a while that hold commits up until a standby is there. The daemon must not stand in for it.
#[tokio::test]
async fn a_job_waits_while_every_reader_counts_as_a_synchronous_standby() {
    let target = jobs_database_on(&[("synchronous_commit", "local")]).await;
    let daemon = target.start_daemon();
    let job = target.job("docs", &target.database.uri()).await;
    target.wait_for_stream(job, "docs").await;
    let set = "ALTER SYSTEM SET synchronous_standby_names = '*'";
    execute(&target.client, set).await;
    execute(&target.client, "SELECT pg_reload_conf()").await;
    let line = daemon
        .wait_for_line("as a synchronous standby", Duration::from_secs(60))
        .await;
    assert!(line.contains("because of *"), "{line}");
    let readers = "SELECT count(*) FROM pg_stat_replication";
    wait_for_value(&target.client, readers, 0_i64).await;
    execute(
        &target.client,
        "INSERT INTO docs VALUES (3, 'a third text')",
    )
    .await;

    let reset = "ALTER SYSTEM RESET synchronous_standby_names";
    execute(&target.client, reset).await;
    execute(&target.client, "SELECT pg_reload_conf()").await;
    let missing = "SELECT count(*) FROM docs WHERE v IS NULL";
    wait_for_value(&target.client, missing, 0_i64).await;
    let failed = "SELECT count(*) FROM jobs WHERE init_failed_at IS NOT NULL";
    wait_for_value(&target.client, failed, 0_i64).await;
}

#[tokio::test]
async fn exhausted_slots_and_walsenders_are_reported_with_the_setting() {
    let target = jobs_database_on(&[("max_replication_slots", "1")]).await;
    let daemon = target.start_daemon();
    let first = target.job("first", &target.database.uri()).await;
    target.wait_for_stream(first, "first").await;
    target
        .assert_failure(
            "second",
            &target.database.uri(),
            &["ALTER SYSTEM SET max_replication_slots = 2", "restart"],
        )
        .await;
    drop(daemon);

    let target = jobs_database_on(&[("max_wal_senders", "1")]).await;
    let mut daemon = target.start_daemon();
    let first = target.job("first", &target.database.uri()).await;
    target.wait_for_stream(first, "first").await;
    // This is transient, because another job may end. So the second job retries, and logs the remedy.
    let second = target.job("second", &target.database.uri()).await;
    let line = daemon
        .wait_for_line("raise max_wal_senders", Duration::from_secs(60))
        .await;
    assert!(line.contains("53300"), "{line}");
    execute(
        &target.client,
        &format!("UPDATE jobs SET canceled_at = true WHERE id = {first}"),
    )
    .await;
    target.wait_for_stream(second, "second").await;
    daemon.terminate().await;
}

#[tokio::test]
async fn a_role_without_replication_gets_the_statement_that_grants_it() {
    let target = JobsDatabase::create(server::shared()).await;
    let role = format!("reader_{}", target.database.name());
    let create = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT ALL ON DATABASE {} TO {role}",
        target.database.name()
    );
    execute(&target.client, &create).await;
    let _daemon = target.start_daemon();
    let uri = target.uri(&format!("{role}:pw"), "127.0.0.1", "");
    let said = [format!("ALTER ROLE \"{role}\" REPLICATION")];
    target
        .assert_failure("docs", &uri, &said.each_ref().map(String::as_str))
        .await;
}

#[tokio::test]
async fn a_pg_hba_rule_that_rejects_us_is_named_with_the_place_to_change_it() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let _daemon = target.start_daemon();
    let uri = target.uri("secured", "localhost", "sslmode=disable");
    target
        .assert_failure(
            "docs",
            &uri,
            &["pg_hba.conf", "no encryption", "pg_reload_conf()"],
        )
        .await;
}

/// PgBouncer in front of a server, where it is installed. Ends with this value.
struct Pooler {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Pooler {
    async fn start(server: &PrivatePostgres) -> Option<Pooler> {
        let program = Path::new("/usr/sbin/pgbouncer");
        if !program.exists() {
            skip::missing("no PgBouncer in /usr/sbin", "apt-get install pgbouncer");
            return None;
        }
        let owner = fs::metadata(server.data_directory().join("data")).expect("the data directory");
        let folder = tempfile::tempdir().expect("a folder");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             auth_type = any\nauth_file =\nunix_socket_dir =\nignore_startup_parameters = extra_float_digits\n",
            server.port()
        );
        let configuration = configuration.replace(
            "* = host",
            &format!("* = user=clear password={} host", "'sw0rd fish:\\%'"),
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, configuration).expect("a file");
        for path in [folder.path(), &file] {
            chown(path, Some(owner.uid()), Some(owner.gid())).expect("the pooler's own");
        }
        let process = Command::new(program)
            .arg(&file)
            .uid(owner.uid())
            .gid(owner.gid())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("PgBouncer starts");
        wait_until("PgBouncer listens", Duration::from_secs(10), async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await
        })
        .await;
        Some(Pooler {
            process,
            port,
            _folder: folder,
        })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_pooler_is_recognized() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let Some(pooler) = Pooler::start(target.server).await else {
        return;
    };
    let _daemon = target.start_daemon();
    let direct = target.uri(
        &format!("clear:{PASSWORD_IN_URL}"),
        "127.0.0.1",
        "sslmode=disable",
    );
    let through = direct.replace(
        &format!(":{}/", secure.port()),
        &format!(":{}/", pooler.port),
    );
    target
        .assert_failure(
            "docs",
            &through,
            &["PgBouncer", "name the server itself in db_connection"],
        )
        .await;
}
