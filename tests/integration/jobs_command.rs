//! `lantern-cli jobs` and `create-table`: friendly ways to write the documented rows. SQL does the same.

use testkit::client::{execute, value};
use testkit::jobs::{DOCUMENTED_TABLE, articles, wait_for_backfill, wait_for_failure};
use testkit::vectors::wait_for_vectors;
use testkit::{TestDatabase, paths, server};
use tokio_postgres::Client;

use crate::support::{check, program, start_daemon, texts};

/// Exit status, standard output and standard error of a command.
async fn run(uri: &str, command: &[&str], arguments: &[&str]) -> (i32, String, String) {
    let output = program()
        .run(&[command, &["--uri", uri], arguments].concat())
        .await;
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    let status = output.status.code().expect("it exits");
    (status, text(output.stdout), text(output.stderr))
}

async fn jobs(uri: &str, subcommand: &str, arguments: &[&str]) -> (i32, String, String) {
    run(uri, &["jobs", subcommand], arguments).await
}

/// A database with the documented jobs table, `articles` with a row, and arguments for a job that has a password.
async fn scene() -> (TestDatabase, Client, String) {
    let (database, client) = articles(server::shared()).await;
    execute(&client, "INSERT INTO articles (title) VALUES ('a title')").await;
    let uri = database.uri();
    (database, client, uri)
}

const NEW: [&str; 4] = ["--table", "articles", "--column", "title"];

#[tokio::test]
async fn a_job_is_added_with_the_documented_row_and_no_password_is_printed() {
    let (database, client, uri) = scene().await;
    let arguments = [&NEW[..], &["--db-connection", &uri]].concat();
    let (status, printed, errors) = jobs(&uri, "add", &arguments).await;
    assert_eq!(status, 0, "{printed}{errors}");
    let (_, login) = uri.split_once("://postgres:").expect("a login");
    let (password, place) = login.split_once('@').expect("a password");
    assert!(!printed.contains(password), "{printed}");
    let insert = format!(
        "INSERT INTO \"public\".\"jobs\" (db_connection, schema, \"table\", src_column, dst_column, embedding_model) \
         VALUES ('postgresql://postgres:***@{place}', 'public', 'articles', 'title', 'title_embedding', \
         'sentence-transformers/all-MiniLM-L6-v2');"
    );
    assert!(printed.contains(&insert), "{insert}\n{printed}");
    assert!(printed.contains("job 1 is added"), "{printed}");
    assert_eq!(
        value::<String>(&client, "SELECT db_connection FROM jobs").await,
        uri
    );
    let _daemon = start_daemon(&database, &[]);
    wait_for_vectors(&client, "articles", "title", "title_embedding").await;
}

/// The string of `--uri`, whose password the environment lends, to the daemon as to the check.
#[tokio::test]
async fn without_a_target_the_row_names_the_database_of_uri_and_holds_no_password() {
    let (database, client, uri) = scene().await;
    let (before, rest) = uri.split_once("://postgres:").expect("a password");
    let (password, place) = rest.split_once('@').expect("a place");
    let plain = format!("{before}://postgres@{place}");
    let program = program().with_env("PGPASSWORD", password);
    let added = [&["jobs", "add", "--uri", &plain], &NEW[..]].concat();
    program.stdout_of(&added).await;
    let stored: String = value(&client, "SELECT db_connection FROM jobs").await;
    assert_eq!(stored, plain);
    let _daemon = program.start_daemon(&["--uri", &plain]);
    wait_for_backfill(&client, 1).await;
    drop(database);
}

#[tokio::test]
async fn a_job_that_would_not_start_is_added_only_by_force() {
    let (_database, client, uri) = scene().await;
    let count = "SELECT count(*) FROM jobs";
    let wrong = [
        "--table",
        "articles",
        "--column",
        "headline",
        "--db-connection",
        &uri,
    ];
    let (status, printed, errors) = jobs(&uri, "add", &wrong).await;
    assert_eq!(status, 1);
    assert!(printed.contains("✗ source column"), "{printed}");
    assert!(
        !printed.contains('✓') && errors.contains("--force"),
        "{printed}{errors}"
    );
    assert_eq!(value::<i64>(&client, count).await, 0);

    let (status, printed, _) = jobs(&uri, "add", &[&wrong[..], &["--force"]].concat()).await;
    assert!(status == 0 && printed.contains('✗'), "{printed}");
    let (status, printed, _) = jobs(&uri, "add", &[&wrong[..], &["--no-check"]].concat()).await;
    assert!(status == 0 && !printed.contains('✗'), "{printed}");
    assert_eq!(value::<i64>(&client, count).await, 2);
}

