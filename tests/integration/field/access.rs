//! The target server does not let the daemon in any more: for an hour of maintenance, or until the row has the new
//! password. Hazard 44.

use testkit::client::{connect, execute, wait_for_value};
use testkit::database::drop_database;
use testkit::jobs::{Job, create_documented_table, insert_job, wait_for_backfill};
use testkit::restartable::Stop;
use testkit::scene::{CAVES, DESERT, MOON, NOTES, TIDES};
use testkit::wait::{TIMEOUT, wait_until};
use testkit::{RestartableServer, Scene, TestDatabase, server};

use crate::support::{LOCKS, program, scene_with};

/// A job that logs in to its target as a role of its own.
struct Guest {
    scene: Scene,
    role: String,
}

impl Guest {
    /// With the password `pw1`, and a row that has embedded two notes.
    async fn new() -> Guest {
        let mut guest = Guest::waiting().await;
        guest.scene.write(&[TIDES, MOON]).await;
        guest.scene.start_daemon().await;
        guest.scene.wait_for_vectors("notes", "body").await;
        guest
    }

    /// The same, before the first start of a daemon.
    async fn waiting() -> Guest {
        let scene = scene_with(NOTES).await;
        let role = format!("guest_{}", scene.database.name());
        let database = scene.database.name();
        scene
            .sql(&format!(
                "CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'pw1'; GRANT ALL ON DATABASE {database} TO {role}; \
                 ALTER TABLE notes OWNER TO {role}; ALTER TABLE jobs ADD last_error TEXT, ADD last_error_at TIMESTAMP"
            ))
            .await;
        let guest = Guest { scene, role };
        let job = Job {
            db_connection: guest.uri("pw1"),
            ..Job::on(&guest.scene.database, "notes", "body", "embedding")
        };
        insert_job(&guest.scene.client, job).await;
        guest
    }

    fn uri(&self, password: &str) -> String {
        let uri = self.scene.database.uri();
        let (_, place) = uri.split_once('@').expect("a URI with a password");
        format!("postgresql://{}:{password}@{place}", self.role)
    }

    /// Changes who may log in, and ends the sessions of the role.
    async fn shut(&self, statement: &str) {
        self.scene.sql(statement).await;
        self.cut().await;
    }

    async fn cut(&self) {
        let role = &self.role;
        let cut = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'"
        );
        self.scene.value(&cut).await;
    }

    async fn wait_for_last_error(&self, part: &str) {
        let query = format!(
            "SELECT COALESCE(last_error LIKE '%{part}%' AND last_error_at IS NOT NULL, false) AND init_failed_at IS \
            NULL FROM jobs"
        );
        self.scene.wait_for(&query, "true").await;
    }

    async fn runs_again(&self) {
        self.scene.wait_for_vectors("notes", "body").await;
        let query = "SELECT last_error IS NULL AND last_error_at IS NULL AND init_failed_at IS NULL FROM jobs";
        self.scene.wait_for(query, "true").await;
    }
}

