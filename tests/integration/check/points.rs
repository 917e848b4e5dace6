//! What is listed, what is printed, and that nothing is changed.

use testkit::TestDatabase;
use testkit::client::{execute, value};
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill, wait_for_failure};
use testkit::server;
use tokio_postgres::Client;

use crate::support::{assert_check_says, check, program, start_daemon, text, texts};

/// Everything that a command could leave behind, as one text.
async fn state(client: &Client) -> String {
    let statement = "SELECT concat_ws(E'\\n', \
         (SELECT string_agg(concat_ws(' ', c.oid, c.relname, a.attname), ',' ORDER BY c.oid, a.attnum) \
          FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid), \
         (SELECT string_agg(pubname, ',') FROM pg_publication), \
         (SELECT string_agg(slot_name, ',') FROM pg_replication_slots WHERE database = current_database()), \
         (SELECT count(*) FROM pg_description), \
         (SELECT string_agg(xmin || ' ' || jobs::text, ',') FROM jobs), \
         (SELECT string_agg(xmin || ' ' || articles::text, ',') FROM articles))";
    value(client, statement).await
}

/// The database with a row, and arguments that name its server.
async fn with_row() -> (TestDatabase, Client, String) {
    let (database, client) = articles(server::shared()).await;
    execute(&client, "INSERT INTO articles (title) VALUES ('a title')").await;
    let uri = database.uri();
    (database, client, uri)
}

#[tokio::test]
async fn nothing_is_changed_for_a_job_that_exists_or_not() {
    let (database, client, uri) = with_row().await;
    execute(
        &client,
        "ALTER TABLE jobs ADD COLUMN fingerprint_column text",
    )
    .await;
    let options = &[("fingerprint_column", "'mark'")];
    let job = Job {
        options,
        ..Job::on(&database, "articles", "title", "vector")
    };
    let job = insert_job(&client, job).await.to_string();
    let before = state(&client).await;
    let target = ["--db-connection", &uri];
    let new = [
        "--table",
        "articles",
        "--column",
        "title",
        "--fingerprint-column",
        "m",
    ];
    for subject in [&["--job", &job][..], &[&new[..], &target].concat()] {
        for slots in ["job", "database"] {
            let arguments = [&["--uri", &uri, "--slots", slots], subject].concat();
            let checked = check(&arguments).await;
            let failed = texts(&checked, "failed");
            assert!(failed.is_empty(), "{subject:?}: {failed:#?}");
            assert!(text(&checked, "new columns").contains("the job creates"));
        }
    }
    assert_eq!(state(&client).await, before);
}

#[tokio::test]
async fn a_job_that_runs_is_no_conflict_with_itself_and_is_one_for_another() {
    let (database, client, uri) = with_row().await;
    for slots in ["job", "database"] {
        let _daemon = start_daemon(&database, &["--slots", slots]);
        let job = insert_job(&client, Job::on(&database, "articles", "title", slots)).await;
        wait_for_backfill(&client, job).await;
        let id = job.to_string();
        let own = ["--uri", &uri, "--slots", slots, "--job", &id];
        let checked = check(&own).await;
        let failed = texts(&checked, "failed");
        assert!(failed.is_empty(), "{failed:#?}");
        assert!(text(&checked, "slots").contains("that of the job among them"));
        assert!(text(&checked, "job").starts_with("job "));

        let second = insert_job(&client, Job::on(&database, "articles", "body", slots)).await;
        let reason = wait_for_failure(&client, second).await;
        assert!(reason.contains(&format!("job {job} writes")), "{reason}");
        assert_check_says(&uri, second, &reason, &["--slots", slots]).await;
        execute(&client, "UPDATE jobs SET canceled_at = true").await;
    }
}

#[tokio::test]
async fn a_job_of_another_jobs_table_that_writes_the_same_column_is_found() {
    let (database, client, uri) = with_row().await;
    let _daemon = start_daemon(&database, &[]);
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    wait_for_backfill(&client, job).await;
    execute(
        &client,
        "CREATE TABLE others (LIKE jobs INCLUDING ALL); \
         INSERT INTO others (db_connection, \"table\", src_column, dst_column, embedding_model) \
         SELECT db_connection, \"table\", 'body', dst_column, embedding_model FROM jobs",
    )
    .await;
    let id: i32 = value(&client, "SELECT id FROM others").await;
    let id = id.to_string();
    let checked = check(&["--uri", &uri, "--jobs-table", "others", "--job", &id]).await;
    let failed = texts(&checked, "failed").concat();
    assert!(failed.contains("is written by job"), "{failed}");
}

