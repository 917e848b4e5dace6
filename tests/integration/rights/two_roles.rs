//! One role for the stream, and a weaker one for the rows: the column `write_connection`.

use testkit::client::{execute, value};
use testkit::jobs::{Job, insert_job, wait_for_backfill, wait_for_failure};
use testkit::scene::{CAVES, DESERT, LONG, MOON, NOTES, TIDES};
use testkit::wait::TIMEOUT;
use testkit::{Scene, TestDatabase, server};

use super::{Role, named, role, run_script};
use crate::support::{assert_check_says, program, scene_with};

/// A table in which each update notes by whom it was made, prepared for two roles as the documentation says.
async fn prepared(scene: &Scene) -> (Role, Role) {
    scene
        .sql("ALTER TABLE jobs ADD write_connection text")
        .await;
    scene
        .sql(
            "CREATE TABLE writers (who text); \
             CREATE FUNCTION note_writer() RETURNS trigger LANGUAGE plpgsql AS \
               $$ BEGIN INSERT INTO public.writers VALUES (current_user || '/' || session_user); RETURN NEW; END $$; \
             CREATE TRIGGER note_writer BEFORE UPDATE OF embedding ON notes FOR EACH ROW EXECUTE FUNCTION note_writer()",
        )
        .await;
    for (name, replication) in [("stream", "yes"), ("rows", "no")] {
        let name = named(scene, name).name;
        // It may run again.
        for _ in 0..2 {
            let variables = [
                ("role", name.as_str()),
                ("password", "pw"),
                ("replication", replication),
            ];
            run_script(scene, "sql/role.sql", &variables).await;
        }
    }
    let (stream, rows) = (named(scene, "stream"), named(scene, "rows"));
    let kind = scene.database.adapted("vector(384)");
    let variables = [
        ("schema", "public"),
        ("table", "notes"),
        ("key", "id"),
        ("source", "body"),
        ("destination", "embedding"),
        ("type", &kind),
        ("role", &rows.name),
    ];
    run_script(scene, "sql/prepare_publication.sql", &variables).await;
    scene
        .sql(&format!("GRANT INSERT ON writers TO {}", rows.name))
        .await;
    (stream, rows)
}

