//! Servers that could be reached, and do not let us replicate: what a person reads about it.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lantern::embedded::PrivatePostgres;

use super::secure_server::{PASSWORD_IN_URL, Scene, SecureServer};
use crate::support::observe::{articles, execute, failure};
use crate::support::{installation, server, start, wait_until};

async fn scene_on(settings: &[(&str, &str)]) -> Scene {
    let server: &'static PrivatePostgres = Box::leak(Box::new(start(&installation(), settings)));
    let (database, client) = articles(server).await;
    Scene {
        server,
        database,
        client,
    }
}

async fn reason_of(scene: &Scene, table: &str, uri: &str, said: &[&str]) {
    let job = scene.job(table, uri).await;
    let reason = failure(&scene.client, job).await;
    for part in said {
        assert!(reason.contains(part), "{part}: {reason}");
    }
}

#[tokio::test]
async fn a_server_that_logs_too_little_is_told_how_to_log_more() {
    let scene = scene_on(&[("wal_level", "replica")]).await;
    let _daemon = scene.daemon();
    reason_of(
        &scene,
        "docs",
        &scene.database.uri(),
        &["ALTER SYSTEM SET wal_level = logical", "restart"],
    )
    .await;
}

#[tokio::test]
async fn exhausted_slots_and_walsenders_are_told_by_name() {
    let scene = scene_on(&[("max_replication_slots", "1")]).await;
    let daemon = scene.daemon();
    let first = scene.job("first", &scene.database.uri()).await;
    scene.streams(first, "first").await;
    reason_of(
        &scene,
        "second",
        &scene.database.uri(),
        &["ALTER SYSTEM SET max_replication_slots = 2", "restart"],
    )
    .await;
    drop(daemon);

    let scene = scene_on(&[("max_wal_senders", "1")]).await;
    let mut daemon = scene.daemon();
    let first = scene.job("first", &scene.database.uri()).await;
    scene.streams(first, "first").await;
    // It may pass: another job may end. So the second one goes on trying, and says what would help.
    let second = scene.job("second", &scene.database.uri()).await;
    let line = daemon
        .wait_for_line("raise max_wal_senders", Duration::from_secs(60))
        .await;
    assert!(line.contains("53300"), "{line}");
    execute(
        &scene.client,
        &format!("UPDATE jobs SET canceled_at = true WHERE id = {first}"),
    )
    .await;
    scene.streams(second, "second").await;
    daemon.sigterm_and_wait().await;
}

#[tokio::test]
async fn a_role_that_may_not_replicate_is_told_the_statement() {
    let (database, client) = articles(server()).await;
    let scene = Scene {
        server: server(),
        database,
        client,
    };
    let role = format!("reader_{}", scene.database.name());
    let create = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT ALL ON DATABASE {} TO {role}",
        scene.database.name()
    );
    execute(&scene.client, &create).await;
    let _daemon = scene.daemon();
    let uri = scene.uri(&format!("{role}:pw"), "127.0.0.1", "");
    let said = [format!("ALTER ROLE \"{role}\" REPLICATION")];
    reason_of(&scene, "docs", &uri, &said.each_ref().map(String::as_str)).await;
}

#[tokio::test]
async fn a_rule_that_keeps_us_out_is_told_with_where_to_change_it() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let scene = secure.scene().await;
    let _daemon = scene.daemon();
    let uri = scene.uri("secured", "localhost", "sslmode=disable");
    reason_of(
        &scene,
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
            println!("passed over: no PgBouncer");
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
async fn a_pooler_is_recognised() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let scene = secure.scene().await;
    let Some(pooler) = Pooler::start(scene.server).await else {
        return;
    };
    let _daemon = scene.daemon();
    let direct = scene.uri(
        &format!("clear:{PASSWORD_IN_URL}"),
        "127.0.0.1",
        "sslmode=disable",
    );
    let through = direct.replace(
        &format!(":{}/", secure.port()),
        &format!(":{}/", pooler.port),
    );
    reason_of(
        &scene,
        "docs",
        &through,
        &["PgBouncer", "name the server itself in db_connection"],
    )
    .await;
}
