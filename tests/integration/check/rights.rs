//! Roles that lack one right each: `check` says what the failed job says.

use testkit::client::execute;
use testkit::jobs::{Job, insert_job, wait_for_backfill, wait_for_failure};
use testkit::scene::NOTES;
use testkit::{Scene, paths};

use crate::support::{assert_check_says, check, program, scene_with, texts};

/// A role, its table in a schema of its own, and what it lacks.
struct Case {
    name: &'static str,
    /// Takes a right away: `{role}`, `{table}` and `{schema}` are replaced.
    taken: &'static str,
    /// A part of the reason.
    said: &'static str,
    /// Options of the job.
    options: &'static [(&'static str, &'static str)],
}

const fn case(name: &'static str, taken: &'static str, said: &'static str) -> Case {
    Case {
        name,
        taken,
        said,
        options: &[],
    }
}

const CASES: [Case; 12] = [
    case(
        "replication",
        "ALTER ROLE {role} NOREPLICATION",
        "lacks the REPLICATION attribute",
    ),
    case(
        "publication",
        "DROP PUBLICATION {publication}",
        "lantern-cli sql prepare_publication | psql -d ",
    ),
    case(
        "schema",
        "REVOKE USAGE ON SCHEMA {schema} FROM {role}",
        "GRANT USAGE ON SCHEMA",
    ),
    case(
        "source",
        "REVOKE SELECT (body) ON {table} FROM {role}",
        "may not read",
    ),
    case(
        "key",
        "REVOKE SELECT (id) ON {table} FROM {role}",
        "GRANT SELECT (\"id\") ON",
    ),
    case(
        "reading",
        "REVOKE SELECT (embedding) ON {table} FROM {role}",
        "may not read and write",
    ),
    case(
        "writing",
        "REVOKE UPDATE (embedding) ON {table} FROM {role}",
        "may not read and write",
    ),
    case(
        "destination",
        "ALTER TABLE {table} DROP COLUMN embedding",
        "create the column yourself: ALTER TABLE",
    ),
    case(
        "policies",
        "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        "BYPASSRLS",
    ),
    case(
        "several",
        "ALTER ROLE {role} NOREPLICATION; REVOKE ALL ON {table} FROM {role}",
        "lacks 3 things",
    ),
    Case {
        options: &[("skip_triggers", "true")],
        ..case("parameter", "", "session_replication_role")
    },
    Case {
        options: &[("fingerprint_column", "'mark'")],
        ..case(
            "fingerprint",
            "ALTER TABLE {table} ADD COLUMN mark uuid; GRANT SELECT (mark) ON {table} TO {role}",
            "fingerprint_column",
        )
    },
];

/// A role with all rights for the table `notes` in the schema of its name, as `sql/prepare_publication.sql` gives them,
/// and its connection string.
async fn prepared(scene: &Scene, name: &str) -> (String, String) {
    let role = format!("{name}_{}", scene.database.name());
    scene
        .sql(&format!(
            "CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'pw'; CREATE SCHEMA {name}; \
             CREATE TABLE {name}.notes (id int PRIMARY KEY, body text, embedding vector(384))"
        ))
        .await;
    let variables = [
        ("schema", name),
        ("table", "notes"),
        ("key", "id"),
        ("source", "body"),
        ("destination", "embedding"),
        ("type", &scene.database.adapted("vector(384)")),
        ("role", &role),
    ]
    .map(|(name, value)| format!("\\set {name} '{value}'\n"));
    let script = variables.concat() + &paths::read("sql/prepare_publication.sql");
    scene.database.psql(&script).await;
    let uri = scene.database.uri();
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let uri = format!("postgresql://{role}:pw@{place}");
    (role, uri)
}

async fn publication(scene: &Scene, schema: &str) -> String {
    let query = format!(
        "SELECT quote_ident(pubname) FROM pg_publication_tables WHERE schemaname = '{schema}' LIMIT 1"
    );
    scene.value(&query).await
}

#[tokio::test]
async fn each_right_that_is_lacking_is_said_in_the_words_of_the_failed_job() {
    let mut scene = scene_with(NOTES).await;
    scene
        .sql("ALTER TABLE jobs ADD COLUMN skip_triggers bool, ADD COLUMN fingerprint_column text")
        .await;
    let mut jobs = Vec::new();
    for case in &CASES {
        let (role, uri) = prepared(&scene, case.name).await;
        let taken = case
            .taken
            .replace("{role}", &role)
            .replace("{schema}", case.name)
            .replace("{table}", &format!("{}.notes", case.name))
            .replace("{publication}", &publication(&scene, case.name).await);
        execute(&scene.client, &taken).await;
        let job = Job {
            db_connection: uri,
            schema: Some(case.name),
            options: case.options,
            ..Job::on(&scene.database, "notes", "body", "embedding")
        };
        jobs.push((insert_job(&scene.client, job).await, case));
    }
    scene.spawn_daemon();
    for (job, case) in jobs {
        let reason = wait_for_failure(&scene.client, job).await;
        assert!(reason.contains(case.said), "{}: {reason}", case.name);
        assert_check_says(&scene.database.uri(), job, &reason, &[]).await;
    }
}