/// debezium/dbz#2139, debezium PR #2938 and #7762, PostHog/posthog PR #94596.
#[tokio::test]
async fn a_job_waits_until_the_server_lets_it_in_again_and_embeds_nothing_twice() {
    let mut guest = Guest::new().await;
    let administrator = connect(&server::shared().uri("postgres")).await;
    let (role, database) = (guest.role.clone(), guest.scene.database.name().to_owned());
    for (shut, open, said) in [
        (
            format!("ALTER ROLE {role} PASSWORD 'pw2'"),
            format!("ALTER ROLE {role} PASSWORD 'pw1'"),
            "VALID UNTIL",
        ),
        (
            format!("ALTER ROLE {role} VALID UNTIL '2020-01-01'"),
            format!("ALTER ROLE {role} VALID UNTIL 'infinity'"),
            "28P01",
        ),
        (
            format!("ALTER ROLE {role} NOLOGIN"),
            format!("ALTER ROLE {role} LOGIN"),
            "ALTER ROLE \"guest%\" LOGIN;",
        ),
        (
            format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false"),
            format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true"),
            "ALLOW_CONNECTIONS true;",
        ),
        (
            format!("ALTER DATABASE {database} CONNECTION LIMIT 0"),
            format!("ALTER DATABASE {database} CONNECTION LIMIT -1"),
            "53300",
        ),
        (
            format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC, {role}"),
            format!("GRANT CONNECT ON DATABASE {database} TO {role}"),
            "GRANT CONNECT ON DATABASE",
        ),
        (
            format!("ALTER ROLE {role} NOREPLICATION"),
            format!("ALTER ROLE {role} REPLICATION"),
            "ALTER ROLE \"guest%\" REPLICATION",
        ),
    ] {
        let versions = guest.scene.row_versions().await;
        // From another database: this one is among those that are shut.
        execute(&administrator, &shut).await;
        guest.cut().await;
        guest.wait_for_last_error(said).await;
        guest.scene.put(9, DESERT).await;
        guest
            .scene
            .sql("UPDATE notes SET id = id + 100 WHERE id = 9")
            .await;
        execute(&administrator, &open).await;
        guest.runs_again().await;
        guest.scene.caught_up().await;
        let now = guest.scene.row_versions().await;
        assert!(now.starts_with(&versions), "{shut}: {versions} and {now}");
        guest.scene.sql("DELETE FROM notes WHERE id > 100").await;
    }
    let log = guest.scene.daemon().log();
    let said = |part: &str| log.matches(part).count();
    assert_eq!(said("is not permitted to log in"), 1, "{log}");
    assert!(said("max_slot_wal_keep_size") >= 5, "{log}");
    assert!(said("the job runs again") >= 5, "{log}");
}

/// The new password goes into the row, and the job goes on from its slot at once.
#[tokio::test]
async fn a_rotated_password_in_the_row_is_used_at_once() {
    let guest = Guest::new().await;
    let versions = guest.scene.row_versions().await;
    guest
        .shut(&format!("ALTER ROLE {} PASSWORD 'pw2'", guest.role))
        .await;
    guest.wait_for_last_error("28P01").await;
    guest.scene.put(3, CAVES).await;
    let update = format!("UPDATE jobs SET db_connection = '{}'", guest.uri("pw2"));
    guest.scene.sql(&update).await;
    guest.runs_again().await;
    assert!(guest.scene.row_versions().await.starts_with(&versions));
}

/// Most likely the row is wrong.
#[tokio::test]
async fn a_job_that_never_ran_fails_at_once_and_has_nothing_to_clean_up() {
    let mut guest = Guest::waiting().await;
    let wrong = format!("UPDATE jobs SET db_connection = '{}'", guest.uri("pw0"));
    guest.scene.sql(&wrong).await;
    let misspelt = Job {
        db_connection: "postgresql://a:b@no-such-host.invalid/d".into(),
        ..Job::on(&guest.scene.database, "notes", "body", "other")
    };
    let misspelt = insert_job(&guest.scene.client, misspelt).await;
    let hosts = "127.0.0.1,localhost,no-such-host.invalid";
    guest.scene.spawn_daemon_with(&["--allow-host", hosts]);
    let waits =
        format!("SELECT last_error LIKE '%cannot be resolved%' FROM jobs WHERE id = {misspelt}");
    guest.scene.wait_for(&waits, "true").await;
    let failed = format!(
        "SELECT count(*) FROM jobs WHERE id <> {misspelt} AND init_failed_at IS NOT NULL AND init_failure_reason LIKE \
        '%28P01%'"
    );
    guest.scene.wait_for(&failed, "1").await;
    guest.scene.sql("UPDATE jobs SET canceled_at = true").await;
    guest.scene.wait_for(LOCKS, "0").await;
    guest.scene.stop_daemon().await;
    guest.scene.spawn_daemon_with(&["--allow-host", hosts]);
    guest.scene.wait_for(LOCKS, "0").await;
    let line = "watching";
    guest.scene.daemon().wait_for_line(line, TIMEOUT).await;
    guest.scene.sql("DELETE FROM jobs").await;
    guest.scene.wait_for(LOCKS, "0").await;
    let log = guest.scene.daemon().log();
    assert!(!log.contains("clean"), "{log}");
    assert!(!log.contains("left behind"), "{log}");
}

