//! The commands of docs/migrating-from-pgai.md, in their order.

use testkit::jobs::wait_for_backfill;
use testkit::paths;
use testkit::wait::{TIMEOUT, wait_for};

use super::pgai::{Pgai, Version};
use super::{SHORT, long_text};
use crate::support::start_daemon;

/// The connection string of the document's examples.
const DOCUMENT_URI: &str = "postgresql://lantern@localhost:5432/test";

/// The blocks of the document by section: the language and the commands.
fn blocks(heading: &str) -> Vec<(String, String)> {
    let document = "\n".to_owned() + &paths::read("docs/migrating-from-pgai.md");
    let (_, part) = document
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("the heading {heading}"));
    let (part, _) = part.split_once("\n## ").unwrap_or((part, ""));
    let fenced = part.split("\n```").collect::<Vec<_>>();
    let block = |block: &&str| {
        let (language, commands) = block.split_once('\n')?;
        (!language.is_empty()).then(|| (language.to_owned(), commands.to_owned()))
    };
    fenced.iter().skip(1).filter_map(block).collect()
}

/// Runs the blocks of a section; returns what they print. The line that starts the daemon is left to the caller.
async fn run(pgai: &Pgai, heading: &str) -> Vec<String> {
    let mut printed = Vec::new();
    let blocks = blocks(heading);
    assert!(!blocks.is_empty(), "{heading}");
    for (language, commands) in blocks {
        let commands = commands
            .replace(DOCUMENT_URI, &pgai.database.uri())
            .replace("'[…]'", "'[1,0,0,0,0,0,0,0]'");
        if language == "sql" {
            printed.push(pgai.database.psql(&commands).await);
            continue;
        }
        assert_eq!(language, "sh");
        let lines = commands
            .lines()
            .filter(|line| !line.contains("start-daemon"));
        let output = pgai.shell(&lines.collect::<Vec<_>>().join("\n")).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}: {errors}");
        printed.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    printed
}

#[tokio::test]
async fn the_steps_of_the_document_move_a_vectorizer_and_drop_it() {
    let Some(pgai) = Pgai::new(Version::Library, "$title: $chunk").await else {
        return;
    };
    let long = long_text(30);
    for id in 1..=3 {
        let text = format!("{SHORT} {id}");
        pgai.row(id, "Sea", &text, &[&text]).await;
    }
    pgai.row(
        4,
        "Land",
        &long,
        &[&long[..700], &long[400..1100], &long[1100..1800]],
    )
    .await;

    run(&pgai, "# Moving over from pgai's vectorizer").await;
    let look = run(&pgai, "## 1. Look").await;
    assert!(
        look[0].contains("has 6 chunks of 4 rows; 3 of these rows have one chunk"),
        "{look:?}"
    );
    run(&pgai, "## 2. Move").await;
    let daemon = start_daemon(&pgai.database, &[]);
    wait_for_backfill(&pgai.client, 1).await;
    let embedded = pgai.embedded_texts();
    let counted = run(&pgai, "## 3. Start the daemon").await;
    let [_commands, without_passages, _verified] = &counted[..] else {
        panic!("{counted:?}");
    };
    assert_eq!(without_passages.trim(), "0");
    assert_eq!(pgai.wrong_passages().await, "");
    let of_long = "SELECT count(*) FROM website.blog_chunks WHERE id = 4";
    assert_eq!(
        embedded.to_string(),
        pgai.text(of_long).await,
        "short texts keep their vectors"
    );

    let queries = run(&pgai, "## 4. Change the application").await;
    // Each row begins with its id; a passage may have several lines.
    let is_row = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
    let rows = |printed: &String| printed.lines().filter(is_row).count();
    assert_eq!(queries.iter().map(rows).collect::<Vec<_>>(), [5, 5]);

    // One edited sentence of a long text.
    let so_far = pgai.embedded_texts();
    let edited = long.replace(
        "Sentence 3 of part 15 names",
        "Sentence 3 of part 15 no longer names",
    );
    let update = "UPDATE website.blog SET contents = $1 WHERE id = 4";
    pgai.client
        .execute(update, &[&edited])
        .await
        .expect("the text changes");
    let shows = "SELECT bool_or(contents LIKE '%no longer%') FROM website.blog_chunks_documents WHERE id = 4";
    let shown = async || pgai.text(shows).await;
    wait_for("the new text shows", TIMEOUT, "true".to_owned(), shown).await;
    let of_edit = pgai.embedded_texts() - so_far;
    assert!(
        (1..=3).contains(&of_edit),
        "{of_edit} passages are embedded"
    );

    run(&pgai, "## 5. Drop pgai's vectorizer").await;
    assert_eq!(
        pgai.text("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")
            .await,
        "0"
    );
    pgai.sql("DROP SCHEMA ai CASCADE").await;
    pgai.sql(
        "INSERT INTO website.blog VALUES (5, 'Sky', NULL, 'Clouds.'); \
         UPDATE website.blog SET title = 'Sand' WHERE id = 1; \
         DELETE FROM website.blog WHERE id = 2",
    )
    .await;
    let rows =
        "SELECT string_agg(DISTINCT format('%s %s', id, title), ', ') FROM website.blog_embedding";
    let all = async || pgai.text(rows).await;
    wait_for(
        "the view",
        TIMEOUT,
        "1 Sand, 3 Sea, 4 Land, 5 Sky".to_owned(),
        all,
    )
    .await;
    assert_eq!(pgai.wrong_passages().await, "");
    drop(daemon);
}

#[tokio::test]
async fn going_back_leaves_pgai_as_it_was() {
    let Some(pgai) = Pgai::new(Version::Library, "$title: $chunk").await else {
        return;
    };
    pgai.row(1, "Sea", SHORT, &[SHORT]).await;
    let objects = "SELECT string_agg(oid::regclass::text, ' ' ORDER BY 1) FROM pg_class WHERE relkind IN ('r', 'v') \
                   AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)";
    let before = pgai.text(objects).await;
    run(&pgai, "## 2. Move").await;
    assert_ne!(pgai.text(objects).await, before);
    run(&pgai, "## Going back").await;
    assert_eq!(pgai.text(objects).await, before);
    pgai.sql("UPDATE website.blog SET title = 'x'").await;
    assert_eq!(
        pgai.text("SELECT count(*) FROM ai._vectorizer_q_1").await,
        "1"
    );
}
