//! The user's own triggers, and write-backs.

use testkit::jobs::{Job, insert_job};
use testkit::scene::{MOON, TIDES};

use crate::support::notes_scene;

const TOUCH: &str = "ALTER TABLE notes ADD COLUMN touched int NOT NULL DEFAULT 0;
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END';
    CREATE TRIGGER touch BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touch();
    ALTER TABLE jobs ADD COLUMN skip_triggers boolean";

/// Hazard 31.
#[tokio::test]
async fn write_backs_fire_triggers_unless_the_job_says_otherwise() {
    let mut scene = notes_scene().await;
    scene.sql(TOUCH).await;
    let touched = "SELECT string_agg(touched::text, ' ' ORDER BY id) FROM notes";
    scene.start_daemon().await;
    scene.write(&[TIDES, MOON]).await;
    scene.caught_up().await;
    assert_eq!(scene.value(touched).await, "1 1");

    // The job starts again with the option, in a new session.
    let session = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                   AND application_name = 'lantern-cli: job 1 write-back'";
    let earlier = scene.value(session).await;
    scene.sql("UPDATE jobs SET skip_triggers = true").await;
    let replaced = format!("SELECT count(*) FROM ({session}) AS s WHERE pid <> {earlier}");
    scene.wait_for(&replaced, "1").await;
    // The user's own update fires it, the write-back does not.
    scene.put(1, MOON).await;
    scene.caught_up().await;
    assert_eq!(scene.value(touched).await, "2 1");
}

/// Hazard 31.
#[tokio::test]
async fn a_role_that_may_not_skip_triggers_gets_the_statement_that_grants_it() {
    let mut scene = notes_scene().await;
    scene.sql(TOUCH).await;
    let role = format!("owner_{}", scene.database.name());
    scene
        .sql(&format!(
            "CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'secret'; ALTER TABLE notes OWNER TO {role}; \
             GRANT CREATE ON DATABASE {} TO {role}; DELETE FROM jobs",
            scene.database.name()
        ))
        .await;
    let uri = scene.database.uri();
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let job = Job {
        db_connection: format!("postgresql://{role}:secret@{place}"),
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    insert_job(&scene.client, job).await;
    scene.sql("UPDATE jobs SET skip_triggers = true").await;
    scene.put(1, TIDES).await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    assert!(reason.contains("skip_triggers"), "{reason}");
    scene.wait_for_cleanup().await;

    // The remedy that is named, where the server has it, helps.
    let remedy = format!("GRANT SET ON PARAMETER session_replication_role TO \"{role}\"");
    if reason.contains(&remedy) {
        scene.sql(&remedy).await;
    } else {
        assert!(reason.contains("superuser"), "{reason}");
        scene.sql("UPDATE jobs SET skip_triggers = false").await;
    }
    scene.sql("UPDATE jobs SET init_failed_at = NULL").await;
    scene.wait_for_vectors("notes", "body").await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_cleanup().await;
    scene
        .sql(&format!(
            "REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}"
        ))
        .await;
}