/// What a canceled job has left is removed when the server lets the daemon in again: nothing of it retains WAL.
#[tokio::test]
async fn what_a_canceled_job_left_is_removed_once_the_server_lets_the_daemon_in() {
    let mut guest = Guest::new().await;
    guest
        .shut(&format!("ALTER ROLE {} NOLOGIN", guest.role))
        .await;
    guest.wait_for_last_error("28000").await;
    guest.scene.sql("UPDATE jobs SET canceled_at = true").await;
    let line = "cannot clean up yet, trying again";
    let line = guest.scene.daemon().wait_for_line(line, TIMEOUT).await;
    assert!(line.contains("may be left behind"), "{line}");
    guest
        .scene
        .sql(&format!("ALTER ROLE {} LOGIN", guest.role))
        .await;
    guest.scene.wait_for_cleanup().await;
    guest.scene.wait_for(LOCKS, "0").await;
    let log = guest.scene.daemon().log();
    assert_eq!(log.matches("cannot clean up yet").count(), 1, "{log}");
}

/// The same, after the password has changed for good: that of the row, which is corrected later, is used.
#[tokio::test]
async fn a_canceled_job_is_cleaned_up_with_the_password_that_its_row_gets_later() {
    let mut guest = Guest::new().await;
    guest
        .shut(&format!("ALTER ROLE {} PASSWORD 'pw2'", guest.role))
        .await;
    guest.scene.sql("UPDATE jobs SET canceled_at = true").await;
    let line = "cannot clean up yet, trying again";
    guest.scene.daemon().wait_for_line(line, TIMEOUT).await;
    let update = format!("UPDATE jobs SET db_connection = '{}'", guest.uri("pw2"));
    guest.scene.sql(&update).await;
    guest.scene.wait_for_cleanup().await;
}

