//! The jobs table: labels, optional columns, other names, and tables that a daemon cannot work with.

use testkit::client::{execute, value, wait_for_value};
use testkit::jobs::{
    DOCUMENTED_TABLE, Job, articles, create_documented_table, insert_job, wait_for_backfill,
    wait_for_failure,
};
use testkit::vectors::wait_for_vectors;
use testkit::wait::TIMEOUT;
use testkit::{Process, TestDatabase, paths, server};
use tokio_postgres::Client;

use crate::support::{assert_check_says, program, start_daemon};

/// A database with the table of `sql/jobs.sql` and an empty table `articles`.
async fn full_table() -> (TestDatabase, Client) {
    let (database, client) = articles(server::shared()).await;
    execute(&client, "DROP TABLE jobs").await;
    database.psql(&paths::read("sql/jobs.sql")).await;
    (database, client)
}

#[tokio::test]
async fn a_daemon_with_a_label_takes_the_jobs_of_that_label_only() {
    let (database, client) = full_table().await;
    let row = "INSERT INTO articles (title, body) VALUES ('a title', 'a body')";
    execute(&client, row).await;
    let mine = insert_job(&client, Job::on(&database, "articles", "title", "mine")).await;
    for destination in ["other", "none"] {
        insert_job(&client, Job::on(&database, "articles", "body", destination)).await;
    }
    let label = "UPDATE jobs SET label = NULLIF(dst_column, 'none')";
    execute(&client, label).await;
    let mut daemon = start_daemon(&database, &["--label", "mine"]);
    wait_for_backfill(&client, mine).await;
    // Once a later job has come to its end, the earlier ones would have started.
    let late = insert_job(&client, Job::on(&database, "articles", "body", "late")).await;
    execute(
        &client,
        "UPDATE jobs SET label = 'mine' WHERE dst_column = 'late'",
    )
    .await;
    wait_for_backfill(&client, late).await;
    let started = "SELECT string_agg(dst_column, ' ' ORDER BY id) FROM jobs WHERE init_started_at IS NOT NULL";
    assert_eq!(value::<String>(&client, started).await, "mine late");

    // A daemon without a label takes all jobs that no other daemon runs.
    assert!(daemon.terminate().await.0.success());
    let _daemon = start_daemon(&database, &[]);
    for destination in ["mine", "late", "other", "none"] {
        let source = if destination == "mine" {
            "title"
        } else {
            "body"
        };
        wait_for_vectors(&client, "articles", source, destination).await;
    }
}

#[tokio::test]
async fn a_label_needs_its_column() {
    let (database, _client) = articles(server::shared()).await;
    let mut daemon = start_daemon(&database, &["--label", "mine"]);
    refused(&mut daemon, &["label", "ADD COLUMN label TEXT"]).await;
}

#[tokio::test]
async fn optional_columns_of_the_jobs_table_are_used() {
    let (database, client) = full_table().await;
    if database.skips_vector() {
        return;
    }
    execute(
        &client,
        "INSERT INTO articles (title, body) SELECT 'title ' || n, 'body ' || n FROM generate_series(1, 30) n",
    )
    .await;
    let wanted = [
        ("title", "v1", "pk = 'id', batch_size = 7"),
        ("title", "v2", "column_type = 'REAL[]', runtime = NULL"),
        ("body", "v3", "column_type = 'double precision[]'"),
        ("body", "v4", "column_type = 'halfvec(384)'"),
    ];
    for (source, destination, set) in wanted {
        let job = insert_job(&client, Job::on(&database, "articles", source, destination)).await;
        execute(&client, &format!("UPDATE jobs SET {set} WHERE id = {job}")).await;
    }
    let refused = [
        ("pk = 'title'", "'title'"),
        ("column_type = 'vector(3)'", "384"),
        ("column_type = 'int; DROP TABLE jobs'", "is not known"),
        ("batch_size = 0", "batch_size"),
        ("runtime = 'openia'", "openia"),
    ];
    let mut refusals = Vec::new();
    for (set, said) in refused {
        let job = insert_job(&client, Job::on(&database, "articles", "title", "bad")).await;
        execute(&client, &format!("UPDATE jobs SET {set} WHERE id = {job}")).await;
        refusals.push((job, said));
    }
    let _daemon = start_daemon(&database, &[]);
    for (job, said) in refusals {
        let reason = wait_for_failure(&client, job).await;
        assert!(reason.contains(said), "{said}: {reason}");
        assert_check_says(&database.uri(), job, &reason, &[]).await;
    }
    for (source, destination, _) in wanted {
        wait_for_vectors(&client, "articles", source, destination).await;
    }
    let done = "SELECT count(*) FROM jobs WHERE init_progress = 100 AND init_finished_at IS NOT NULL AND updated_at >= created_at";
    wait_for_value(&client, done, 4_i64).await;
    let types = "SELECT string_agg(format_type(atttypid, atttypmod), ' ' ORDER BY attname) FROM pg_attribute
                 WHERE attrelid = 'articles'::regclass AND attname ~ '^v[0-9]'";
    assert_eq!(
        value::<String>(&client, types).await,
        "vector(384) real[] double precision[] halfvec(384)"
    );
}

