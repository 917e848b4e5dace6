//! Fields of all types: each is as its type prints it, whatever the defaults of roles and databases say (hazard 29).

use testkit::vectors::wait_for_vectors;

use super::{caught_up, stop, templated};

/// A field: its type, two values as SQL, and what is embedded of each.
type Field = (&'static str, [(&'static str, &'static str); 2]);

const FIELDS: [Field; 17] = [
    ("char(6)", [("'ab'", "ab"), ("'cd '", "cd")]),
    ("varchar(9)", [("'it''s '", "it's "), ("''", "")]),
    ("numeric(8,3)", [("1.5", "1.500"), ("'NaN'", "NaN")]),
    (
        "float8",
        [
            ("0.1::float8 + 0.2", "0.30000000000000004"),
            ("1e300", "1e+300"),
        ],
    ),
    ("bool", [("true", "t"), ("false", "f")]),
    (
        "timestamptz",
        [
            ("'2024-05-06 07:08:09+02'", "2024-05-06 05:08:09+00"),
            ("'infinity'", "infinity"),
        ],
    ),
    (
        "timestamp(3)",
        [
            ("'2024-05-06 07:08:09.1234'", "2024-05-06 07:08:09.123"),
            ("'epoch'", "1970-01-01 00:00:00"),
        ],
    ),
    (
        "date",
        [
            ("'2024-05-06'", "2024-05-06"),
            ("'0044-03-15 BC'", "0044-03-15 BC"),
        ],
    ),
    (
        "interval",
        [
            ("'1 day 2 hours'", "1 day 02:00:00"),
            ("'-1 mon'", "-1 mons"),
        ],
    ),
    ("bytea", [("'\\x00ff'", "\\x00ff"), ("''", "\\x")]),
    (
        "jsonb",
        [
            ("'{\"b\": 1, \"a\": null}'", "{\"a\": null, \"b\": 1}"),
            ("'null'", "null"),
        ],
    ),
    ("json", [("'{\"b\" :1}'", "{\"b\" :1}"), ("'[]'", "[]")]),
    (
        "text[]",
        [
            ("ARRAY['a b', NULL, '{}']", "{\"a b\",NULL,\"{}\"}"),
            ("'{}'", "{}"),
        ],
    ),
    ("mood", [("'happy'", "happy"), ("'sad'", "sad")]),
    ("short", [("'x'", "x"), ("'y'", "y")]),
    (
        "pair",
        [
            ("ROW(NULL, 'a b')", "(,\"a b\")"),
            ("ROW(NULL, NULL)", "(,)"),
        ],
    ),
    ("int4range", [("'[1,5]'", "[1,6)"), ("'empty'", "empty")]),
];

const TYPES: &str = "CREATE TYPE mood AS ENUM ('happy', 'sad'); CREATE DOMAIN short AS varchar(5) CHECK (VALUE <> 'no'); \
                     CREATE TYPE pair AS (a int, b text)";

/// The text as a literal of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[tokio::test]
async fn a_field_of_any_type_is_as_its_type_prints_it() {
    let names = 0..FIELDS.len();
    let columns: Vec<String> = names
        .clone()
        .zip(FIELDS)
        .map(|(n, (kind, _))| format!("f{n} {kind}"))
        .collect();
    let template: Vec<String> = names.map(|n| format!("<{{f{n}}}>")).collect();
    let tables = format!(
        "{TYPES}; CREATE TABLE notes (id int PRIMARY KEY, body text, {}, embedding vector(384))",
        columns.join(", ")
    );
    let mut scene = templated(&tables, &format!("{} {{body}}", template.concat())).await;
    for (setting, value) in [
        ("DateStyle", "German, DMY"),
        ("TimeZone", "Asia/Tokyo"),
        ("IntervalStyle", "sql_standard"),
        ("extra_float_digits", "-15"),
        ("bytea_output", "escape"),
        ("search_path", "nowhere"),
    ] {
        scene.set_default(setting, value).await;
    }
    let values = |which: usize| {
        let values = FIELDS.map(|(kind, values)| format!("{}::{kind}", values[which].0));
        values.join(", ")
    };
    scene
        .sql(&format!(
            "INSERT INTO notes VALUES (1, 'x', {}), (2, 'x', {}); INSERT INTO notes (id, body) VALUES (3, 'x')",
            values(0),
            values(1)
        ))
        .await;
    scene.start_daemon().await;
    let text = |which: usize| {
        let fields = FIELDS.map(|(_, values)| format!("<{}>", values[which].1));
        literal(&format!("{} x", fields.concat()))
    };
    let empty = literal(&format!("{} x", "<>".repeat(FIELDS.len())));
    let first = format!(
        "CASE id WHEN 1 THEN {} WHEN 2 THEN {} ELSE {empty} END",
        text(0),
        text(1)
    );
    wait_for_vectors(&scene.client, "notes", &first, "embedding").await;
    // Through the stream, each value in its turn.
    for (n, (kind, values)) in FIELDS.iter().enumerate() {
        let set = format!(
            "UPDATE notes SET f{n} = {}::{kind} WHERE id = 1",
            values[1].0
        );
        scene.sql(&set).await;
        let set = format!(
            "UPDATE notes SET f{n} = {}::{kind} WHERE id = 2",
            values[0].0
        );
        scene.sql(&set).await;
    }
    let second = format!(
        "CASE id WHEN 1 THEN {} WHEN 2 THEN {} ELSE {empty} END",
        text(1),
        text(0)
    );
    caught_up(&scene, &second).await;
    scene.sql("UPDATE notes SET f0 = f0").await;
    scene.wait_until_confirmed().await;
    assert_eq!(scene.failures().await, "");
    let embedded = stop(&mut scene).await;
    assert!(embedded <= 3 + 2 * FIELDS.len() as u64, "{embedded}");
    scene.start_daemon().await;
    caught_up(&scene, &second).await;
    assert_eq!(stop(&mut scene).await, 0);
}

#[tokio::test]
async fn names_and_literals_are_taken_as_they_are_written() {
    let odd = ["Title's", "a \"b\"", "SELECT", "ümlaut; DROP"];
    let quoted = odd.map(|name| format!("\"{}\" text", name.replace('"', "\"\"")));
    let tables = format!(
        "CREATE TABLE notes (id int PRIMARY KEY, body text, {}, embedding vector(384))",
        quoted.join(", ")
    );
    let fields = odd.map(|name| format!("{{{name}}}")).join("|");
    let template = format!("' \\ $1 %s {{{{x}}}} {fields} {{chunk}}");
    let mut scene = templated(&tables, &template).await;
    scene
        .sql("INSERT INTO notes VALUES (1, 'x', '%s', '''', '\\', '{{'), (2, 'y', NULL, '', 'b', 'c')")
        .await;
    scene.start_daemon().await;
    let composed = format!(
        "CASE id WHEN 1 THEN {} ELSE {} END",
        literal("' \\ $1 %s {x} %s|'|\\|{{ x"),
        literal("' \\ $1 %s {x} ||b|c y")
    );
    caught_up(&scene, &composed).await;
    scene
        .sql("UPDATE notes SET \"Title's\" = '%s', \"a \"\"b\"\"\" = '''', \"SELECT\" = '\\', \"ümlaut; DROP\" = '{{', body = 'x'")
        .await;
    let composed = literal("' \\ $1 %s {x} %s|'|\\|{{ x");
    caught_up(&scene, &composed).await;
    assert_eq!(scene.failures().await, "");
}