#[tokio::test]
async fn a_role_that_may_do_all_that_a_job_needs_and_no_more_passes() {
    let mut scene = scene_with(NOTES).await;
    let (_, uri) = prepared(&scene, "enough").await;
    let job = Job {
        db_connection: uri.clone(),
        schema: Some("enough"),
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    let job = insert_job(&scene.client, job).await;
    let id = job.to_string();
    let uri_of_jobs = scene.database.uri();
    let arguments = ["--uri", &uri_of_jobs, "--job", &id, "--refuse-superuser"];
    let checked = check(&arguments).await;
    let failed = texts(&checked, "failed");
    // The jobs table belongs to the superuser that --uri names, and no one else.
    assert!(failed.is_empty(), "{failed:#?}");
    scene.spawn_daemon();
    wait_for_backfill(&scene.client, job).await;

    // A slot for all jobs is no advice for a role that could not have one.
    for number in 1..5 {
        scene.sql(&format!("SELECT pg_create_logical_replication_slot('lantern_0000000b_{number}_00000001', 'pgoutput')")).await;
    }
    let advice = texts(&check(&arguments).await, "advice").concat();
    assert!(!advice.contains("--slots"), "{advice}");

    // One that is to share a slot needs more.
    let shared = check(&[&arguments[..4], &["--slots", "database"]].concat()).await;
    let failed = texts(&shared, "failed").concat();
    assert!(failed.contains("--slots job"), "{failed}");
}

/// The role of `write_connection` has rights on columns only, and one of them does not exist yet.
#[tokio::test]
async fn a_second_role_needs_rights_on_a_column_that_the_first_one_creates() {
    let mut scene = scene_with(NOTES).await;
    let (role, uri) = prepared(&scene, "second").await;
    scene
        .sql("ALTER TABLE second.notes DROP COLUMN embedding")
        .await;
    scene
        .sql("ALTER TABLE jobs ADD COLUMN write_connection text")
        .await;
    let connection = format!("'{uri}'");
    let job = Job {
        schema: Some("second"),
        options: &[("write_connection", &connection)],
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    let job = insert_job(&scene.client, job).await;
    scene.spawn_daemon();
    let reason = wait_for_failure(&scene.client, job).await;
    assert!(
        reason.contains(&role) && reason.contains("ADD COLUMN"),
        "{reason}"
    );
    assert_check_says(&scene.database.uri(), job, &reason, &[]).await;
    let (_, remedy) = reason.split_once("run as its owner: ").expect("a remedy");
    scene.sql(remedy).await;
    scene.sql("UPDATE jobs SET init_failed_at = NULL").await;
    wait_for_backfill(&scene.client, job).await;
}

/// As a role that may only read the jobs table.
#[tokio::test]
async fn a_role_that_may_not_write_to_the_jobs_table_is_told_and_sees_the_rest() {
    let scene = scene_with(NOTES).await;
    scene.job("notes", "body").await;
    let role = format!("onlooker_{}", scene.database.name());
    scene
        .sql(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT ON jobs TO {role}"
        ))
        .await;
    let uri = scene.database.uri();
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let uri = format!("postgresql://{role}:pw@{place}");
    let checked = check(&["--uri", &uri, "--job", "1"]).await;
    let failed = texts(&checked, "failed");
    assert!(
        failed.len() == 1 && failed[0].contains("GRANT UPDATE (") && failed[0].contains("jobs"),
        "{failed:#?}"
    );
}

/// Each statement with one semicolon; and without a key, no call of a script that publishes the key.
#[tokio::test]
async fn remedies_can_be_copied() {
    let scene = scene_with("CREATE TABLE notes (id int, body text)").await;
    let role = format!("bare_{}", scene.database.name());
    let create =
        format!("REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE ROLE {role} LOGIN PASSWORD 'pw'");
    scene.sql(&create).await;
    let uri = scene.database.uri();
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let bare = format!("postgresql://{role}:pw@{place}");
    let arguments = ["--uri", &uri, "--db-connection", &bare];
    let arguments = [&arguments[..], &["--table", "notes", "--column", "body"]].concat();
    let lacking = async || {
        let checked = check(&arguments).await;
        let failed = texts(&checked, "failed");
        assert!(!failed.concat().contains(";;"), "{failed:#?}");
        let found = failed
            .iter()
            .find(|text| text.contains("things for this job"));
        (*found.expect("several things")).to_owned()
    };
    let without_key = lacking().await;
    assert!(
        without_key.contains("has no key: let its owner add a primary key first")
            && !without_key.contains("-v "),
        "{without_key}"
    );
    scene.sql("ALTER TABLE notes ADD PRIMARY KEY (id)").await;
    let with_key = lacking().await;
    let end = "-f -; in detail: ";
    assert!(
        with_key.contains("-v key='\"id\"'") && with_key.contains(end),
        "{with_key}"
    );
    let with_type = [&arguments[..], &["--column-type", "real[]"]].concat();
    let found = texts(&check(&with_type).await, "failed").concat();
    assert!(found.contains("-v type='real[]' "), "{found}");
    let output = program().run(&[&["check"], &arguments[..]].concat()).await;
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains(&with_key), "{printed}");
}