#[tokio::test]
async fn a_jobs_table_may_be_anywhere_and_have_any_name() {
    let (database, client) = articles(server::shared()).await;
    // A table of the same name in another schema is no trouble.
    execute(
        &client,
        r#"CREATE SCHEMA "Jobs & more"; DROP TABLE jobs;
           CREATE TABLE "the ""good"" jobs" (LIKE articles);
           INSERT INTO articles (title) VALUES ('a title')"#,
    )
    .await;
    let table = r#""Jobs & more"."the ""good"" jobs""#;
    let create = DOCUMENTED_TABLE.replace("TABLE jobs", &format!("TABLE {table}"));
    execute(&client, &create).await;
    let (uri, name) = (database.uri(), r#"the "good" jobs"#);
    let place = ["--schema", "Jobs & more", "--table", name];
    let _daemon = program().start_daemon(&[&["--uri", &uri], &place[..]].concat());
    // The other helpers know the table by its documented name.
    execute(
        &client,
        &format!(
            "CREATE VIEW jobs AS SELECT * FROM {table}; ALTER VIEW jobs ALTER id SET DEFAULT 17"
        ),
    )
    .await;
    let job = Job {
        // The schema of the target defaults to public.
        schema: None,
        ..Job::on(&database, "articles", "title", "vector")
    };
    let job = insert_job(&client, job).await;
    wait_for_backfill(&client, job).await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
}

/// The daemon ends with a failure and prints the reason.
async fn refused(daemon: &mut Process, said: &[&str]) {
    let (status, _) = daemon.wait(TIMEOUT).await;
    let log = daemon.log();
    assert_eq!(status.code(), Some(1), "{log}");
    for part in said {
        assert!(log.contains(part), "{part}: {log}");
    }
}

/// Its owner is not told to add eleven columns to it.
#[tokio::test]
async fn a_table_of_something_else_is_no_jobs_table() {
    let database = TestDatabase::create(server::shared()).await;
    let client = database.client().await;
    execute(
        &client,
        "CREATE TABLE products (id int, \"table\" text); CREATE VIEW shown AS SELECT * FROM products",
    )
    .await;
    let uri = database.uri();
    let run = async |arguments: &[&str]| {
        let (command, more) = arguments.split_at(1);
        let output = program()
            .run(&[command, &["--uri", &uri], more].concat())
            .await;
        assert_eq!(output.status.code(), Some(1));
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!said.contains("ALTER TABLE"), "{said}");
        said
    };
    for name in ["products", "shown"] {
        let said = run(&["status", "--table", name]).await;
        let what =
            format!("\"public\".\"{name}\" is no jobs table: it lacks the columns db_connection, ");
        assert!(said.contains(&what), "{said}");
        assert!(
            said.contains("create one of another name: lantern-cli create-table"),
            "{said}"
        );
    }

    create_documented_table(&client).await;
    let moved = "CREATE SCHEMA app; ALTER TABLE jobs SET SCHEMA app; ALTER TABLE app.jobs DROP COLUMN src_column";
    execute(&client, moved).await;
    let hint = "--schema app --table jobs?";
    for command in ["status", "start-daemon"] {
        let said = run(&[command, "--table", "products"]).await;
        assert!(said.contains(&format!("; did you mean {hint}")), "{said}");
    }
    let said = run(&["check", "--jobs-table", "products", "--job", "1"]).await;
    assert!(
        said.contains("did you mean --jobs-schema app --jobs-table jobs?"),
        "{said}"
    );
    let said = run(&["status", "--table", "Jobs"]).await;
    assert!(
        said.contains(&format!("; did you mean {hint} Otherwise create it with")),
        "{said}"
    );
    execute(&client, "CREATE VIEW old AS SELECT * FROM app.jobs").await;
    let said = run(&["status", "--table", "old"]).await;
    assert!(
        said.contains("CREATE OR REPLACE VIEW \"public\".\"old\""),
        "{said}"
    );
}

#[tokio::test]
async fn an_unsuitable_jobs_table_is_rejected_with_a_remedy() {
    let database = TestDatabase::create(server::shared()).await;
    let client = database.client().await;
    let mut daemon = start_daemon(&database, &[]);
    refused(
        &mut daemon,
        &["no table \"public\".\"jobs\"", "sql/jobs.sql"],
    )
    .await;

    create_documented_table(&client).await;
    execute(&client, "ALTER TABLE jobs DROP COLUMN src_column").await;
    let mut daemon = start_daemon(&database, &[]);
    let remedy = "ALTER TABLE \"public\".\"jobs\" ADD COLUMN \"src_column\" TEXT;";
    refused(&mut daemon, &["lacks the column src_column", remedy]).await;
    let (_, statement) = remedy.split_once("jobs\" ").expect("a remedy");
    execute(&client, &format!("ALTER TABLE jobs {statement}")).await;

    execute(
        &client,
        "ALTER TABLE jobs ALTER canceled_at TYPE INT USING NULL",
    )
    .await;
    let mut daemon = start_daemon(&database, &[]);
    refused(&mut daemon, &["canceled_at", "integer", "BOOL, TIMESTAMP"]).await;

    let elsewhere = database
        .uri()
        .replace("postgresql://postgres", "postgresql://nobody");
    let mut daemon = program().start_daemon(&["--uri", &elsewhere]);
    refused(&mut daemon, &["nobody"]).await;
}
