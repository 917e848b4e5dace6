//! Several servers in one connection string, with a real standby among them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lantern::embedded::{PrivatePostgres, ServerOptions};
use tempfile::TempDir;
use testkit::client::{connect, execute, value, wait_for_value};
use testkit::engine::MODEL;
use testkit::jobs::{create_documented_table, wait_for_failure};
use testkit::server;
use testkit::server::client_program;
use testkit::wait::wait_until;

use super::secure_server::JobsDatabase;
use crate::support::program;

/// A standby of `primary`. The folder goes when the test ends.
fn standby(primary: &PrivatePostgres) -> (PrivatePostgres, TempDir) {
    let root = tempfile::Builder::new()
        .prefix("lantern-")
        .tempdir()
        .expect("a folder");
    let owner = fs::metadata(primary.data_directory().join("data")).expect("the data directory");
    let give = |path: &Path| chown(path, Some(owner.uid()), Some(owner.gid())).expect("it is ours");
    let password = root.path().join("password");
    fs::write(&password, primary.password()).expect("a file");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).expect("permissions");
    let data = root.path().join("data");
    let copied = Command::new(client_program(primary, "pg_basebackup"))
        .args([
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
            "--pgdata",
        ])
        .arg(&data)
        .arg("--dbname")
        .arg(primary.uri("postgres"))
        .output()
        .expect("pg_basebackup starts");
    let errors = String::from_utf8_lossy(&copied.stderr);
    assert!(copied.status.success(), "{errors}");
    give(root.path());
    give(&password);
    give_all(&data, &give);
    let mut options = ServerOptions::new(root.path());
    options.durable = false;
    // What a newer pg_basebackup writes there, an older server need not understand.
    let primary_conninfo = format!(
        "host=127.0.0.1 port={} user=postgres password={}",
        primary.port(),
        primary.password()
    );
    options.settings = vec![
        ("primary_conninfo".to_owned(), primary_conninfo),
        ("max_connections".to_owned(), "400".to_owned()),
        ("max_replication_slots".to_owned(), "200".to_owned()),
        ("max_wal_senders".to_owned(), "200".to_owned()),
    ];
    let standby = PrivatePostgres::start(&server::installation(), options).expect("a standby");
    (standby, root)
}

fn give_all(path: &Path, give: &impl Fn(&Path)) {
    give(path);
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            give_all(&entry.expect("an entry").path(), give);
        }
    }
}

#[tokio::test]
async fn the_wanted_server_is_found_and_every_connection_goes_there() {
    let primary: &'static PrivatePostgres = Box::leak(Box::new(server::start_with_room(
        &server::installation(),
        &[],
    )));
    let target = JobsDatabase::create(primary).await;
    let (standby, _folder) = standby(primary);
    let name = target.database.name().to_owned();
    let password = primary.password();
    let hosts = |options: &str| {
        let (first, second) = (standby.port(), primary.port());
        // A port without a listener, the standby, the primary.
        format!(
            "postgresql://postgres:{password}@localhost:1,127.0.0.1:{first},localhost:{second}/{name}?{options}"
        )
    };
    let wanted = ["read-write", "primary"];
    let mut jobs = Vec::new();
    for attributes in wanted {
        let table = format!("at_{}", attributes.replace('-', "_"));
        let uri = hosts(&format!(
            "target_session_attrs={attributes}&application_name={table}"
        ));
        jobs.push((target.job(&table, &uri).await, table));
    }
    let mut on_standby = Vec::new();
    for attributes in ["any", "standby", "read-only", "prefer-standby"] {
        let uri = hosts(&format!("target_session_attrs={attributes}"));
        on_standby.push(
            target
                .job(&format!("on_{}", attributes.replace('-', "_")), &uri)
                .await,
        );
    }
    // The only standby is not there: the second round takes what there is.
    let second_round = format!(
        "host=localhost,localhost port=1,{} user=postgres password={password} dbname={name} target_session_attrs=prefer-standby",
        primary.port()
    );
    let second_round = target.job("second_round", &second_round).await;
    let uri = hosts("target_session_attrs=read-write");
    let _daemon = program().start_daemon(&["--uri", &uri, "--table", "jobs"]);

    for (job, table) in jobs {
        target.wait_for_stream(job, &table).await;
        let connections = format!(
            "SELECT count(*) FILTER (WHERE backend_type = 'walsender') > 0 AND \
                    count(*) FILTER (WHERE backend_type = 'client backend') > 0 \
             FROM pg_stat_activity WHERE application_name = '{table}'"
        );
        assert!(value::<bool>(&target.client, &connections).await);
    }
    target.wait_for_stream(second_round, "second_round").await;
    for job in on_standby {
        let reason = wait_for_failure(&target.client, job).await;
        assert!(
            reason.contains("standby") && reason.contains("target_session_attrs"),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn after_a_failover_the_job_continues_on_the_new_primary() {
    let primary = server::start_with_room(&server::installation(), &[]);
    let client = connect(&primary.uri("postgres")).await;
    create_documented_table(&client).await;
    let (standby, _folder) = standby(&primary);
    let password = primary.password();
    let hosts = format!(
        "postgresql://postgres:{password}@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        primary.port(),
        standby.port()
    );
    client
        .batch_execute(&format!(
            "CREATE TABLE docs (id INT PRIMARY KEY, t TEXT); INSERT INTO docs VALUES (1, 'before');
             INSERT INTO jobs (db_connection, \"table\", src_column, dst_column, embedding_model)
             VALUES ('{hosts}', 'docs', 't', 'v', '{MODEL}')"
        ))
        .await
        .expect("a job");
    let _daemon = program().start_daemon(&["--uri", &hosts, "--table", "jobs"]);
    wait_for_value(
        &client,
        "SELECT count(*) FROM jobs WHERE init_finished_at IS NOT NULL",
        1_i64,
    )
    .await;
    let (follower, connection) =
        tokio_postgres::connect(&standby.uri("postgres"), tokio_postgres::NoTls)
            .await
            .expect("a session");
    tokio::spawn(connection);
    wait_for_value(
        &follower,
        "SELECT count(*) FROM jobs WHERE init_finished_at IS NOT NULL",
        1_i64,
    )
    .await;

    primary.stop().expect("the primary stops");
    let promoted: bool = value(&follower, "SELECT pg_promote(true, 60)").await;
    assert!(promoted);
    execute(&follower, "INSERT INTO docs VALUES (2, 'after')").await;
    wait_until(
        "the row has its vector",
        Duration::from_secs(60),
        async || {
            let missing: i64 = value(&follower, "SELECT count(*) FROM docs WHERE v IS NULL").await;
            if missing == 0 { Ok(()) } else { Err(missing) }
        },
    )
    .await;
}
