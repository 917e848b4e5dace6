//! What cannot work is rejected when the job starts, with a remedy, and leaves nothing behind. `check` says the same.

use testkit::client::{execute, value};
use testkit::jobs::{Job, articles, insert_job, wait_for_failure};
use testkit::{TestDatabase, server};
use tokio_postgres::Client;

use crate::support::{assert_check_says, start_daemon};

/// Jobs that must not start: what is prepared for them, and parts of the reason.
async fn refusals(database: &TestDatabase, client: &Client, cases: &[(&str, Job<'_>, &[&str])]) {
    let mut jobs = Vec::new();
    for (sql, job, said) in cases {
        execute(client, sql).await;
        jobs.push((insert_job(client, job.clone()).await, said));
    }
    let _daemon = start_daemon(database, &[]);
    for (job, said) in jobs {
        let reason = wait_for_failure(client, job).await;
        for part in *said {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        assert_check_says(&database.uri(), job, &reason, &[]).await;
    }
    let kept = "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) + (SELECT count(*) FROM pg_publication)";
    assert_eq!(value::<i64>(client, kept).await, 0);
}

#[tokio::test]
async fn a_table_that_cannot_be_followed_is_rejected_with_the_statement_that_helps() {
    let (database, client) = articles(server::shared()).await;
    let on = |table| Job::on(&database, table, "t", "v");
    let cases: &[(&str, Job<'_>, &[&str])] = &[
        (
            "CREATE TABLE no_key (t TEXT)",
            on("no_key"),
            &[
                "ALTER TABLE \"public\".\"no_key\" ADD COLUMN id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY;",
            ],
        ),
        (
            "CREATE TABLE no_key_yet (id INT, t TEXT)",
            on("no_key_yet"),
            &["ALTER TABLE \"public\".\"no_key_yet\" ADD PRIMARY KEY (id);"],
        ),
        (
            "CREATE TABLE only_unique (k INT NOT NULL UNIQUE, t TEXT)",
            on("only_unique"),
            &[
                "ALTER TABLE \"public\".\"only_unique\" REPLICA IDENTITY USING INDEX \"only_unique_k_key\";",
            ],
        ),
        (
            "CREATE TABLE nothing (id INT PRIMARY KEY, t TEXT); ALTER TABLE nothing REPLICA IDENTITY NOTHING",
            on("nothing"),
            &["ALTER TABLE \"public\".\"nothing\" REPLICA IDENTITY DEFAULT;"],
        ),
        (
            "CREATE TABLE full_only (id INT, t TEXT); ALTER TABLE full_only REPLICA IDENTITY FULL",
            on("full_only"),
            &["ADD PRIMARY KEY (id);"],
        ),
        (
            "CREATE TABLE deferred (id INT PRIMARY KEY DEFERRABLE, t TEXT)",
            on("deferred"),
            &[
                "not deferrable",
                "ALTER TABLE \"public\".\"deferred\" DROP CONSTRAINT \"deferred_pkey\", ADD PRIMARY KEY (\"id\");",
            ],
        ),
        (
            "CREATE UNLOGGED TABLE unlogged (id INT PRIMARY KEY, t TEXT)",
            on("unlogged"),
            &["ALTER TABLE \"public\".\"unlogged\" SET LOGGED;"],
        ),
        (
            "CREATE VIEW a_view AS SELECT 1 AS id, 'x' AS t",
            on("a_view"),
            &["is a view"],
        ),
        (
            "CREATE MATERIALIZED VIEW kept AS SELECT 1 AS id, 'x' AS t",
            on("kept"),
            &["is a materialized view"],
        ),
        (
            "",
            Job {
                schema: Some("pg_catalog"),
                ..Job::on(&database, "pg_description", "description", "v")
            },
            &["is a table of the system; name a table of your own"],
        ),
        (
            "",
            Job::on(&database, "articles", "headline", "v"),
            &["no column \"headline\"", "id, title, body"],
        ),
        (
            "",
            Job::on(&database, "articles", "title", "title"),
            &["a column of their own"],
        ),
        (
            "",
            Job::on(&database, "articles", "title", "body"),
            &["has the type text"],
        ),
    ];
    refused_with_remedies(&database, &client, cases).await;
}

#[tokio::test]
async fn a_table_whose_name_is_written_otherwise_is_suggested() {
    let (database, client) = articles(server::shared()).await;
    let on = |table| Job::on(&database, table, "t", "v");
    let cases: &[(&str, Job<'_>, &[&str])] = &[
        (
            "",
            on("Articles"),
            &["no table \"public\".\"Articles\"", "case-sensitive there)"],
        ),
        (
            "",
            on("\"articles\""),
            &[
                "without quotes and without its schema)",
                "did you mean \"public\".\"articles\"?",
            ],
        ),
        (
            "",
            on("public.articles"),
            &[
                "without quotes and without its schema)",
                "did you mean \"public\".\"articles\"?",
            ],
        ),
    ];
    refused_with_remedies(&database, &client, cases).await;
}

#[tokio::test]
async fn a_definition_that_cannot_work_says_what_to_correct() {
    let (database, client) = articles(server::shared()).await;
    let columns = "ALTER TABLE jobs ADD COLUMN runtime TEXT, ADD COLUMN batch_size INT, ADD COLUMN pk TEXT, \
                   ADD COLUMN fingerprint_column TEXT";
    execute(&client, columns).await;
    let on = |table, source, destination| Job::on(&database, table, source, destination);
    let with = |destination, options| Job {
        options,
        ..on("articles", "title", destination)
    };
    let empty_model = Job {
        embedding_model: "",
        ..on("articles", "title", "v1")
    };
    let cases: &[(&str, Job<'_>, &[&str])] = &[
        (
            "",
            on("", "title", "v1"),
            &["\"table\" is empty; set it in the jobs table"],
        ),
        (
            "",
            on("articles", "", "v1"),
            &["src_column is empty; set it in the jobs table"],
        ),
        (
            "",
            on("articles", "title", ""),
            &["dst_column is empty; set it in the jobs table"],
        ),
        (
            "",
            empty_model,
            &["embedding_model is empty; set it in the jobs table"],
        ),
        (
            "",
            with("v2", &[("runtime", "'local'")]),
            &["runtime \"local\" is not known: it is \"ort\""],
        ),
        (
            "",
            with("v3", &[("batch_size", "-1")]),
            &["batch_size must be at least 1; set it to NULL for the default"],
        ),
        (
            "",
            with("v4", &[("pk", "'isbn'")]),
            &["but the key of \"public\".\"articles\" is (id); correct pk or set it to NULL"],
        ),
        (
            "",
            with("v5", &[("fingerprint_column", "'title'")]),
            &["fingerprints need a column of their own"],
        ),
        (
            "",
            with("v6", &[("fingerprint_column", "'body'")]),
            &["an ordinary column of the type uuid, and is of the type text; name another one"],
        ),
        (
            "CREATE TABLE made (id INT PRIMARY KEY, t TEXT, v REAL[] GENERATED ALWAYS AS (ARRAY[1::REAL]) STORED)",
            on("made", "t", "v"),
            &["(dst_column) is a generated column, which cannot be written; name another one"],
        ),
    ];
    refusals(&database, &client, cases).await;
}

#[tokio::test]
async fn a_vector_column_of_another_length_is_rejected_with_the_statement_that_helps() {
    let (database, client) = articles(server::shared()).await;
    if database.skips_vector() {
        return;
    }
    let cases: &[(&str, Job<'_>, &[&str])] = &[(
        "CREATE TABLE short (id INT PRIMARY KEY, t TEXT, v VECTOR(3))",
        Job::on(&database, "short", "t", "v"),
        &[
            "3 dimensions",
            "makes 384",
            "ALTER TABLE \"public\".\"short\" ALTER COLUMN \"v\" TYPE vector(384) USING NULL;",
        ],
    )];
    refused_with_remedies(&database, &client, cases).await;
}

/// As [`refusals`]; the remedies are statements that run as they are.
async fn refused_with_remedies(
    database: &TestDatabase,
    client: &Client,
    cases: &[(&str, Job<'_>, &[&str])],
) {
    refusals(database, client, cases).await;
    for (_, job, said) in cases {
        let reason = value::<String>(
            client,
            &format!(
                "SELECT init_failure_reason FROM jobs WHERE \"table\" = '{}' LIMIT 1",
                job.table
            ),
        )
        .await;
        if let Some((_, remedy)) = reason.split_once("run: ") {
            assert!(said.iter().any(|part| remedy.ends_with(part)), "{reason}");
            execute(client, remedy).await;
        }
    }
}
