//! Which chunks and vectors the job takes over.

use serde_json::json;
use testkit::jobs::wait_for_backfill;
use testkit::wait::{TIMEOUT, wait_for};

use super::pgai::{Pgai, Version};
use super::{SHORT, long_text};
use crate::support::start_daemon;

const TITLED: &str = "$title: $chunk";

/// The rows whose passages are up to date.
const SHOWN: &str = "SELECT string_agg(DISTINCT id::text, ' ') FROM website.blog_chunks_documents";

async fn moved(pgai: &Pgai) {
    let moved = pgai.migrate("-v run=yes").await;
    moved.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn chunks_of_the_same_text_keep_their_vectors_and_others_are_embedded() {
    let Some(pgai) = Pgai::new(Version::Library, "$chunk").await else {
        return;
    };
    let long = long_text(8);
    pgai.row(1, "Sea", &format!("  {SHORT}\n"), &[SHORT]).await;
    pgai.row(2, "Sea", "Changed since.", &["As it was."]).await;
    pgai.row(3, "Land", &long, &[&long[..700], &long[400..1100]])
        .await;
    // As long as a chunk may be: one passage, too, although passages of a longer text have less room beside their overlap.
    let whole = long_text(2);
    pgai.row(4, "Moon", &whole, &[&whole]).await;
    moved(&pgai).await;
    let places = "SELECT string_agg(format('%s:%s-%s', id, chunk_start, chunk_end), ' ' ORDER BY id, chunk_seq) \
                  FROM website.blog_chunks";
    let len = 2 + SHORT.len();
    assert_eq!(
        pgai.text(places).await,
        format!("1:2-{len} 2:- 3:0-700 3:400-1100 4:0-{}", whole.len())
    );
    let _daemon = start_daemon(&pgai.database, &[]);
    wait_for_backfill(&pgai.client, 1).await;
    assert_eq!(pgai.text(SHOWN).await, "1 2 3 4");
    assert_eq!(pgai.wrong_passages().await, "");
    let embedded = "SELECT count(*) FROM website.blog_chunks WHERE id IN (2, 3)";
    assert_eq!(pgai.embedded_texts().to_string(), pgai.text(embedded).await);
}

#[tokio::test]
async fn a_template_is_compared_with_the_fields_of_today() {
    let Some(pgai) = Pgai::new(Version::Extension, TITLED).await else {
        return;
    };
    for id in 1..=4 {
        pgai.row(id, "Sea", SHORT, &[SHORT]).await;
    }
    // Before, and after the chunks are copied: the vectors of 1 to 3 are of other titles.
    pgai.sql("UPDATE website.blog SET title = 'Land' WHERE id = 1")
        .await;
    moved(&pgai).await;
    let adopted = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM website.blog_chunks";
    assert_eq!(pgai.text(adopted).await, "2 3 4");
    pgai.sql(
        "UPDATE website.blog SET title = 'Moon' WHERE id = 2; UPDATE website.blog SET views = 1; \
         DELETE FROM website.blog WHERE id = 3; INSERT INTO website.blog VALUES (3, 'Mars', NULL, 'x')",
    )
    .await;
    assert_eq!(pgai.text(adopted).await, "4");
    let _daemon = start_daemon(&pgai.database, &[]);
    wait_for_backfill(&pgai.client, 1).await;
    assert_eq!(pgai.text(SHOWN).await, "1 2 3 4");
    assert_eq!(pgai.wrong_passages().await, "");
    assert_eq!(pgai.embedded_texts(), 3);
    // The bridge removes no passage that the job has looked at, and stands in the way of nothing.
    pgai.sql("UPDATE website.blog SET title = 'Venus' WHERE id = 4")
        .await;
    assert_eq!(pgai.text(adopted).await, "1 2 3 4");
    let fits = async || pgai.wrong_passages().await;
    wait_for("the new title is embedded", TIMEOUT, String::new(), fits).await;
    pgai.sql("TRUNCATE website.blog").await;
    let left = async || pgai.text(adopted).await;
    wait_for("the passages are gone", TIMEOUT, String::new(), left).await;
}

#[tokio::test]
async fn a_destination_column_keeps_its_vectors_but_those_that_wait_in_the_queue() {
    let Some(pgai) = Pgai::new(Version::Library, "$chunk").await else {
        return;
    };
    for id in 1..=4 {
        pgai.row(
            id,
            "Sea",
            &format!("{SHORT} {id}"),
            &[&format!("{SHORT} {id}")],
        )
        .await;
    }
    pgai.sql(
        "ALTER TABLE website.blog ADD embedding vector(8); \
         UPDATE website.blog b SET embedding = s.embedding FROM website.blog_embedding_store s WHERE s.id = b.id; \
         DROP TABLE website.blog_embedding_store CASCADE; DELETE FROM ai._vectorizer_q_1; \
         INSERT INTO ai._vectorizer_q_failed_1 (id) VALUES (4)",
    )
    .await;
    let mut config = pgai.config().await;
    config["destination"] = json!({"implementation": "column", "embedding_column": "embedding"});
    config["chunking"] = json!({"implementation": "none"});
    pgai.configure(&config).await;
    // A text changes, and pgai does not come to it; another one does after the vectorizer is moved.
    pgai.sql("UPDATE website.blog SET contents = 'new' WHERE id = 1")
        .await;
    moved(&pgai).await;
    pgai.sql("UPDATE website.blog SET contents = 'newer' WHERE id = 2; UPDATE website.blog SET views = 1")
        .await;
    let without =
        "SELECT string_agg(id::text, ' ' ORDER BY id) FROM website.blog WHERE embedding IS NULL";
    assert_eq!(pgai.text(without).await, "1 2 4");
    let _daemon = start_daemon(&pgai.database, &[]);
    wait_for_backfill(&pgai.client, 1).await;
    assert_eq!(pgai.text(without).await, "");
    assert_eq!(pgai.embedded_texts(), 3);
}