#[tokio::test]
async fn canceled_and_failed_jobs_are_told_with_what_to_do() {
    let (database, client, uri) = with_row().await;
    for (column, title) in [("a", "title"), ("b", "nothing")] {
        insert_job(&client, Job::on(&database, "articles", title, column)).await;
    }
    execute(&client, "UPDATE jobs SET canceled_at = true WHERE id = 1").await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_failure(&client, 2).await;
    for (id, said) in [
        (
            "1",
            "UPDATE \"public\".\"jobs\" SET canceled_at = false WHERE id = 1;",
        ),
        ("2", "lantern-cli jobs retry 2"),
        ("3", "there is no job 3"),
        ("one", "there is no job one"),
    ] {
        let checked = check(&["--uri", &uri, "--job", id]).await;
        let failed = texts(&checked, "failed");
        assert!(failed[0].contains(said), "{said}: {failed:#?}");
        let titles = checked["points"].as_array().expect("a list").len();
        assert!(titles > 20, "{checked:#}");
    }
}

/// All of them, although the first one fails.
#[tokio::test]
async fn points_that_cannot_be_looked_at_say_so() {
    let (_database, _client, uri) = with_row().await;
    let new = ["--uri", &uri, "--table", "nothing", "--column", "title"];
    let with_password = [&new[..], &["--db-connection", &uri]].concat();
    let checked = check(&with_password).await;
    assert!(texts(&checked, "failed")[0].contains("no table \"public\".\"nothing\""));
    assert!(text(&checked, "key").contains("there is no table"));
    assert_eq!(text(&checked, "wal_level"), "logical");

    let away = [
        &new[..],
        &["--db-connection", "postgresql://me@127.0.0.1:1/d"],
    ]
    .concat();
    let checked = check(&away).await;
    assert!(text(&checked, "connection").contains("cannot connect"));
    for title in ["wal_level", "key", "walsender", "rows"] {
        assert!(text(&checked, title).contains("no connection"), "{title}");
    }
}

#[tokio::test]
async fn a_point_is_one_line_and_plain_in_a_pipe() {
    let (_database, _client, uri) = with_row().await;
    let output = program()
        .run(&[
            "check",
            "--uri",
            &uri,
            "--db-connection",
            &uri,
            "--table",
            "articles",
            "--column",
            "headline",
        ])
        .await;
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).expect("it prints UTF-8");
    assert!(printed.contains("✓ wal_level"), "{printed}");
    assert!(printed.contains("✗ source column"), "{printed}");
    assert!(
        printed.ends_with("see ✗ above for what to do.\n"),
        "{printed}"
    );
    assert!(!printed.contains('\u{1b}'), "{printed}");
    for line in printed.lines().take_while(|line| !line.is_empty()) {
        assert!(line.starts_with(['✓', '✗', '!', '·']), "{line}");
    }
    let password = uri
        .split_once(':')
        .and_then(|(_, rest)| rest.split_once(':'));
    let password = password
        .and_then(|(_, rest)| rest.split_once('@'))
        .expect("one")
        .0;
    assert!(!printed.contains(password), "{printed}");
}