#[tokio::test]
async fn options_are_columns_that_the_table_must_have() {
    let (_database, client, uri) = scene().await;
    let options = [
        ("--fingerprint-column", "mark", "fingerprint_column text"),
        ("--batch-size", "7", "batch_size bigint"),
        ("--label", "it's mine", "label text"),
        (
            "--runtime-params",
            "{\"pooling\": \"mean\"}",
            "runtime_params text",
        ),
    ];
    for (option, given, column) in options {
        let arguments = [&NEW[..], &["--no-check", option, given]].concat();
        let (status, _, errors) = jobs(&uri, "add", &arguments).await;
        let remedy = format!("ALTER TABLE \"public\".\"jobs\" ADD COLUMN {column};");
        assert!(status == 1 && errors.contains(&remedy), "{errors}");
        let (_, statement) = errors.trim_end().split_once("add it: ").expect("a remedy");
        execute(&client, statement).await;
    }
    let all: Vec<&str> = options
        .iter()
        .flat_map(|(option, given, _)| [*option, given])
        .collect();
    let arguments = [&NEW[..], &["--db-connection", &uri], &all].concat();
    let (status, printed, errors) = jobs(&uri, "add", &arguments).await;
    assert_eq!(status, 0, "{printed}{errors}");
    let stored =
        "SELECT concat_ws(' ', fingerprint_column, batch_size, label, runtime_params) FROM jobs";
    assert_eq!(
        value::<String>(&client, stored).await,
        "mark 7 it's mine {\"pooling\": \"mean\"}"
    );
}

/// Any id, and either type of `canceled_at`.
#[tokio::test]
async fn jobs_are_listed_canceled_and_retried_whatever_their_ids_are() {
    for (types, id) in [
        ("id SERIAL", "1"),
        (
            "id UUID DEFAULT '0b0e7d0e-0000-4000-8000-00000000000a'",
            "0b0e7d0e-0000-4000-8000-00000000000a",
        ),
    ] {
        let database = TestDatabase::create(server::shared()).await;
        let (client, uri) = (database.client().await, database.uri());
        let is_uuid = types.contains("UUID");
        let canceled = if is_uuid {
            "canceled_at TIMESTAMPTZ"
        } else {
            "canceled_at BOOL"
        };
        let create = DOCUMENTED_TABLE
            .replace("id SERIAL", types)
            .replace("canceled_at BOOL", canceled);
        execute(&client, &create).await;
        let none = jobs(&uri, "list", &[]).await;
        assert!(none.0 == 0 && none.1.contains("has no job"), "{none:?}");
        let new = [
            "--table",
            "my table",
            "--column",
            "t",
            "--db-connection",
            &uri,
            "--no-check",
        ];
        jobs(&uri, "add", &new).await;
        let (_, listed, _) = jobs(&uri, "list", &[]).await;
        assert!(
            listed.contains("public.my table.t -> t_embedding"),
            "{listed}"
        );
        assert!(
            listed.contains(id) && listed.contains("waiting"),
            "{listed}"
        );

        let unfailed = jobs(&uri, "retry", &[id]).await;
        assert!(
            unfailed.0 == 0 && unfailed.1.contains("has not failed"),
            "{unfailed:?}"
        );
        let fail = "UPDATE jobs SET init_failed_at = now(), init_failure_reason = 'no such table'";
        execute(&client, fail).await;
        let (_, listed, _) = jobs(&uri, "list", &["--json"]).await;
        let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
        assert_eq!(listed[0]["state"], "failed");
        assert_eq!(listed[0]["reason"], "no such table");
        assert_eq!(listed[0]["id"], id);
        let retried = jobs(&uri, "retry", &[id]).await;
        assert!(
            retried.0 == 0 && retried.1.contains("tried again"),
            "{retried:?}"
        );

        // Nothing is changed where one of them does not exist.
        let wrong = jobs(&uri, "cancel", &[id, "no'such"]).await;
        assert_eq!(wrong.0, 1);
        assert!(
            wrong.2.contains("there is no job no'such") && wrong.2.contains(id),
            "{wrong:?}"
        );
        let (_, listed, _) = jobs(&uri, "list", &[]).await;
        assert!(listed.contains("waiting"), "{listed}");
        let done = jobs(&uri, "cancel", &[id]).await;
        assert!(done.0 == 0 && done.1.contains("is canceled"), "{done:?}");
        let again = jobs(&uri, "cancel", &[id]).await;
        assert!(
            again.0 == 0 && again.1.contains("canceled already"),
            "{again:?}"
        );
        let (_, listed, _) = jobs(&uri, "list", &[]).await;
        assert!(listed.contains("canceled"), "{listed}");
    }
}

