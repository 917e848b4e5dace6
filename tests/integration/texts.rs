//! Sources: every text form, every script, empty and huge texts.

use testkit::client::{execute, value, wait_for_value};
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill};
use testkit::server;
use testkit::vectors::wait_for_vectors;

use crate::support::start_daemon;

/// Types of source columns, each with three values: existing, then updated, then inserted.
const SOURCES: &[(&str, [&str; 3])] = &[
    ("TEXT", ["'a text'", "'another text'", "' with blanks '"]),
    (
        "VARCHAR(40)",
        ["'a text'", "'another text'", "'trailing blanks  '"],
    ),
    (
        "CHAR(40)",
        ["'padded'", "'padded otherwise'", "'  leading blanks'"],
    ),
    ("CITEXT", ["'Mixed Case'", "'mixed case'", "'MIXED CASE'"]),
    (
        "JSON",
        [
            r#"'{"b": 1,  "a": "x"}'"#,
            r#"'["é", null]'"#,
            r#"'"\u0041"'"#,
        ],
    ),
    ("JSONB", [r#"'{"b": 1,  "a": "x"}'"#, "'[1, 2]'", "'null'"]),
    ("INT", ["17", "-3", "0"]),
    ("NUMERIC(8,2)", ["17", "-3.5", "0"]),
    (
        "TEXT[]",
        ["ARRAY['a', 'b c']", "'{}'", r#"ARRAY['"quoted"', NULL]"#],
    ),
    ("short_text", ["'a domain'", "'of texts'", "'is a text'"]),
    ("NAME", ["'a name'", "'another'", "'é'"]),
    ("XML", ["'<a>text</a>'", "'<b/>'", "'<c>1 &lt; 2</c>'"]),
    (
        "TIMESTAMPTZ",
        [
            "'2024-01-01 00:00Z'",
            "'2024-07-01 12:00:00.5Z'",
            "'infinity'",
        ],
    ),
];

#[tokio::test]
async fn a_source_may_be_anything_with_a_text_form() {
    let (database, client) = articles(server::shared()).await;
    execute(
        &client,
        "CREATE EXTENSION citext; CREATE DOMAIN short_text AS VARCHAR(20)",
    )
    .await;
    // Settings that change how values look as text are the daemon's own, whatever the database says.
    let name = database.name();
    for setting in [
        "datestyle = 'SQL, DMY'",
        "timezone = 'Asia/Kathmandu'",
        "intervalstyle = 'iso_8601'",
    ] {
        execute(&client, &format!("ALTER DATABASE {name} SET {setting}")).await;
    }
    let has_xml = client
        .query_one("SELECT '<a/>'::xml::text", &[])
        .await
        .is_ok();
    let sources: Vec<_> = SOURCES
        .iter()
        .filter(|(kind, _)| has_xml || *kind != "XML")
        .collect();
    let tables: Vec<String> = (0..sources.len()).map(|n| format!("source_{n}")).collect();
    let mut jobs = Vec::new();
    for ((kind, [existing, ..]), table) in sources.iter().zip(&tables) {
        let create = format!(
            "CREATE TABLE {table} (id SERIAL PRIMARY KEY, s {kind});
             INSERT INTO {table} (s) VALUES ({existing}), (NULL), ({existing})"
        );
        execute(&client, &create).await;
        jobs.push(insert_job(&client, Job::on(&database, table, "s", "v")).await);
    }
    let _daemon = start_daemon(&database, &[]);
    // Times as the daemon's session prints them.
    execute(&client, "SET datestyle = 'ISO, MDY'; SET timezone = 'UTC'").await;
    let text = |kind: &str| {
        if kind == "NAME" {
            "s::text"
        } else {
            "format('%s', s)"
        }
    };
    for (((kind, [_, updated, inserted]), table), job) in sources.iter().zip(&tables).zip(jobs) {
        wait_for_backfill(&client, job).await;
        wait_for_vectors(&client, table, text(kind), "v").await;
        let change = format!(
            "UPDATE {table} SET s = {updated} WHERE id = 1; UPDATE {table} SET s = NULL WHERE id = 3; INSERT INTO {table} (s) VALUES ({inserted})"
        );
        execute(&client, &change).await;
    }
    for ((kind, _), table) in sources.iter().zip(&tables) {
        wait_for_vectors(&client, table, text(kind), "v").await;
        let count = format!("SELECT count(v) FROM {table}");
        assert_eq!(value::<i64>(&client, &count).await, 2, "{kind}");
    }
}

/// Texts that have broken other programs.
const SCRIPTS: &[&str] = &[
    "'🦊 👩‍👩‍👧‍👦 🇨🇦'",
    "'שלום עולם'",
    "'مرحبا \u{202e}بالعالم\u{202c}'",
    "'e\u{301} n\u{303} a\u{30a}'",
    "'Ꮳ 𐍈 𝔘𝔫𝔦'",
    "'漢字かな交じり文'",
    r"'\0 \x00 \u0000 %00 &#0;'",
    r#"'"double" ''single'' `back`'"#,
    r"'back\slash \\ \n \t'",
    "E'line\\nfeed\\ttab\\rreturn \\x01 \\x1f \\x7f'",
    "'{\"looks\",\"like\",an,array,NULL}'",
    "'NULL'",
    "'$1 %s {} [] ; DROP TABLE articles; --'",
    "'\u{feff}byte order mark'",
    "' '",
    "E'\\n'",
    "'.'",
];

#[tokio::test]
async fn texts_in_any_script_are_embedded_from_scan_and_stream() {
    let (database, client) = articles(server::shared()).await;
    let values = SCRIPTS
        .iter()
        .map(|text| format!("({text})"))
        .collect::<Vec<_>>()
        .join(", ");
    let insert = format!("INSERT INTO articles (title) VALUES {values}");
    execute(&client, &insert).await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    execute(&client, &insert).await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
}

#[tokio::test]
async fn null_and_the_empty_text_have_no_vector_and_clear_one() {
    let (database, client) = articles(server::shared()).await;
    let rows = "ALTER TABLE articles ADD COLUMN vector vector(384);
         INSERT INTO articles (title, vector) SELECT t, array_fill(1::real, ARRAY[384]) FROM unnest(ARRAY[NULL, '']) t;
         INSERT INTO articles (title) VALUES ('a'), ('b'), ('c')";
    execute(&client, &database.adapted(rows)).await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
    for change in [
        "UPDATE articles SET title = NULL WHERE id = 3",
        "UPDATE articles SET title = '' WHERE id = 4",
        "INSERT INTO articles (title, vector) SELECT '', array_fill(1::real, ARRAY[384])",
        "INSERT INTO articles (vector) SELECT array_fill(1::real, ARRAY[384])",
        "UPDATE articles SET title = 'back again' WHERE id IN (3, 4)",
        "UPDATE articles SET title = NULL; UPDATE articles SET title = 'all back'; UPDATE articles SET title = '' WHERE id < 4",
    ] {
        execute(&client, change).await;
        wait_for_vectors(&client, "articles", "title", "vector").await;
    }
}

#[tokio::test]
async fn a_text_of_five_megabytes_is_embedded_and_kept_out_of_line() {
    let (database, client) = articles(server::shared()).await;
    // Random enough not to be compressed away.
    let huge = "SELECT string_agg(md5(n::text), ' ') FROM generate_series(1, 160000) n";
    execute(&client, &format!("INSERT INTO articles (title) {huge}")).await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    execute(
        &client,
        &format!("INSERT INTO articles (title) SELECT 'live ' || ({huge})"),
    )
    .await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
    assert!(
        value::<i32>(&client, "SELECT min(octet_length(title)) FROM articles").await > 5_000_000
    );

    // The update of another column does not carry the text; the vector stays. A later row shows that it was skipped.
    let version = "SELECT vector::text FROM articles WHERE id = 1";
    let before: String = value(&client, version).await;
    execute(
        &client,
        "UPDATE articles SET body = 'x'; UPDATE articles SET id = 100 WHERE id = 2",
    )
    .await;
    execute(&client, "INSERT INTO articles (title) VALUES ('short')").await;
    wait_for_value(&client, "SELECT count(vector) FROM articles", 3_i64).await;
    assert_eq!(value::<String>(&client, version).await, before);
}
