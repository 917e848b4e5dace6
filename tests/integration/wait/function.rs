//! The function of `sql/wait_for_embeddings.sql`.

use testkit::scene::{CAVES, DESERT, MOON, NOTES, TIDES};
use testkit::wait::{TIMEOUT, wait_until};
use testkit::{Scene, paths};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{CALL, create_function};
use crate::support::{notes_scene, scene_with};

/// A job that streams, and the function.
async fn waiting_scene() -> Scene {
    let mut scene = notes_scene().await;
    create_function(&scene).await;
    scene.start_daemon().await;
    scene
}

/// What the server says to a call that fails: its SQLSTATE, and message and hint.
async fn refusal(client: &Client, call: &str) -> (SqlState, String) {
    let error = client
        .query(call, &[])
        .await
        .expect_err(&format!("{call} is refused"));
    let error = error.as_db_error().expect("an error of the server");
    let said = format!("{} {}", error.message(), error.hint().unwrap_or_default());
    (error.code().clone(), said)
}

#[tokio::test]
async fn a_role_without_rights_reads_its_vectors_after_the_call() {
    let scene = waiting_scene().await;
    let role = format!("app_of_{}", scene.database.name());
    scene
        .sql(&format!(
            "CREATE ROLE {role}; GRANT SELECT ON notes, truth TO {role}; GRANT INSERT, UPDATE ON notes TO {role}; \
             GRANT USAGE ON SCHEMA public TO {role}"
        ))
        .await;
    let app = scene.session(&format!("SET ROLE {role}")).await;
    for text in [TIDES, MOON, CAVES, TIDES] {
        let write =
            "INSERT INTO notes (id, body) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET body = $1";
        app.execute(write, &[&text]).await.expect("it is written");
        let done: bool = app.query_one(CALL, &[]).await.expect("it waits").get(0);
        assert!(done, "{text}");
        assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    }
    scene
        .sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn the_script_may_run_again_and_in_any_schema() {
    let scene = waiting_scene().await;
    create_function(&scene).await;
    let script = paths::read("sql/wait_for_embeddings.sql");
    let elsewhere = format!("CREATE SCHEMA app; SET search_path = app; {script}");
    scene.database.psql(&elsewhere).await;
    // What the caller's schemas hold does not matter.
    let trap = "CREATE FUNCTION app.lower(text) RETURNS text LANGUAGE sql AS 'SELECT ''2'''; \
                CREATE VIEW app.pg_replication_slots AS SELECT 1; SET search_path = app, pg_catalog";
    let client = scene.session(trap).await;
    for job in ["1", "1::smallint", "1::bigint", "'1'", "'1'::varchar"] {
        let call =
            format!("SELECT app.lantern_wait_for_embeddings({job}, pg_current_wal_insert_lsn())");
        let done: bool = client.query_one(&call, &[]).await.expect(&call).get(0);
        assert!(done, "{call}");
    }
}

#[tokio::test]
async fn a_call_that_cannot_work_says_why() {
    let scene = waiting_scene().await;
    let client = scene.session("").await;
    let long = "9".repeat(37);
    for (call, code, said) in [
        (
            "NULL::text, '0/1'",
            SqlState::NULL_VALUE_NOT_ALLOWED,
            "must not be NULL",
        ),
        (
            "1, NULL",
            SqlState::NULL_VALUE_NOT_ALLOWED,
            "must not be NULL",
        ),
        (
            "1, '0/1', NULL",
            SqlState::NULL_VALUE_NOT_ALLOWED,
            "must not be NULL",
        ),
        (
            "1, 'FFFFFF/1'",
            SqlState::INVALID_PARAMETER_VALUE,
            "beyond the end of the WAL",
        ),
        (
            "2, '0/1'",
            SqlState::UNDEFINED_OBJECT,
            "job 2 has no replication slot in the database test_",
        ),
        (
            "'1.*', '0/1'",
            SqlState::INVALID_PARAMETER_VALUE,
            "as fourth argument",
        ),
        (
            "-1, '0/1'",
            SqlState::INVALID_PARAMETER_VALUE,
            "as fourth argument",
        ),
        (
            &format!("'{long}', '0/1'"),
            SqlState::INVALID_PARAMETER_VALUE,
            "as fourth argument",
        ),
        (
            "1, '0/1', slot => 'nosuch'",
            SqlState::UNDEFINED_OBJECT,
            "has no replication slot nosuch",
        ),
    ] {
        let call = format!("SELECT lantern_wait_for_embeddings({call})");
        let (found, message) = refusal(&client, &call).await;
        assert_eq!(found, code, "{call}: {message}");
        assert!(message.contains(said), "{call}: {message}");
    }

    // Before the COMMIT the position may be confirmed, and the row not even sent.
    scene.write(&[TIDES]).await;
    for change in [
        "UPDATE notes SET body = 'x'",
        "SAVEPOINT a; DELETE FROM notes; RELEASE a",
    ] {
        client
            .batch_execute(&format!("BEGIN; {change}"))
            .await
            .expect("it changes");
        let (code, message) = refusal(&client, CALL).await;
        assert_eq!(code, SqlState::ACTIVE_SQL_TRANSACTION, "{message}");
        assert!(message.contains("COMMIT first"), "{message}");
        client.batch_execute("ROLLBACK").await.expect("it ends");
    }
    for begin in ["BEGIN READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE"] {
        client.batch_execute(begin).await.expect("it begins");
        assert!(
            client
                .query_one(CALL, &[])
                .await
                .expect(begin)
                .get::<_, bool>(0)
        );
        client.batch_execute("COMMIT").await.expect("it ends");
    }
}

#[tokio::test]
async fn without_a_daemon_the_answer_is_false_after_the_timeout() {
    let mut scene = waiting_scene().await;
    scene.put(1, TIDES).await;
    assert_eq!(scene.value(CALL).await, "true");
    scene.stop_daemon().await;
    scene.put(1, MOON).await;
    for timeout in ["0", "-1 day", "30 ms"] {
        let once = CALL.replace("90 s", timeout);
        assert_eq!(scene.value(&once).await, "false", "{timeout}");
    }
    scene.spawn_daemon();
    assert_eq!(scene.value(CALL).await, "true");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}

#[tokio::test]
async fn a_slot_that_goes_during_the_wait_ends_it() {
    let mut scene = waiting_scene().await;
    scene.stop_daemon().await;
    scene.put(1, TIDES).await;
    let client = scene
        .session("SET application_name = 'the waiting session'")
        .await;
    let waiting = tokio::spawn(async move { refusal(&client, CALL).await });
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'the waiting session' \
                  AND datname = current_database() AND wait_event = 'PgSleep'";
    scene.wait_for(sleeps, "1").await;
    scene.drop_slots().await;
    let (code, message) = waiting.await.expect("it returns");
    assert_eq!(code, SqlState::UNDEFINED_OBJECT);
    assert!(
        message.contains("of job 1 was dropped during the wait")
            && message.contains("init_finished_at"),
        "{message}"
    );
    let client = scene.session("").await;
    let (_, message) = refusal(&client, CALL).await;
    assert!(
        message.contains("job 1 has no replication slot"),
        "{message}"
    );
}

#[tokio::test]
async fn in_another_database_the_error_names_the_right_one() {
    let scene = waiting_scene().await;
    let other = scene_with(NOTES).await;
    create_function(&other).await;
    // Every database of the tests has a job 1.
    let slot = scene
        .value("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
        .await;
    let client = other.session("").await;
    let call = CALL.replace("'90 s'", &format!("'90 s', '{slot}'"));
    let (_, message) = refusal(&client, &call).await;
    let expected = format!(
        "It is in the database {}: call the function there.",
        scene.database.name()
    );
    assert!(message.contains(&expected), "{message}");
}

#[tokio::test]
async fn jobs_with_one_slot_are_told_apart() {
    let mut scene = scene_with(&format!("{NOTES}; {}", NOTES.replace("notes", "pages"))).await;
    create_function(&scene).await;
    for table in ["notes", "pages"] {
        scene.job(table, "body").await;
    }
    scene.spawn_daemon_with(&["--slots", "database"]);
    scene
        .wait_for(
            "SELECT count(*) FROM jobs WHERE init_finished_at IS NULL",
            "0",
        )
        .await;
    for (job, table, text) in [
        (1, "notes", TIDES),
        (2, "pages", MOON),
        (1, "notes", DESERT),
    ] {
        scene.put_into(table, 1, text).await;
        let call = CALL.replace("(1", &format!("({job}"));
        assert_eq!(scene.value(&call).await, "true");
        assert_eq!(scene.wrong_vectors(table, "body").await, "");
    }
    let client = scene.session("").await;
    scene
        .sql("UPDATE jobs SET canceled_at = true WHERE id = 2")
        .await;
    wait_until(
        "job 2 is no member any more",
        TIMEOUT,
        async || match client.query(&CALL.replace("(1", "(2"), &[]).await {
            Err(error) => Ok(error),
            Ok(_) => Err("it has a slot"),
        },
    )
    .await;
    assert_eq!(scene.value(CALL).await, "true");
}

#[tokio::test]
async fn of_two_jobs_with_one_id_both_count_unless_one_is_named() {
    let scene = waiting_scene().await;
    let own = scene
        .value("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
        .await;
    // Of another jobs table, whose daemon does not run.
    scene
        .sql("SELECT pg_create_logical_replication_slot('lantern_0123abcd_1_0123abcd', 'pgoutput')")
        .await;
    scene.put(1, TIDES).await;
    assert_eq!(scene.value(&CALL.replace("90 s", "50 ms")).await, "false");
    let named = CALL.replace("'90 s'", &format!("'90 s', '{own}'"));
    assert_eq!(scene.value(&named).await, "true");
    scene
        .sql("SELECT pg_drop_replication_slot('lantern_0123abcd_1_0123abcd')")
        .await;
    assert_eq!(scene.value(CALL).await, "true");
}

#[tokio::test]
async fn ids_of_any_type_have_a_slot() {
    let mut scene = notes_scene().await;
    create_function(&scene).await;
    let uuid = "0B7E0C1E-7b2e-4a53-9c6e-2f2b1f6f3c11";
    scene
        .sql(&format!("ALTER TABLE jobs ALTER id DROP DEFAULT, ALTER id TYPE text; UPDATE jobs SET id = '{uuid}'"))
        .await;
    scene.spawn_daemon();
    let finished = "SELECT count(*) FROM jobs WHERE init_finished_at IS NOT NULL";
    scene.wait_for(finished, "1").await;
    for job in [format!("'{uuid}'"), format!("'{uuid}'::uuid")] {
        scene.put(1, TIDES).await;
        assert_eq!(
            scene.value(&CALL.replace("(1", &format!("({job}"))).await,
            "true"
        );
        assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    }
}