#[tokio::test]
async fn a_daemon_does_what_the_commands_ask_for() {
    let (database, client, uri) = scene().await;
    let _daemon = start_daemon(&database, &[]);
    let wrong = [
        "--table",
        "articles",
        "--column",
        "later",
        "--db-connection",
        &uri,
        "--force",
    ];
    jobs(&uri, "add", &wrong).await;
    wait_for_failure(&client, 1).await;
    execute(
        &client,
        "ALTER TABLE articles ADD COLUMN later text DEFAULT 'x'",
    )
    .await;
    let (status, printed, _) = jobs(&uri, "retry", &["1"]).await;
    assert_eq!(status, 0, "{printed}");
    wait_for_backfill(&client, 1).await;
    jobs(&uri, "cancel", &["1"]).await;
    testkit::jobs::wait_for_slots(&client, 0).await;
}

#[tokio::test]
async fn a_role_that_may_not_write_is_told_the_grant() {
    let (database, client, uri) = scene().await;
    let role = format!("reader_{}", database.name());
    execute(
        &client,
        &format!("CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT ON jobs TO {role}"),
    )
    .await;
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let weak = format!("postgresql://{role}:pw@{place}");
    let add = [&NEW[..], &["--no-check", "--db-connection", &uri]].concat();
    let (status, _, errors) = jobs(&weak, "add", &add).await;
    assert_eq!(status, 1);
    let (_, grants) = errors
        .trim_end()
        .split_once("run as its owner: ")
        .expect("a remedy");
    assert!(
        grants.contains("GRANT INSERT (db_connection, schema, \"table\""),
        "{errors}"
    );
    execute(&client, grants).await;
    let (status, _, errors) = jobs(&weak, "add", &add).await;
    assert_eq!(status, 0, "{errors}");
    for (command, column) in [("cancel", "canceled_at"), ("retry", "init_failed_at")] {
        let (status, _, errors) = jobs(&weak, command, &["1"]).await;
        assert_eq!(status, 1);
        let (_, grants) = errors
            .trim_end()
            .split_once("run as its owner: ")
            .expect("a remedy");
        assert!(
            grants.contains(&format!("GRANT UPDATE (\"{column}\")")),
            "{errors}"
        );
        execute(&client, grants).await;
        assert_eq!(jobs(&weak, command, &["1"]).await.0, 0);
    }
}

/// The documented table is the smallest one.
#[tokio::test]
async fn create_table_says_which_columns_an_older_table_lacks() {
    let (database, client, uri) = scene().await;
    let (status, printed, errors) = run(&uri, &["create-table"], &[]).await;
    assert_eq!(status, 0, "{errors}");
    let (_, addition) = printed
        .split_once("run as its owner: ")
        .expect("what it lacks");
    let (addition, _) = addition
        .split_once(" Then give")
        .expect("the end of the statement");
    assert!(addition.contains("ADD COLUMN \"stats\" JSONB"), "{printed}");
    execute(&client, addition).await;
    let (_, printed, _) = run(&uri, &["create-table"], &[]).await;
    assert!(!printed.contains("lacks columns"), "{printed}");
    drop(database);
}

