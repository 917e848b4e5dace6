//! Write-backs run as the owner of the table where the daemon's role has more rights than it needs.

use testkit::Scene;
use testkit::scene::{MOON, NOTES, TIDES};

use super::{Role, role};
use crate::support::{program, scene_with};

const NOTE_WRITER: &str = "CREATE TABLE writers (who text); \
    CREATE FUNCTION note_writer() RETURNS trigger LANGUAGE plpgsql AS \
      $$ BEGIN INSERT INTO public.writers VALUES (current_user || '/' || session_user); RETURN NEW; END $$; \
    CREATE TRIGGER note_writer BEFORE UPDATE OF embedding ON notes FOR EACH ROW EXECUTE FUNCTION note_writer()";
const WRITERS: &str = "SELECT string_agg(DISTINCT who, ' ') FROM writers";

/// A table of a role with few rights, and a job on it by the role `postgres`. Each update notes by whom it was made.
async fn owned() -> (Scene, Role) {
    let scene = scene_with(NOTES).await;
    scene.sql(NOTE_WRITER).await;
    let owner = role(&scene, "owner", "").await;
    scene
        .sql(&format!(
            "ALTER TABLE notes OWNER TO {0}; ALTER TABLE writers OWNER TO {0}",
            owner.name
        ))
        .await;
    scene.job("notes", "body").await;
    (scene, owner)
}

#[tokio::test]
async fn a_superusers_write_backs_run_as_the_owner_of_the_table() {
    let (mut scene, owner) = owned().await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    scene.write(&[TIDES, MOON]).await;
    scene.caught_up().await;
    let as_owner = format!("{}/postgres", owner.name);
    assert_eq!(scene.value(WRITERS).await, as_owner);
    // The commands do the same.
    scene
        .sql("TRUNCATE writers; ALTER TABLE notes DISABLE TRIGGER USER; UPDATE notes SET embedding = NULL; \
              ALTER TABLE notes ENABLE TRIGGER USER")
        .await;
    let uri = scene.database.uri();
    let done = program()
        .run(&["resync", "--uri", &uri, "--job", "1"])
        .await;
    assert!(done.status.success());
    assert_eq!(scene.value(WRITERS).await, as_owner);
}

/// A trigger that would make its owner a superuser fails, and so does its row. (One that says RESET ROLE does not.)
#[tokio::test]
async fn a_trigger_that_needs_the_rights_of_a_superuser_quarantines_its_row() {
    let (mut scene, owner) = owned().await;
    scene
        .sql(&format!(
            "CREATE FUNCTION takes_over() RETURNS trigger LANGUAGE plpgsql AS \
               $$ BEGIN EXECUTE 'ALTER ROLE {} SUPERUSER'; RETURN NEW; END $$; \
             CREATE TRIGGER takes_over BEFORE UPDATE ON notes FOR EACH ROW WHEN (NEW.id = 2) EXECUTE FUNCTION takes_over()",
            owner.name
        ))
        .await;
    scene.write(&[TIDES, MOON]).await;
    scene.start_daemon().await;
    scene
        .wait_for("SELECT count(*) FROM jobs_failures", "1")
        .await;
    let reason = scene.value("SELECT error FROM jobs_failures").await;
    assert!(
        reason.contains("permission denied") && reason.contains("takes_over"),
        "{reason}"
    );
    let written = "SELECT string_agg(id::text, ' ') FROM notes WHERE embedding IS NOT NULL";
    scene.wait_for(written, "1").await;
    let gained = format!(
        "SELECT rolsuper FROM pg_roles WHERE rolname = '{}'",
        owner.name
    );
    assert_eq!(scene.value(&gained).await, "false");
}

/// Vectors come before rights: where the owner could not write, the daemon's role does.
#[tokio::test]
async fn the_daemons_role_writes_where_the_owner_could_not() {
    for obstacle in [
        // What its own rights or row security keep from it.
        "REVOKE UPDATE ON notes FROM {owner}",
        "REVOKE SELECT ON notes FROM {owner}",
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
        "ALTER TABLE notes ENABLE ROW LEVEL SECURITY; ALTER TABLE notes FORCE ROW LEVEL SECURITY",
        // The schema of the vector type, which only the prepared statement tells.
        "CREATE SCHEMA types; ALTER EXTENSION vector SET SCHEMA types",
    ] {
        let (mut scene, owner) = owned().await;
        if obstacle.contains("EXTENSION") && scene.database.skips_vector() {
            continue;
        }
        scene.sql(&obstacle.replace("{owner}", &owner.name)).await;
        scene.write(&[TIDES]).await;
        scene.start_daemon().await;
        scene
            .wait_for("SELECT count(embedding) FROM notes", "1")
            .await;
        assert_eq!(
            scene.value(WRITERS).await,
            "postgres/postgres",
            "{obstacle}"
        );
    }
}
