//! Keys of any type and number of columns, and names of any kind.

use testkit::client::execute;
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill};
use testkit::server;
use testkit::vectors::wait_for_vectors;

use crate::support::{program, start_daemon};

/// A table whose key is under test: the columns of the key with what makes them one, and four keys.
struct Keyed {
    definition: &'static str,
    keys: [&'static str; 4],
}

const fn keyed(definition: &'static str, keys: [&'static str; 4]) -> Keyed {
    Keyed { definition, keys }
}

const KEYS: &[Keyed] = &[
    keyed("k INT PRIMARY KEY", ["-1", "0", "1", "2147483647"]),
    keyed(
        "k BIGINT PRIMARY KEY",
        ["-9223372036854775808", "0", "9", "10"],
    ),
    keyed(
        "k UUID PRIMARY KEY",
        [
            "'00000000-0000-0000-0000-000000000000'",
            "gen_random_uuid()",
            "gen_random_uuid()",
            "gen_random_uuid()",
        ],
    ),
    keyed(
        "k TEXT PRIMARY KEY",
        ["''", "'NULL'", r#"'{"a,b"}'"#, r#"'O''Hara \ "é" 表 🦊 '"#],
    ),
    keyed("k VARCHAR(20) PRIMARY KEY", ["''", "' '", "'a'", "'A'"]),
    keyed("k CHAR(8) PRIMARY KEY", ["''", "'a'", "' a'", "'12345678'"]),
    keyed(
        "k TIMESTAMP PRIMARY KEY",
        [
            "'-infinity'",
            "'2024-02-29 23:59:59.999999'",
            "'0044-03-15 BC'",
            "'infinity'",
        ],
    ),
    keyed(
        "k TIMESTAMPTZ PRIMARY KEY",
        [
            "'2024-03-31 02:30:00+02'",
            "'1890-01-01 00:00:00+00:53:28'",
            "'epoch'",
            "now()",
        ],
    ),
    keyed("k NUMERIC PRIMARY KEY", ["1.10", "-0.5", "1e40", "'NaN'"]),
    keyed(
        "k FLOAT8 PRIMARY KEY",
        ["0.1 + 0.2", "'-Infinity'", "1e-300", "3"],
    ),
    keyed(
        "k BYTEA PRIMARY KEY",
        [r"'\x'", r"'\x00ff'", r"'\x5c'", r"'\x27'"],
    ),
    keyed(
        "k INTERVAL PRIMARY KEY",
        ["'1 mon'", "'-1 day 02:03:04'", "'36:00'", "'1 year 2 days'"],
    ),
    keyed(
        "k public.\"Mood \"\"s\"\"\" PRIMARY KEY",
        ["'so so'", "'good'", "'{}'", "'it''s'"],
    ),
    keyed(
        "a INT, b TEXT, PRIMARY KEY (b, a)",
        ["1, 'x'", "2, 'x'", "1, 'y,z'", "2, ''"],
    ),
    keyed(
        "a CHAR(3), b TIMESTAMPTZ, c UUID, PRIMARY KEY (c, a, b)",
        [
            "'a', 'epoch', gen_random_uuid()",
            "'', 'infinity', gen_random_uuid()",
            "'ab', now(), gen_random_uuid()",
            "'abc', now(), gen_random_uuid()",
        ],
    ),
    keyed(
        "a BOOL, b DATE NOT NULL, c INT NOT NULL, UNIQUE (c, b)",
        [
            "true, '2024-01-01', 1",
            "NULL, '2024-01-01', 2",
            "false, '2024-01-02', 1",
            "true, 'infinity', 3",
        ],
    ),
];

#[tokio::test]
async fn keys_may_have_any_type_and_number_of_columns() {
    let (database, client) = articles(server::shared()).await;
    execute(
        &client,
        "CREATE TYPE \"Mood \"\"s\"\"\" AS ENUM ('so so', 'good', '{}', 'it''s')",
    )
    .await;
    let names: Vec<String> = (0..KEYS.len()).map(|n| format!("keyed_{n}")).collect();
    for (name, key) in names.iter().zip(KEYS) {
        let (definition, [first, second, ..]) = (key.definition, key.keys);
        let create = format!(
            "CREATE TABLE {name} ({definition}, t TEXT);
             INSERT INTO {name} VALUES ({first}, 'existing'), ({second}, '{definition}')"
        );
        execute(&client, &create).await;
        if definition.contains("UNIQUE") {
            let identity =
                format!("ALTER TABLE {name} REPLICA IDENTITY USING INDEX {name}_c_b_key");
            execute(&client, &identity).await;
        }
    }
    // The whole old row is logged, and the primary key serves all the same.
    execute(&client, "ALTER TABLE keyed_0 REPLICA IDENTITY FULL").await;
    let mut jobs = Vec::new();
    for name in &names {
        jobs.push(insert_job(&client, Job::on(&database, name, "t", "v")).await);
    }
    let _daemon = start_daemon(&database, &[]);
    for (job, name) in jobs.into_iter().zip(&names) {
        wait_for_backfill(&client, job).await;
        wait_for_vectors(&client, name, "t", "v").await;
    }
    for (name, key) in names.iter().zip(KEYS) {
        let [.., third, fourth] = key.keys;
        let change = format!(
            "INSERT INTO {name} VALUES ({third}, 'inserted'), ({fourth}, 'inserted too');
             UPDATE {name} SET t = 'updated' WHERE t = 'existing'; UPDATE {name} SET t = NULL WHERE t = 'inserted'"
        );
        execute(&client, &change).await;
    }
    for name in &names {
        wait_for_vectors(&client, name, "t", "v").await;
    }
}

#[tokio::test]
async fn a_scan_of_several_pages_follows_a_key_of_mixed_types() {
    let (database, client) = articles(server::shared()).await;
    execute(
        &client,
        "CREATE TABLE pages (a CHAR(4), b TIMESTAMPTZ, c VARCHAR(5) COLLATE \"C\", t TEXT, PRIMARY KEY (c, a, b));
         INSERT INTO pages SELECT n % 3, '2024-01-01'::timestamptz + (n / 6) * interval '1 day', CASE n % 2 WHEN 0 THEN 'é' ELSE 'Z' END,
             'text ' || n % 50 FROM generate_series(1, 1300) n",
    )
    .await;
    let job = insert_job(&client, Job::on(&database, "pages", "t", "v")).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    wait_for_vectors(&client, "pages", "t", "v").await;
}

#[tokio::test]
async fn names_may_contain_any_character() {
    let (database, client) = articles(server::shared()).await;
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (schema, table) = (r#"My "schema" é"#, r#"Ta ble 'x' "y" \ 表"#);
    let (key, source, destination) = (r#"I "d""#, "Te xt, $1 🦊", r#"emb'ed "ding""#);
    let qualified = format!("{}.{}", quoted(schema), quoted(table));
    execute(
        &client,
        &format!(
            "CREATE SCHEMA {}; CREATE TABLE {qualified} ({} INT PRIMARY KEY, {} TEXT);
             INSERT INTO {qualified} VALUES (1, 'existing'), (2, NULL)",
            quoted(schema),
            quoted(key),
            quoted(source),
        ),
    )
    .await;
    let job = Job {
        schema: Some(schema),
        ..Job::on(&database, table, source, destination)
    };
    let job = insert_job(&client, job).await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_backfill(&client, job).await;
    let (source, destination) = (quoted(source), quoted(destination));
    wait_for_vectors(&client, &qualified, &source, &destination).await;
    let change = format!(
        "INSERT INTO {qualified} VALUES (3, 'live'); UPDATE {qualified} SET {source} = 'set' WHERE {} = 2",
        quoted(key)
    );
    execute(&client, &change).await;
    wait_for_vectors(&client, &qualified, &source, &destination).await;

    let uri = database.uri();
    let search = [
        "search", "--uri", &uri, "--job", "1", "--limit", "1", "live",
    ];
    let found = program().stdout_of(&search).await;
    assert!(
        found.contains(r#"I "d""#) && found.ends_with("3      live\n"),
        "{found}"
    );
}
