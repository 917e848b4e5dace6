//! Roles that own nothing, in the jobs database and in the target: what they lack is said at once, with what grants it.

use testkit::client::value;
use testkit::jobs::{Job, insert_job, wait_for_failure};
use testkit::scene::{CAVES, MOON, NOTES, TIDES};
use testkit::{Scene, paths};

use crate::support::{program, scene_with};

/// A role that may log in, and its URI.
async fn role(scene: &Scene, name: &str, attributes: &str) -> (String, String) {
    let role = format!("{name}_{}", scene.database.name());
    scene
        .sql(&format!(
            "CREATE ROLE {role} LOGIN {attributes} PASSWORD 'pw'"
        ))
        .await;
    let uri = scene.database.uri();
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    (role.clone(), format!("postgresql://{role}:pw@{place}"))
}

/// PostgreSQL 15 and later: no CREATE on the schema public.
#[tokio::test]
async fn a_refused_row_without_a_failures_table_names_the_statements_that_create_it() {
    let scene = scene_with(NOTES).await;
    let (name, uri) = role(&scene, "keeper", "").await;
    scene
        .sql(&format!(
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT SELECT, UPDATE ON jobs TO {name}; \
             ALTER TABLE notes ADD CONSTRAINT keeps CHECK (embedding IS NULL OR id <> 2)"
        ))
        .await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON]).await;
    let _daemon = program().start_daemon(&["--uri", &uri]);
    let reason = scene.wait_for_failure().await;
    assert!(reason.contains("jobs_failures"), "{reason}");
    let (_, remedy) = reason
        .split_once("run as the owner of the jobs table: ")
        .expect("a remedy");
    scene.sql(remedy).await;
    scene.sql("UPDATE jobs SET init_failed_at = NULL").await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    scene.put(3, CAVES).await;
    scene
        .wait_for("SELECT count(embedding) FROM notes", "2")
        .await;
}

/// The table of `sql/jobs.sql` belongs to another role, and only the jobs table was granted.
#[tokio::test]
async fn a_failures_table_without_privileges_fails_only_the_job_that_needs_it() {
    let scene = scene_with(NOTES).await;
    let (name, uri) = role(&scene, "reader", "").await;
    scene.sql("DROP TABLE jobs").await;
    scene.database.psql(&paths::read("sql/jobs.sql")).await;
    scene
        .sql(&format!("GRANT SELECT, UPDATE ON jobs TO {name}"))
        .await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES]).await;
    let daemon = program().start_daemon(&["--uri", &uri]);
    scene.wait_for_backfill().await;
    scene.wait_for_vectors("notes", "body").await;
    scene
        .sql("ALTER TABLE notes ADD CONSTRAINT keeps CHECK (embedding IS NULL OR id <> 2)")
        .await;
    scene.put(2, MOON).await;
    let reason = scene.wait_for_failure().await;
    let grant = format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON \"public\".\"jobs_failures\" TO \"{name}\";"
    );
    assert!(reason.contains(&grant), "{reason}");
    scene.sql(&grant).await;
    scene.sql("UPDATE jobs SET init_failed_at = NULL").await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    let log = daemon.log();
    assert!(!log.contains("does not answer"), "{log}");
}

/// The first failure names everything, and the script that gives it.
#[tokio::test]
async fn a_role_that_owns_nothing_learns_all_it_lacks_from_the_first_failure() {
    let mut scene =
        scene_with("CREATE TABLE notes (id int PRIMARY KEY, body text, title text)").await;
    let (name, uri) = role(&scene, "stranger", "NOREPLICATION").await;
    scene
        .sql(
            "REVOKE ALL ON SCHEMA public FROM PUBLIC; ALTER TABLE jobs ADD fingerprint_column TEXT",
        )
        .await;
    let job = Job {
        db_connection: uri.clone(),
        options: &[("fingerprint_column", "'body mark'")],
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    let job = insert_job(&scene.client, job).await;
    scene.spawn_daemon();
    let reason = wait_for_failure(&scene.client, job).await;
    let table = "\"public\".\"notes\"";
    for part in [
        "lantern-cli sql prepare_publication | psql -d ",
        "-v table=notes",
        "-v key='\"id\"'",
        "-v fingerprint='body mark'",
        &format!("ALTER ROLE \"{name}\" REPLICATION;"),
        &format!("GRANT USAGE ON SCHEMA \"public\" TO \"{name}\";"),
        &format!("GRANT SELECT (\"id\", \"body\") ON {table} TO \"{name}\";"),
        "\"embedding\", \"body mark\"",
        "a publication",
    ] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    let script = reason.find("sql prepare_publication");
    assert!(
        script < reason.find("GRANT"),
        "the script comes first: {reason}"
    );

    // As the message says. It may run twice, and once more for another job of the table.
    let prepare = async |source: &str, destination: &str, fingerprint: &str| {
        let mut variables = vec![
            ("schema", "public".to_owned()),
            ("table", "notes".to_owned()),
            ("key", "\"id\"".to_owned()),
            ("source", source.to_owned()),
            ("destination", destination.to_owned()),
            ("type", scene.database.adapted("vector(384)")),
            ("role", name.clone()),
        ];
        if !fingerprint.is_empty() {
            variables.push(("fingerprint", fingerprint.to_owned()));
        }
        let set: Vec<String> = variables
            .iter()
            .map(|(name, value)| format!("\\set {name} '{value}'\n"))
            .collect();
        scene
            .database
            .psql(&(set.concat() + &paths::read("sql/prepare_publication.sql")))
            .await;
    };
    prepare("body", "embedding", "").await;
    for _ in 0..2 {
        prepare("body", "embedding", "body mark").await;
    }
    prepare("title", "title_embedding", "").await;
    scene.sql(&format!("ALTER ROLE {name} REPLICATION")).await;
    let second = Job {
        db_connection: uri,
        ..Job::on(&scene.database, "notes", "title", "title_embedding")
    };
    insert_job(&scene.client, second).await;
    scene
        .sql(&format!(
            "UPDATE jobs SET init_failed_at = NULL; INSERT INTO notes VALUES (1, '{TIDES}', '{MOON}')"
        ))
        .await;
    scene.wait_for_backfill().await;
    scene.wait_for_vectors("notes", "body").await;
    scene
        .sql(&format!(
            "INSERT INTO notes VALUES (2, '{CAVES}', '{MOON}')"
        ))
        .await;
    scene.wait_for_vectors("notes", "body").await;
    scene
        .wait_for("SELECT count(title_embedding) FROM notes", "2")
        .await;
    let owned = format!(
        "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o' AND refobjid = '{name}'::regrole"
    );
    assert_eq!(value::<i64>(&scene.client, &owned).await, 0);
}
