//! People move the extension, and rename or drop the columns that a job writes.

use testkit::scene::{CAVES, MOON, TIDES};

use super::roles::daemon_role;
use crate::support::{notes_scene, scene_with};
use testkit::scene::NOTES;

/// Hazard 42. gbrain #1431: Supabase's advice is to move extensions out of `public`.
#[tokio::test]
async fn the_extension_is_moved_to_another_schema_under_writes() {
    let mut scene = notes_scene().await;
    if scene.database.skips_vector() {
        return;
    }
    scene.sql("CREATE SCHEMA extensions").await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    for round in 0..6 {
        let schema = ["extensions", "public"][round % 2];
        for id in 2..12 {
            scene.put(id, [MOON, CAVES][round % 2]).await;
        }
        scene
            .sql(&format!("ALTER EXTENSION vector SET SCHEMA {schema}"))
            .await;
        for id in 2..12 {
            scene.put(id, [TIDES, MOON][round % 2]).await;
        }
        // The operator of this test's own questions moves too.
        scene
            .sql(&format!("SET search_path = public, {schema}"))
            .await;
        scene.wait_for_vectors("notes", "body").await;
    }
    assert_eq!(scene.failures().await, "");
}

/// Hazard 42.
#[tokio::test]
async fn a_role_that_may_not_use_the_new_schema_is_told_the_grant() {
    let mut scene = scene_with(NOTES).await;
    if scene.database.skips_vector() {
        return;
    }
    let role = daemon_role(&scene).await;
    role.own(&scene, "notes").await;
    role.job(&scene, "notes").await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene
        .sql("CREATE SCHEMA extensions; ALTER EXTENSION vector SET SCHEMA extensions; SET search_path = public, extensions")
        .await;
    scene.put(1, MOON).await;
    let reason = scene.wait_for_failure().await;
    let grant = format!("GRANT USAGE ON SCHEMA \"extensions\" TO \"{}\"", role.name);
    assert!(reason.contains(&grant), "{reason}");
    scene
        .sql(&format!("{grant}; UPDATE jobs SET init_failed_at = NULL"))
        .await;
    scene.wait_for_vectors("notes", "body").await;
}

/// Without the right, not even the owner of the table can create a column of the type.
#[tokio::test]
async fn a_role_that_may_not_use_the_schema_of_a_new_column_is_told_the_grant() {
    let mut scene = scene_with(NOTES).await;
    if scene.database.skips_vector() {
        return;
    }
    let role = daemon_role(&scene).await;
    role.own(&scene, "notes").await;
    scene
        .sql(
            "ALTER TABLE notes DROP COLUMN embedding; \
             CREATE SCHEMA \"Ext\"; ALTER EXTENSION vector SET SCHEMA \"Ext\"; \
             SET search_path = public, \"Ext\"",
        )
        .await;
    role.job(&scene, "notes").await;
    scene.put(1, TIDES).await;
    scene.spawn_daemon_with(&[]);
    let reason = scene.wait_for_failure().await;
    let grant = format!("GRANT USAGE ON SCHEMA \"Ext\" TO \"{}\";", role.name);
    assert!(
        reason.ends_with(&format!("run as its owner: {grant}")),
        "{reason}"
    );
    scene
        .sql(&format!("{grant} UPDATE jobs SET init_failed_at = NULL"))
        .await;
    let finished = "SELECT init_finished_at IS NOT NULL FROM jobs";
    scene.wait_for(finished, "true").await;
    scene.wait_for_vectors("notes", "body").await;
}

/// Hazard 42. The job does not create the column once more beside the one that was renamed.
#[tokio::test]
async fn a_destination_that_is_renamed_or_dropped_is_named_with_its_option() {
    for statement in [
        "ALTER TABLE notes RENAME COLUMN embedding TO meaning",
        "ALTER TABLE notes DROP COLUMN embedding",
    ] {
        for writes in [false, true] {
            let mut scene = notes_scene().await;
            scene.put(1, TIDES).await;
            scene.start_daemon().await;
            scene.sql(statement).await;
            if writes {
                scene.execute("UPDATE notes SET body = $1", &[&MOON]).await;
            }
            let reason = scene.wait_for_failure().await;
            assert!(
                reason.contains("\"embedding\" (dst_column)") && reason.contains("init_failed_at"),
                "{reason}"
            );
            let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'notes'::regclass AND attname = 'embedding'";
            assert_eq!(scene.value(columns).await, "0");
        }
    }
}

/// Hazard 42. REASSIGN OWNED changes the publication's owner, and nothing of what it publishes.
#[tokio::test]
async fn a_publication_with_another_owner_embeds_nothing_again() {
    for arguments in [&[][..], &["--slots", "database"]] {
        let mut scene = notes_scene().await;
        let role = daemon_role(&scene).await;
        scene.put(1, TIDES).await;
        scene.spawn_daemon_with(arguments);
        scene.wait_for_vectors("notes", "body").await;
        scene.caught_up().await;
        let before = scene.row_versions().await;
        scene
            .sql(&format!(
                "GRANT CREATE ON DATABASE {} TO {name}; ALTER ROLE {name} SUPERUSER; \
                 DO $$ BEGIN EXECUTE (SELECT format('ALTER PUBLICATION %I OWNER TO {name}', pubname) FROM pg_publication); END $$",
                scene.database.name(),
                name = role.name
            ))
            .await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        scene.stop_daemon().await;
        scene.spawn_daemon_with(arguments);
        scene.wait_until_confirmed().await;
        assert_eq!(scene.row_versions().await, before, "embedded again");
        scene.put(2, MOON).await;
        scene.caught_up().await;
    }
}