#[tokio::test]
async fn a_view_may_stand_for_the_jobs_table() {
    let (database, client, uri) = with_row().await;
    execute(
        &client,
        "ALTER TABLE jobs RENAME TO below; CREATE VIEW jobs AS SELECT * FROM below; \
         ALTER VIEW jobs ALTER id SET DEFAULT 5",
    )
    .await;
    insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let checked = check(&["--uri", &uri, "--job", "5"]).await;
    let failed = texts(&checked, "failed");
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The index that a job asks for is looked at, before hours of backfill.
#[tokio::test]
async fn an_index_that_cannot_be_built_is_told_beforehand() {
    let (database, client, uri) = with_row().await;
    if database.skips_vector() {
        return;
    }
    execute(
        &client,
        "ALTER TABLE articles ADD plain real[], ADD vectors vector(384); ALTER TABLE jobs ADD create_index text",
    )
    .await;
    let subject = ["--uri", &uri, "--table", "articles", "--column", "title"];
    let more = ["--db-connection", &uri, "--create-index", "hnsw"];
    let asked = |column: &'static str| [&subject[..], &more, &["--dst-column", column]].concat();
    let checked = check(&asked("vectors")).await;
    assert_eq!(
        text(&checked, "create_index"),
        "built once the initial backfill is finished"
    );
    let checked = check(&asked("plain")).await;
    let failed = texts(&checked, "failed");
    assert!(
        failed.len() == 1 && failed[0].contains("real[]"),
        "{failed:#?}"
    );
    let job = Job {
        options: &[("create_index", "'hnsw'")],
        ..Job::on(&database, "articles", "title", "plain")
    };
    let id = insert_job(&client, job).await;
    let _daemon = start_daemon(&database, &[]);
    assert_eq!(wait_for_failure(&client, id).await, failed[0]);
}

/// Also where the job has yet to create the column. It fails before it does.
#[tokio::test]
async fn an_index_of_a_column_that_does_not_exist_yet_is_told_beforehand() {
    let (database, client, uri) = with_row().await;
    execute(
        &client,
        "ALTER TABLE jobs ADD create_index text, ADD column_type text",
    )
    .await;
    let subject = ["--uri", &uri, "--table", "articles", "--column", "title"];
    let more = ["--db-connection", &uri, "--create-index", "hnsw"];
    let more = [&subject[..], &more, &["--dst-column", "later"]].concat();
    if !database.skips_vector() {
        let checked = check(&more).await;
        let said = text(&checked, "create_index");
        assert_eq!(said, "built once the initial backfill is finished");
    }
    let arrays = check(&[&more[..], &["--column-type", "real[]"]].concat()).await;
    execute(&client, "DROP EXTENSION IF EXISTS vector CASCADE").await;
    let without_pgvector = check(&more).await;
    let failed = texts(&without_pgvector, "failed");
    assert_eq!(failed, texts(&arrays, "failed"));
    assert_eq!(failed.len(), 1, "{failed:#?}");
    assert!(
        failed[0].contains("set column_type to vector"),
        "{failed:?}"
    );

    let job = Job {
        options: &[("create_index", "'hnsw'")],
        ..Job::on(&database, "articles", "title", "later")
    };
    let id = insert_job(&client, job).await;
    let _daemon = start_daemon(&database, &[]);
    assert_eq!(wait_for_failure(&client, id).await, failed[0]);
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'articles'::regclass AND attname = 'later'";
    assert_eq!(value::<i64>(&client, columns).await, 0);
}

/// No statement and no tick for what was only misspelt.
#[tokio::test]
async fn a_misspelt_name_is_answered_with_the_one_that_was_meant() {
    let (_database, client, uri) = with_row().await;
    execute(&client, "CREATE SCHEMA \"Press\"; CREATE TABLE \"Press\".\"Releases\" (id int PRIMARY KEY, body text)").await;
    let subject = ["--uri", &uri, "--db-connection", &uri];
    let checked =
        check(&[&subject[..], &["--table", "articles", "--column", "titel"]].concat()).await;
    assert!(
        text(&checked, "source column").ends_with("; did you mean \"title\"?"),
        "{checked:#}"
    );
    let all = checked.to_string();
    assert!(
        !all.contains("titel_embedding") || !all.contains("ADD COLUMN"),
        "{checked:#}"
    );
    let unknown = texts(&checked, "unknown");
    for title in ["privileges", "writing", "new columns", "publication"] {
        let found = text(&checked, title);
        assert_eq!(found, "there is no source column", "{title}");
        assert!(unknown.contains(&found), "{title}");
    }
    for (written, meant) in [
        ("artcles", "\"public\".\"articles\""),
        ("Articles", "\"public\".\"articles\""),
        ("public.articles", "\"public\".\"articles\""),
        ("Releases", "\"Press\".\"Releases\""),
        ("\"articles\"", "\"public\".\"articles\""),
        ("\"Press\".\"Releases\"", "\"Press\".\"Releases\""),
        ("press.articles", "\"public\".\"articles\""),
        ("public.artcles", "\"public\".\"articles\""),
    ] {
        let checked =
            check(&[&subject[..], &["--table", written, "--column", "title"]].concat()).await;
        let found = text(&checked, "table");
        assert!(
            found.ends_with(&format!("; did you mean {meant}?")),
            "{found}"
        );
    }
    let checked =
        check(&[&subject[..], &["--table", "invoices", "--column", "title"]].concat()).await;
    assert!(
        !text(&checked, "table").contains("did you mean"),
        "{checked:#}"
    );
}
