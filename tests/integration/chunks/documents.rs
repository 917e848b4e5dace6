//! What the passages of documents must be, whatever has happened to the documents.

use std::fmt::Write as _;

use testkit::Scene;
use testkit::vectors::{cosine, embed};

/// A reproducible text of so many paragraphs. Each has two sentences of its own words, and ends with `tag`.
pub fn text(seed: u64, paragraphs: u64, tag: &str) -> String {
    let paragraphs = (0..paragraphs).map(|number| paragraph(seed * 1000 + number, tag));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// A paragraph of [`text`].
pub fn paragraph(number: u64, tag: &str) -> String {
    const WORDS: [&str; 24] = [
        "tides", "moon", "river", "stone", "winter", "harbor", "engine", "garden", "copper",
        "signal", "forest", "bridge", "letter", "market", "mirror", "orchard", "planet", "quarry",
        "rocket", "shadow", "temple", "valley", "window", "yellow",
    ];
    let mut random = testkit::random::Random::new(number);
    let mut sentence = || {
        let words: Vec<&str> = (0..9).map(|_| WORDS[random.below(24) as usize]).collect();
        words.join(" ")
    };
    format!(
        "The {} and number {number}. A {} {tag}.",
        sentence(),
        sentence()
    )
}

/// One stored passage.
#[derive(Debug)]
pub struct Passage {
    /// Key, as text.
    pub id: String,
    pub seq: i32,
    pub chunk: String,
    pub vector: Option<Vec<f32>>,
    pub fingerprint: Option<uuid::Uuid>,
}

/// The passages of a table, in order. Their vectors are those of `embedded` of a passage of a document: SQL over the row
/// `d` and the passage `c`.
pub async fn passages(scene: &Scene, table: &str) -> Vec<Passage> {
    let query = format!(
        "SELECT id::text, chunk_seq, chunk, embedding::real[], chunk_fingerprint FROM {table} ORDER BY id, chunk_seq"
    );
    let rows = scene.client.query(&query, &[]).await.expect("the passages");
    let passage = |row: &tokio_postgres::Row| Passage {
        id: row.get(0),
        seq: row.get(1),
        chunk: row.get(2),
        vector: row.get(3),
        fingerprint: row.get(4),
    };
    rows.iter().map(passage).collect()
}

/// What is wrong with the passages in `docs_chunks` of the documents in `docs`; "" for nothing. `embedded` is SQL over the
/// row `d` and its passage `c`: the text that a vector must be of.
pub async fn wrong(scene: &Scene, embedded: &str) -> String {
    let mut found = String::new();
    let structure = "SELECT string_agg(format('%s: %s', id, what), '; ') FROM ( \
        SELECT c.id, format('passage %s is not its part of the text', chunk_seq) AS what \
          FROM docs_chunks c LEFT JOIN docs d USING (id) \
          WHERE chunk IS DISTINCT FROM substr(d.body, chunk_start + 1, chunk_end - chunk_start) \
        UNION ALL SELECT id, 'its numbers are ' || string_agg(chunk_seq::text, ',' ORDER BY chunk_seq) \
          FROM docs_chunks GROUP BY id HAVING count(*) <> max(chunk_seq) + 1 OR min(chunk_seq) <> 0 \
        UNION ALL SELECT id, 'it has no passages' FROM docs d \
          WHERE COALESCE(body, '') <> '' AND NOT EXISTS (SELECT FROM docs_chunks c WHERE c.id = d.id) \
        UNION ALL SELECT id, format('passage %s has a wrong mark of its document', chunk_seq) FROM docs_chunks \
          WHERE (document_fingerprint IS NOT NULL) <> (chunk_seq = 0) \
        UNION ALL SELECT id, format('there is text before passage %s', chunk_seq) FROM ( \
          SELECT c.id, chunk_seq, substr(body, covered + 1, chunk_start - covered) AS left_out FROM ( \
            SELECT *, COALESCE(lag(chunk_end) OVER (PARTITION BY id ORDER BY chunk_seq), 0) AS covered FROM docs_chunks) c \
          JOIN docs d USING (id) WHERE chunk_start > covered) g WHERE left_out ~ '\\S' \
        UNION ALL SELECT c.id, 'there is text behind the last passage' FROM docs d JOIN \
          (SELECT id, max(chunk_end) AS covered FROM docs_chunks GROUP BY id) c USING (id) \
          WHERE substr(body, covered + 1) ~ '\\S') w";
    found += &scene.value(structure).await;
    let query = format!(
        "SELECT c.id::text, chunk_seq, {embedded}, c.embedding::real[] FROM docs_chunks c JOIN docs d USING (id) ORDER BY 1, 2"
    );
    let rows = scene.client.query(&query, &[]).await.expect("the passages");
    let texts = rows.iter().map(|row| row.get::<_, String>(2)).collect();
    for (row, right) in rows.iter().zip(embed(texts).await) {
        let (id, seq): (String, i32) = (row.get(0), row.get(1));
        let vector: Option<Vec<f32>> = row.get(3);
        let is_right = vector.is_some_and(|vector| cosine(&vector, &right) > 0.9999);
        if !is_right && found.len() < 500 {
            write!(found, "{id}: passage {seq} has another vector; ").expect("a string");
        }
    }
    found
}

/// Waits until everything that has happened so far is confirmed, and asserts that all passages are right at that moment.
pub async fn caught_up(scene: &Scene) {
    scene.wait_until_confirmed().await;
    assert_eq!(wrong(scene, "c.chunk").await, "");
}