#[tokio::test]
async fn create_table_makes_both_tables_under_any_name_once() {
    let database = TestDatabase::create(server::shared()).await;
    let (client, uri) = (database.client().await, database.uri());
    execute(&client, "CREATE SCHEMA \"Jobs & more\"").await;
    let name = "the \"good\" jobs";
    let place = ["--schema", "Jobs & more", "--table", name];
    let create = async |arguments: &[&str]| run(&uri, &["create-table"], arguments).await;
    let (status, printed, errors) = create(&place).await;
    assert_eq!(status, 0, "{errors}");
    assert_eq!(printed.matches("created the table").count(), 2, "{printed}");
    let (status, printed, _) = create(&place).await;
    assert_eq!(status, 0);
    assert_eq!(
        printed
            .matches("exists already; nothing was changed")
            .count(),
        2,
        "{printed}"
    );

    // The same columns as those of sql/jobs.sql.
    database.psql(&paths::read("sql/jobs.sql")).await;
    let columns = |table: &str| {
        format!(
            "SELECT string_agg(attname || format_type(atttypid, atttypmod), ',' ORDER BY attnum) FROM pg_attribute \
             WHERE attrelid = '{table}'::regclass AND attnum > 0"
        )
    };
    for (ours, documented) in [
        ("\"Jobs & more\".\"the \"\"good\"\" jobs\"", "jobs"),
        (
            "\"Jobs & more\".\"the \"\"good\"\" jobs_failures\"",
            "jobs_failures",
        ),
    ] {
        let found: String = value(&client, &columns(ours)).await;
        assert_eq!(found, value::<String>(&client, &columns(documented)).await);
    }
    // The other commands use it.
    let (_, listed, errors) = jobs(
        &uri,
        "list",
        &["--jobs-schema", "Jobs & more", "--jobs-table", name],
    )
    .await;
    assert!(listed.contains("has no job"), "{listed}{errors}");

    execute(&client, "CREATE TABLE taken (id int)").await;
    for (arguments, said) in [
        (["--table", "taken"], "lacks the columns"),
        (["--schema", "nowhere"], "CREATE SCHEMA \"nowhere\";"),
    ] {
        let (status, _, errors) = create(&arguments).await;
        assert!(status == 1 && errors.contains(said), "{said}: {errors}");
    }
    let role = format!("guest_{}", database.name());
    execute(
        &client,
        &format!("CREATE SCHEMA closed; CREATE ROLE {role} LOGIN PASSWORD 'pw'"),
    )
    .await;
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let weak = format!("postgresql://{role}:pw@{place}");
    let (status, _, errors) = run(&weak, &["create-table"], &["--schema", "closed"]).await;
    let grant = format!("GRANT USAGE, CREATE ON SCHEMA \"closed\" TO \"{role}\";");
    assert!(status == 1 && errors.contains(&grant), "{errors}");
}

/// PostgreSQL 15 of Debian: no pgvector, passwords, and no superuser.
#[tokio::test]
async fn the_first_hour_works_on_an_old_server_without_pgvector_or_a_superuser() {
    let Some(server) = server::debian() else {
        return;
    };
    let database = TestDatabase::create(server).await;
    let client = database.client().await;
    let (role, name) = (format!("me_{}", database.name()), database.name());
    execute(
        &client,
        &format!("CREATE ROLE {role} LOGIN PASSWORD 'pw'; ALTER DATABASE {name} OWNER TO {role}"),
    )
    .await;
    let uri = database.uri();
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let uri = format!("postgresql://{role}:pw@{place}");
    let own = testkit::client::connect(&uri).await;
    execute(
        &own,
        "CREATE TABLE articles (id serial PRIMARY KEY, title text); INSERT INTO articles (title) VALUES ('a title')",
    )
    .await;
    let subject = [&["--uri", &uri, "--db-connection", &uri], &NEW[..]].concat();
    let checked = check(&subject).await;
    let failed = texts(&checked, "failed").concat();
    assert!(
        failed.contains("lacks the REPLICATION attribute"),
        "{failed}"
    );
    execute(&client, &format!("ALTER ROLE {role} REPLICATION")).await;
    let checked = check(&subject).await;
    assert_eq!(checked["would_start"], true, "{checked:#}");
    assert!(
        crate::support::text(&checked, "new columns").contains("real[]"),
        "{checked:#}"
    );
    assert!(
        crate::support::text(&checked, "pgvector").contains("CREATE EXTENSION"),
        "{checked:#}"
    );

    assert_eq!(run(&uri, &["create-table"], &[]).await.0, 0);
    let add = [&NEW[..], &["--db-connection", &uri]].concat();
    let (status, printed, errors) = jobs(&uri, "add", &add).await;
    assert_eq!(status, 0, "{printed}{errors}");
    let _daemon = program().start_daemon(&["--uri", &uri]);
    wait_for_backfill(&own, 1).await;
    let vectors = "SELECT count(title_embedding) FROM articles";
    assert_eq!(value::<i64>(&own, vectors).await, 1);
}
