//! The failures table and the jobs table, where other roles have had a hand in them.

use testkit::Scene;
use testkit::client::value;
use testkit::scene::{MOON, NOTES, TIDES};
use testkit::wait::TIMEOUT;

use super::{Role, role};
use crate::support::{program, scene_with};

const FAILURES: &str = "CREATE TABLE jobs_failures (job_id text NOT NULL, key jsonb NOT NULL, error text NOT NULL, \
    attempts int NOT NULL, failed_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (job_id, key))";

/// A scene whose second row cannot be written, and a role that may create tables beside the jobs table.
async fn with_stranger() -> (Scene, Role) {
    let scene = scene_with(NOTES).await;
    let stranger = role(&scene, "stranger", "").await;
    scene
        .sql(&format!(
            "GRANT USAGE, CREATE ON SCHEMA public TO {}; \
             ALTER TABLE notes ADD CONSTRAINT refuses CHECK (embedding IS NULL OR id <> 2)",
            stranger.name
        ))
        .await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON]).await;
    (scene, stranger)
}

/// A function of the stranger's that makes it a superuser where the daemon's role may do that, and a trigger that calls it.
fn trigger_on(table: &str, when: &str, stranger: &Role) -> String {
    format!(
        "CREATE FUNCTION takes_over() RETURNS trigger LANGUAGE plpgsql AS \
           $$ BEGIN EXECUTE 'ALTER ROLE {} SUPERUSER'; RETURN NULL; END $$; \
         CREATE TRIGGER takes_over {when} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION takes_over()",
        stranger.name
    )
}

async fn is_superuser(scene: &Scene, role: &Role) -> bool {
    let question = format!(
        "SELECT rolsuper FROM pg_roles WHERE rolname = '{}'",
        role.name
    );
    value(&scene.client, &question).await
}

#[tokio::test]
async fn a_failures_table_of_another_role_is_not_used() {
    let (mut scene, stranger) = with_stranger().await;
    let when = "BEFORE INSERT OR UPDATE OR DELETE";
    stranger
        .session(&format!(
            "{FAILURES}; {}",
            trigger_on("jobs_failures", when, &stranger)
        ))
        .await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    for part in ["jobs_failures", &stranger.name, "OWNER TO", "DROP TABLE"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    scene
        .daemon()
        .wait_for_line("is not used: the table", TIMEOUT)
        .await;
    assert!(!is_superuser(&scene, &stranger).await);

    scene
        .sql("DROP TABLE jobs_failures; UPDATE jobs SET init_failed_at = NULL")
        .await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    assert!(!is_superuser(&scene, &stranger).await);
}

/// The table is right, and a role with the privilege TRIGGER has added a trigger to it.
#[tokio::test]
async fn a_failures_table_with_a_trigger_of_another_role_is_not_used() {
    let (mut scene, stranger) = with_stranger().await;
    scene
        .sql(&format!(
            "{FAILURES}; GRANT TRIGGER ON jobs_failures TO {}",
            stranger.name
        ))
        .await;
    stranger
        .session(&trigger_on(
            "jobs_failures",
            "AFTER DELETE OR INSERT",
            &stranger,
        ))
        .await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    for part in ["takes_over", &stranger.name, "DROP TRIGGER"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert!(!is_superuser(&scene, &stranger).await);

    // A trigger of the owner's is the owner's business.
    scene
        .sql("ALTER FUNCTION takes_over() OWNER TO postgres; CREATE OR REPLACE FUNCTION takes_over() RETURNS trigger \
              LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; UPDATE jobs SET init_failed_at = NULL")
        .await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
}

#[tokio::test]
async fn a_failures_table_that_is_a_view_is_not_used() {
    let (mut scene, _) = with_stranger().await;
    scene
        .sql(&format!(
            "{}; CREATE VIEW jobs_failures AS SELECT * FROM f",
            FAILURES.replace("jobs_failures", "f")
        ))
        .await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    assert!(reason.contains("is not an ordinary table"), "{reason}");
}

/// The daemon's own role may own it, whatever that role is called.
#[tokio::test]
async fn a_failures_table_that_the_daemon_has_created_is_used() {
    let (scene, _) = with_stranger().await;
    let database = scene.database.name();
    let name = format!("The Daemon's \"Role\" {database}");
    let quoted = name.replace('"', "\"\"");
    scene
        .sql(&format!(
            "CREATE ROLE \"{quoted}\" LOGIN PASSWORD 'pw'; GRANT SELECT, UPDATE ON jobs TO \"{quoted}\"; \
             GRANT USAGE, CREATE ON SCHEMA public TO \"{quoted}\"; \
             ALTER TABLE notes DROP CONSTRAINT refuses, ADD CHECK (embedding IS NULL OR id < 2)"
        ))
        .await;
    let uri = scene.database.uri();
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let user = name
        .replace(' ', "%20")
        .replace('"', "%22")
        .replace('\'', "%27");
    let uri = format!("postgresql://{user}:pw@{place}");
    let _daemon = program().start_daemon(&["--uri", &uri]);
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    scene.put(3, MOON).await;
    scene.wait_for_failed_rows("key->>'id'", "2, 3").await;
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'jobs_failures'";
    assert_eq!(scene.value(owner).await, name);
}

#[tokio::test]
async fn a_jobs_table_with_a_trigger_of_another_role_is_refused() {
    let (mut scene, stranger) = with_stranger().await;
    scene
        .sql(&format!("GRANT ALL ON jobs TO {}", stranger.name))
        .await;
    // It does not fire for what the daemon does.
    let insert = trigger_on("jobs", "BEFORE INSERT", &stranger);
    stranger.session(&insert).await;
    scene
        .spawn_daemon()
        .wait_for_line("streaming", TIMEOUT)
        .await;
    scene.stop_daemon().await;
    let update = insert
        .replace("takes_over", "takes_over_later")
        .replace("INSERT", "UPDATE");
    stranger.session(&update).await;
    let (status, _) = scene.spawn_daemon().wait(TIMEOUT).await;
    let log = scene.daemon().log();
    assert_eq!(status.code(), Some(1), "{log}");
    for part in ["takes_over_later", &stranger.name, "DROP TRIGGER"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!is_superuser(&scene, &stranger).await);
}

#[tokio::test]
async fn a_view_is_a_jobs_table_if_it_and_what_it_shows_have_one_owner() {
    let (mut scene, stranger) = with_stranger().await;
    scene
        .sql(
            "ALTER TABLE notes DROP CONSTRAINT refuses; ALTER TABLE jobs RENAME TO all_jobs; \
             CREATE VIEW jobs AS SELECT * FROM all_jobs WHERE id < 100",
        )
        .await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    scene.stop_daemon().await;
    scene
        .sql(&format!(
            "ALTER TABLE all_jobs OWNER TO {0}; ALTER VIEW jobs OWNER TO {0}",
            stranger.name
        ))
        .await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    let owner = role(&scene, "owner", "").await;
    scene
        .sql(&format!("ALTER VIEW jobs OWNER TO {}", owner.name))
        .await;
    let (status, _) = scene.spawn_daemon().wait(TIMEOUT).await;
    let log = scene.daemon().log();
    assert_eq!(status.code(), Some(1), "{log}");
    for part in ["the table public.all_jobs", &stranger.name, "OWNER TO"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}
