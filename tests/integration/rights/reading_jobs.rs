//! Roles that read jobs: those that search, and those whose rights are on columns.

use testkit::scene::{CAVES, MOON, NOTES, TIDES};
use testkit::wait::TIMEOUT;

use super::{role, run_script};
use crate::support::{notes_scene, program, scene_with};

async fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = program().run(arguments).await;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn a_searcher_needs_a_view_without_passwords_and_a_login_of_its_own() {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    let searcher = role(&scene, "searcher", "").await;
    // It may run again, also after a column was added.
    run_script(&scene, "sql/searchers.sql", &[("role", &searcher.name)]).await;
    scene
        .sql("ALTER TABLE jobs ADD write_connection text; ALTER TABLE jobs ADD label text")
        .await;
    run_script(&scene, "sql/searchers.sql", &[("role", &searcher.name)]).await;
    let may = format!(
        "SELECT has_table_privilege('{0}', 'jobs', 'SELECT') OR has_any_column_privilege('{0}', 'jobs', 'SELECT') \
           OR has_table_privilege('{0}', 'jobs_for_searchers', 'UPDATE')",
        searcher.name
    );
    assert_eq!(scene.value(&may).await, "false");
    assert_eq!(
        scene
            .value("SELECT count(db_connection) FROM jobs_for_searchers")
            .await,
        "0"
    );

    let place = [
        "--uri",
        &searcher.uri,
        "--table",
        "jobs_for_searchers",
        "--job",
        "1",
    ];
    let (status, _, error) = run(&[&["search"], &place[..], &[TIDES]].concat()).await;
    assert_eq!(status, Some(1));
    assert!(error.contains("--target"), "{error}");

    scene
        .sql(&format!(
            "GRANT SELECT (id, body, embedding) ON notes TO {}",
            searcher.name
        ))
        .await;
    let target = ["--target", &searcher.uri];
    let (status, found, error) = run(&[&["search"], &place[..], &target, &[TIDES]].concat()).await;
    assert_eq!(status, Some(0), "{error}");
    let place_of = |text: &str| found.find(&text[..20]).expect("it is found");
    assert!(place_of(TIDES) < place_of(CAVES), "{found}");
    let (status, report, error) = run(&[&["verify"], &place[..], &target].concat()).await;
    assert_eq!(status, Some(0), "{report}{error}");
    assert!(
        report.contains("quarantined rows: the role may not read"),
        "{report}"
    );
    // What it may not write, it cannot.
    scene
        .sql("UPDATE notes SET embedding = NULL WHERE id = 1")
        .await;
    let (status, ..) = run(&[&["resync"], &place[..], &target].concat()).await;
    assert_eq!(status, Some(1));
    assert_eq!(
        scene
            .value("SELECT count(*) FROM jobs_for_searchers WHERE init_failed_at IS NOT NULL")
            .await,
        "0"
    );
}

/// As a column added later has no grants, and as `db_connection` may be withheld.
#[tokio::test]
async fn rights_on_the_columns_that_are_read_suffice() {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    let reader = role(&scene, "reader", "").await;
    let columns = "id, init_started_at, init_failed_at, init_finished_at, init_failure_reason, canceled_at, schema, \
                   \"table\", src_column, dst_column, embedding_model";
    scene
        .sql(&format!(
            "ALTER TABLE jobs ADD secret text; GRANT SELECT ({columns}) ON jobs TO {0}; \
             GRANT SELECT (id, body, embedding) ON notes TO {0}",
            reader.name
        ))
        .await;
    let place = ["--uri", &reader.uri, "--job", "1"];
    let (status, _, error) = run(&[&["search"], &place[..], &[TIDES]].concat()).await;
    assert_eq!(status, Some(1));
    assert!(
        error.contains("shows no db_connection") && error.contains("--target"),
        "{error}"
    );
    let target = ["--target", &reader.uri];
    let (status, found, error) = run(&[&["search"], &place[..], &target, &[TIDES]].concat()).await;
    assert_eq!(status, Some(0), "{error}");
    assert!(found.contains(&TIDES[..20]), "{found}");

    // An option that the table has and the role may not read must not be taken for one that is not set.
    scene.sql("ALTER TABLE jobs ADD skip_triggers bool").await;
    let (status, _, error) = run(&[&["search"], &place[..], &target, &[TIDES]].concat()).await;
    assert_eq!(status, Some(1));
    let grant = format!(
        "GRANT SELECT (\"skip_triggers\") ON \"public\".\"jobs\" TO \"{}\";",
        reader.name
    );
    assert!(error.contains(&grant), "{error}");
    scene.sql(&grant).await;
    let (status, ..) = run(&[&["search"], &place[..], &target, &[TIDES]].concat()).await;
    assert_eq!(status, Some(0));
}

/// The daemon asks for the columns that it writes, by name.
#[tokio::test]
async fn a_daemon_that_may_not_write_a_column_says_which_at_its_start() {
    let scene = scene_with(NOTES).await;
    let daemon = role(&scene, "daemon", "").await;
    scene
        .sql(&format!(
            "ALTER TABLE jobs ADD waits_for text; GRANT SELECT ON jobs TO {0}; \
             GRANT UPDATE (init_started_at, init_failed_at, init_finished_at, init_failure_reason) ON jobs TO {0}",
            daemon.name
        ))
        .await;
    let mut process = program().start_daemon(&["--uri", &daemon.uri]);
    let (status, _) = process.wait(TIMEOUT).await;
    let grant = format!(
        "GRANT UPDATE (\"waits_for\") ON \"public\".\"jobs\" TO \"{}\";",
        daemon.name
    );
    assert!(
        !status.success() && process.log().contains(&grant),
        "{}",
        process.log()
    );
    scene.sql(&grant).await;
    let process = program().start_daemon(&["--uri", &daemon.uri]);
    process.wait_for_line("watching", TIMEOUT).await;
}