/// A job that is resumed before it could be cleaned up goes on where it was.
#[tokio::test]
async fn a_job_that_is_resumed_before_it_was_cleaned_up_embeds_nothing_twice() {
    let mut guest = Guest::new().await;
    let versions = guest.scene.row_versions().await;
    guest
        .shut(&format!("ALTER ROLE {} NOLOGIN", guest.role))
        .await;
    guest.scene.sql("UPDATE jobs SET canceled_at = true").await;
    let line = "cannot clean up yet, trying again";
    guest.scene.daemon().wait_for_line(line, TIMEOUT).await;
    guest.scene.put(3, CAVES).await;
    guest.scene.sql("UPDATE jobs SET canceled_at = NULL").await;
    let daemon = guest.scene.daemon();
    wait_until("the job starts again", TIMEOUT, async || {
        let log = daemon.log();
        if log.matches(": starting ").count() == 2 {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    guest
        .scene
        .sql(&format!("ALTER ROLE {} LOGIN", guest.role))
        .await;
    guest.runs_again().await;
    assert!(guest.scene.row_versions().await.starts_with(&versions));
}

/// A database beside that of the jobs table, with a job on its table `notes`.
async fn target_beside(scene: &mut Scene) -> TestDatabase {
    target_beside_with(scene, &[]).await
}

/// The same, of a daemon with these arguments.
async fn target_beside_with(scene: &mut Scene, arguments: &[&str]) -> TestDatabase {
    let target = TestDatabase::with_vector(server::shared()).await;
    let client = target.client().await;
    let table = target.adapted(NOTES);
    execute(
        &client,
        &format!("{table}; INSERT INTO notes VALUES (1, 'a note')"),
    )
    .await;
    insert_job(
        &scene.client,
        Job::on(&target, "notes", "body", "embedding"),
    )
    .await;
    scene.sql("ALTER TABLE jobs ADD last_error TEXT").await;
    scene.spawn_daemon_with(arguments);
    scene
        .wait_for(
            "SELECT count(*) FROM jobs WHERE init_finished_at IS NOT NULL",
            "1",
        )
        .await;
    target
}

fn slots_of(database: &str) -> String {
    format!(
        "SELECT count(*) FROM pg_replication_slots WHERE database IN ('{database}', '{database}_renamed')"
    )
}

/// Databases are renamed by way of one that accepts no connections.
const LEAVE: &str =
    "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = ";

#[tokio::test]
async fn a_database_can_be_renamed_under_its_job_and_back() {
    let mut scene = scene_with(NOTES).await;
    let target = target_beside(&mut scene).await;
    let name = target.name().to_owned();
    let rename = async |scene: &Scene, from: &str, to: &str| {
        scene
            .sql(&format!("ALTER DATABASE {from} ALLOW_CONNECTIONS false"))
            .await;
        scene.value(&format!("{LEAVE} '{from}'")).await;
        scene
            .sql(&format!(
                "ALTER DATABASE {from} RENAME TO {to}; ALTER DATABASE {to} ALLOW_CONNECTIONS true"
            ))
            .await;
    };
    let other = format!("{name}_renamed");
    rename(&scene, &name, &other).await;
    let waits = "SELECT last_error LIKE '%3D000%' AND init_failed_at IS NULL FROM jobs";
    scene.wait_for(waits, "true").await;
    rename(&scene, &other, &name).await;
    let runs = format!("SELECT active FROM pg_replication_slots WHERE database = '{name}'");
    scene.wait_for(&runs, "true").await;

    // Canceled while it has the other name: the slot is found there.
    rename(&scene, &name, &other).await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for(&slots_of(&name), "0").await;
    scene.wait_for(LOCKS, "0").await;
    rename(&scene, &other, &name).await;
}

/// What needs the database for itself waits 5 s. The daemon leaves within that time, and comes back by itself.
#[tokio::test]
async fn a_database_can_be_renamed_and_copied_beside_the_daemon() {
    for arguments in [&[][..], &["--slots", "database"]] {
        let mut scene = scene_with(NOTES).await;
        let target = target_beside_with(&mut scene, arguments).await;
        let name = target.name();
        let administrator = connect(&server::shared().uri("postgres")).await;
        let copy = format!("{name}_copy");
        execute(
            &administrator,
            &format!("CREATE DATABASE {copy} TEMPLATE {name}"),
        )
        .await;
        drop_database(&administrator, &copy).await;
        let other = format!("{name}_renamed");
        let back = format!("ALTER DATABASE {other} RENAME TO {name}");
        execute(
            &administrator,
            &format!("ALTER DATABASE {name} RENAME TO {other}"),
        )
        .await;
        let waits = "SELECT last_error LIKE '%3D000%' AND init_failed_at IS NULL FROM jobs";
        scene.wait_for(waits, "true").await;
        execute(&administrator, &back).await;
        let client = target.client().await;
        execute(
            &client,
            "INSERT INTO notes VALUES (9, 'written afterwards')",
        )
        .await;
        let written = "SELECT count(embedding)::int FROM notes WHERE id = 9";
        wait_for_value(&client, written, 1).await;
        let log = scene.daemon().log();
        assert!(log.contains("needs it for itself"), "{log}");
        assert!(!log.contains("embedded again"), "{log}");
    }
}

/// The same with the jobs table in it, and the session of the daemon.
#[tokio::test]
async fn a_jobs_database_can_be_copied_beside_the_daemon() {
    let database = TestDatabase::with_vector(server::shared()).await;
    let client = database.client().await;
    create_documented_table(&client).await;
    execute(&client, &database.adapted(NOTES)).await;
    let job = insert_job(&client, Job::on(&database, "notes", "body", "embedding")).await;
    let daemon = program().start_daemon(&["--uri", &database.uri()]);
    wait_for_backfill(&client, job).await;
    drop(client);
    let administrator = connect(&server::shared().uri("postgres")).await;
    let copy = format!("{}_copy", database.name());
    let create = format!("CREATE DATABASE {copy} TEMPLATE {}", database.name());
    execute(&administrator, &create).await;
    drop_database(&administrator, &copy).await;
    let client = database.client().await;
    execute(
        &client,
        "INSERT INTO notes VALUES (9, 'written afterwards')",
    )
    .await;
    let written = "SELECT count(embedding) FROM notes";
    wait_for_value(&client, written, 1_i64).await;
    let log = daemon.log();
    assert!(log.contains("coming back as soon as"), "{log}");
}

/// A database that is closed for its end is left: then its slots go with it.
#[tokio::test]
async fn a_database_that_accepts_no_connections_is_left_and_can_be_dropped() {
    let mut scene = scene_with(NOTES).await;
    let target = target_beside(&mut scene).await;
    let name = target.name();
    scene
        .sql(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        .await;
    let sessions = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND backend_type IN ('client backend', 'walsender')"
    );
    scene.wait_for(&sessions, "0").await;
    scene.sql(&format!("DROP DATABASE {name}")).await;
    let waits = "SELECT last_error LIKE '%3D000%' AND init_failed_at IS NULL FROM jobs";
    scene.wait_for(waits, "true").await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for(LOCKS, "0").await;
    // It is dropped with the test.
    scene.sql(&format!("CREATE DATABASE {name}")).await;
}

/// A database cannot be dropped before its slots are, so a dropped one has left none.
#[tokio::test]
async fn a_dropped_database_is_not_cleaned_up_for_ever() {
    let mut scene = scene_with(NOTES).await;
    let target = target_beside(&mut scene).await;
    let name = target.name().to_owned();
    // As an administrator does: slots first.
    scene
        .sql(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        .await;
    scene.value(&format!("{LEAVE} '{name}'")).await;
    let drop = format!(
        "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE database = '{name}'"
    );
    scene.value(&drop).await;
    scene.sql(&format!("DROP DATABASE {name}")).await;
    let waits = "SELECT last_error LIKE '%3D000%' AND init_failed_at IS NULL FROM jobs";
    scene.wait_for(waits, "true").await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for(LOCKS, "0").await;
    let log = scene.daemon().log();
    assert!(!log.contains("left behind"), "{log}");
    // It is dropped with the test.
    scene.sql(&format!("CREATE DATABASE {name}")).await;
}

/// The job starts on its new server although the old one cannot be reached. What is left there goes when it is back.
#[tokio::test]
async fn a_job_moves_to_another_server_while_the_old_one_is_down() {
    let mut old = RestartableServer::start(server::installation(), &[("wal_level", "logical")]);
    let mut scene = scene_with(NOTES).await;
    scene.write(&[TIDES]).await;
    let client = connect(&old.uri("postgres")).await;
    execute(
        &client,
        "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding real[]); INSERT INTO notes VALUES (1, 'a note')",
    )
    .await;
    let job = Job::at(old.uri("postgres"), "notes", "body", "embedding");
    insert_job(&scene.client, job).await;
    scene.spawn_daemon();
    scene
        .wait_for(
            "SELECT count(*) FROM jobs WHERE init_finished_at IS NOT NULL",
            "1",
        )
        .await;
    drop(client);
    old.stop(Stop::Fast);
    let uri = scene.database.uri();
    scene
        .sql(&format!("UPDATE jobs SET db_connection = '{uri}'"))
        .await;
    scene.wait_for_vectors("notes", "body").await;
    old.start_again();
    let client = connect(&old.uri("postgres")).await;
    wait_for_value(&client, "SELECT count(*) FROM pg_replication_slots", 0_i64).await;
    scene.put(2, MOON).await;
    scene.wait_for_vectors("notes", "body").await;
}