async fn job_of(scene: &Scene, stream: &Role, write_connection: &str) -> i32 {
    let write_connection = format!("'{write_connection}'");
    let job = Job {
        db_connection: stream.uri.clone(),
        options: &[("write_connection", &write_connection)],
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    insert_job(&scene.client, job).await
}

#[tokio::test]
async fn the_role_that_streams_runs_none_of_the_users_code_and_has_no_right_on_the_table() {
    let scene = scene_with(NOTES).await;
    scene
        .sql("ALTER TABLE notes ALTER body SET STORAGE EXTERNAL")
        .await;
    let (stream, rows) = prepared(&scene).await;
    let rights = format!(
        "SELECT has_table_privilege('{0}', 'notes', 'SELECT') OR has_any_column_privilege('{0}', 'notes', 'SELECT, UPDATE') \
           OR rolsuper OR (SELECT rolreplication FROM pg_roles WHERE rolname = '{1}') FROM pg_roles WHERE rolname = '{0}'",
        stream.name, rows.name
    );
    assert_eq!(scene.value(&rights).await, "false");
    scene.write(&[TIDES, &LONG, MOON]).await;
    job_of(&scene, &stream, &rows.uri).await;
    // The daemon itself has few rights, too.
    let _daemon = program().start_daemon(&["--uri", &stream.uri, "--refuse-superuser"]);
    scene.wait_for_backfill().await;
    scene.put(4, CAVES).await;
    // A change of another column does not bring the long text: it is read by key.
    scene
        .sql("UPDATE notes SET views = views + 1, embedding = NULL WHERE id = 2")
        .await;
    scene.put(1, DESERT).await;
    scene
        .wait_for("SELECT count(embedding) FROM notes WHERE id <> 2", "3")
        .await;
    scene.wait_until_confirmed().await;
    let writers =
        "SELECT string_agg(DISTINCT who, ' ') FROM writers WHERE who NOT LIKE 'postgres%'";
    assert_eq!(scene.value(writers).await, format!("{0}/{0}", rows.name));
    // Locks and sessions: what writes is the weak role's.
    let sessions = "SELECT string_agg(DISTINCT usename || ' ' || split_part(application_name, ' ', 4), ', ' ORDER BY \
                    usename || ' ' || split_part(application_name, ' ', 4)) FROM pg_stat_activity \
                    WHERE datname = current_database() AND application_name LIKE 'lantern-cli: job 1 write-back'";
    assert_eq!(
        scene.value(sessions).await,
        format!("{} write-back", rows.name)
    );
    let locks = "SELECT string_agg(DISTINCT a.usename, ' ') FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                 WHERE l.locktype = 'advisory' AND a.application_name LIKE 'lantern-cli: job %' \
                   AND a.datname = current_database()";
    assert_eq!(scene.value(locks).await, rows.name);
    let walsender = format!(
        "SELECT string_agg(usename, ' ') FROM pg_stat_replication WHERE usename = '{}'",
        stream.name
    );
    assert_eq!(scene.value(&walsender).await, stream.name);

    // The commands take the weak role likewise.
    let found = program()
        .stdout_of(&["search", "--uri", &stream.uri, "--job", "1", TIDES])
        .await;
    assert!(found.contains("similarity"), "{found}");
    scene.sql("UPDATE notes SET embedding = NULL").await;
    program()
        .stdout_of(&[
            "resync",
            "--uri",
            &stream.uri,
            "--job",
            "1",
            "--refuse-superuser",
        ])
        .await;
    program()
        .stdout_of(&["verify", "--uri", &stream.uri, "--job", "1", "--full"])
        .await;
    scene.wait_for_vectors("notes", "body").await;
    assert_eq!(scene.value(writers).await, format!("{0}/{0}", rows.name));
}

#[tokio::test]
async fn the_second_role_takes_effect_in_a_job_that_runs() {
    let mut scene = scene_with(NOTES).await;
    let (stream, rows) = prepared(&scene).await;
    let both = Job {
        db_connection: stream.uri.clone(),
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    scene
        .sql(&format!(
            "GRANT SELECT (id, body, embedding, ctid, tableoid), UPDATE (embedding) ON notes TO {0}; \
             GRANT INSERT ON writers TO {0}",
            stream.name
        ))
        .await;
    insert_job(&scene.client, both).await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    let slot = "SELECT string_agg(slot_name, ' ') FROM pg_replication_slots WHERE database = current_database()";
    let before = scene.value(slot).await;
    scene
        .sql(&format!(
            "UPDATE jobs SET write_connection = '{}'",
            rows.uri
        ))
        .await;
    scene
        .wait_for(
            "SELECT string_agg(usename, ' ') FROM pg_stat_activity WHERE application_name = 'lantern-cli: job 1 write-back' \
             AND datname = current_database()",
            &rows.name,
        )
        .await;
    scene.wait_for_backfill().await;
    scene.put(2, MOON).await;
    scene.wait_for_vectors("notes", "body").await;
    // The job continues: it is not another one.
    assert_eq!(scene.value(slot).await, before);
    let last = "SELECT split_part(who, '/', 1) FROM writers ORDER BY ctid DESC LIMIT 1";
    assert_eq!(scene.value(last).await, rows.name);
}

/// The connection string may also ask for another role of the same login.
#[tokio::test]
async fn write_connection_may_set_the_role_of_the_tables_owner() {
    let mut scene = scene_with(NOTES).await;
    let (stream, rows) = prepared(&scene).await;
    let owner = role(&scene, "owner", "").await;
    scene
        .sql(&format!(
            "GRANT {0} TO {1}; ALTER TABLE notes OWNER TO {0}; GRANT USAGE ON SCHEMA public TO {0}; \
             GRANT INSERT ON writers TO {0}",
            owner.name, rows.name
        ))
        .await;
    let as_owner = format!("{}?options=-crole%3D{}", rows.uri, owner.name);
    job_of(&scene, &stream, &as_owner).await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    assert_eq!(
        scene.value("SELECT DISTINCT who FROM writers").await,
        format!("{}/{}", owner.name, rows.name)
    );
}

#[tokio::test]
async fn both_connections_must_lead_to_one_database() {
    let mut scene = scene_with(NOTES).await;
    let (stream, rows) = prepared(&scene).await;
    let elsewhere = TestDatabase::create(server::shared()).await;
    let (server, _) = rows.uri.rsplit_once('/').expect("a database");
    let other = format!("{server}/{}", elsewhere.name());
    let mut jobs = vec![(
        job_of(&scene, &stream, &other).await,
        "write_connection leads to another database",
    )];
    jobs.push((
        job_of(&scene, &stream, "postgresql://me@192.0.2.1/d").await,
        "--allow-host",
    ));
    jobs.push((
        job_of(&scene, &stream, "no connection string").await,
        "write_connection of the job",
    ));
    let host = scene.database.uri();
    let host = host.rsplit_once('@').expect("a host").1;
    let host = host.split_once(['/', '?']).expect("a path").0.to_owned();
    scene.spawn_daemon_with(&["--allow-host", &host]);
    for (job, said) in jobs {
        let reason = wait_for_failure(&scene.client, job).await;
        assert!(reason.contains(said), "{said}: {reason}");
        let allowed = ["--allow-host", &host];
        assert_check_says(&scene.database.uri(), job, &reason, &allowed).await;
    }
}

#[tokio::test]
async fn the_first_failure_names_what_each_of_the_roles_lacks() {
    let mut scene = scene_with(NOTES).await;
    scene
        .sql("ALTER TABLE jobs ADD write_connection text; REVOKE ALL ON SCHEMA public FROM PUBLIC")
        .await;
    let (stream, rows) = (
        role(&scene, "stream", "").await,
        role(&scene, "rows", "").await,
    );
    let job = job_of(&scene, &stream, &rows.uri).await;
    scene.spawn_daemon();
    let reason = wait_for_failure(&scene.client, job).await;
    for part in [
        format!("ALTER ROLE \"{}\" REPLICATION", stream.name),
        "a publication".to_owned(),
        format!("GRANT USAGE ON SCHEMA \"public\" TO \"{}\"", rows.name),
        format!(
            "GRANT SELECT (\"id\", \"body\", \"embedding\") ON \"public\".\"notes\" TO \"{}\"",
            rows.name
        ),
        format!("-v role={}", rows.name),
    ] {
        assert!(reason.contains(&part), "{part}: {reason}");
    }
    assert!(!reason.contains("pw@"), "{reason}");

    // A wrong password is told as one of any connection.
    let wrong = rows.uri.replace(":pw@", ":wrong-secret@");
    let job = job_of(&scene, &named(&scene, "stream"), &wrong).await;
    let reason = wait_for_failure(&scene.client, job).await;
    assert!(
        reason.contains("password authentication failed"),
        "{reason}"
    );
    assert!(!reason.contains("wrong-secret"), "{reason}");
    let daemon = scene.daemon();
    daemon
        .wait_for_line("password authentication failed", TIMEOUT)
        .await;
    assert!(!daemon.log().contains("wrong-secret"));
}

/// The README's walk: a role by `sql/role.sql`, a table by `sql/prepare_publication.sql`.
#[tokio::test]
async fn one_role_with_least_rights_suffices() {
    let scene = scene_with(NOTES).await;
    scene.sql("DROP TABLE jobs").await;
    scene
        .database
        .psql(&testkit::paths::read("sql/jobs.sql"))
        .await;
    let lantern = named(&scene, "lantern");
    for _ in 0..2 {
        let variables = [("role", lantern.name.as_str()), ("password", "pw")];
        run_script(&scene, "sql/role.sql", &variables).await;
    }
    let kind = scene.database.adapted("vector(384)");
    let variables = [
        ("schema", "public"),
        ("table", "notes"),
        ("key", "id"),
        ("source", "body"),
        ("destination", "embedding"),
        ("type", &kind),
        ("role", &lantern.name),
    ];
    run_script(&scene, "sql/prepare_publication.sql", &variables).await;
    scene
        .sql("ALTER TABLE notes ADD CONSTRAINT refuses CHECK (embedding IS NULL OR id <> 2)")
        .await;
    scene.write(&[TIDES, MOON]).await;
    let job = Job {
        db_connection: lantern.uri.clone(),
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    let job = insert_job(&scene.client, job).await;
    let daemon = program().start_daemon(&["--uri", &lantern.uri, "--refuse-superuser"]);
    wait_for_backfill(&scene.client, job).await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    assert_eq!(
        value::<i64>(&scene.client, "SELECT count(embedding) FROM notes").await,
        1
    );
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_no_slot().await;
    let rights = format!(
        "SELECT has_column_privilege('{0}', 'jobs', 'db_connection', 'UPDATE') \
         OR has_table_privilege('{0}', 'jobs', 'INSERT, DELETE, TRUNCATE, TRIGGER')",
        lantern.name
    );
    assert_eq!(scene.value(&rights).await, "false");
    let log = daemon.log();
    assert!(
        !log.contains("could ") && !log.contains("does not answer"),
        "{log}"
    );
}

#[tokio::test]
async fn the_index_is_built_by_the_role_that_owns_the_table_and_goes_with_an_interrupted_job() {
    let scene = scene_with(NOTES).await;
    if scene.database.skips_vector() {
        return;
    }
    scene
        .sql("ALTER TABLE jobs ADD create_index text, ADD index_state text")
        .await;
    let (stream, rows) = prepared(&scene).await;
    scene
        .sql(&format!(
            "ALTER TABLE notes OWNER TO {0}; GRANT CREATE ON SCHEMA public TO {0}",
            rows.name
        ))
        .await;
    let writer = scene
        .session("BEGIN; LOCK TABLE notes IN ROW EXCLUSIVE MODE")
        .await;
    let job = job_of(&scene, &stream, &rows.uri).await;
    let ask = format!("UPDATE jobs SET create_index = 'hnsw' WHERE id = {job}");
    scene.sql(&ask).await;
    let _daemon = program().start_daemon(&["--uri", &stream.uri]);
    let builder = "SELECT string_agg(usename, ' ') FROM pg_stat_activity \
                   WHERE datname = current_database() AND query LIKE 'CREATE INDEX%'";
    scene.wait_for(builder, &rows.name).await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for(builder, "").await;
    execute(&writer, "COMMIT").await;
    let indexes =
        "SELECT count(*) FROM pg_indexes WHERE tablename = 'notes' AND indexdef LIKE '%hnsw%'";
    scene.wait_for(indexes, "0").await;
    scene.sql("UPDATE jobs SET canceled_at = false").await;
    let ready = "SELECT index_state LIKE 'ready: %' FROM jobs";
    scene.wait_for(ready, "true").await;
}
