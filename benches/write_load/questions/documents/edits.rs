//! How many passages does an edit embed? Documents of about 200 passages, of which one paragraph is rewritten, inserted or
//! deleted. The daemon counts what it embeds; the fingerprints in the table tell the documents apart.

use std::time::Duration;

use serde::Serialize;
use testkit::engine::MODEL;

use crate::notes_server::SETTINGS;
use crate::support::server::Server;
use crate::support::stage::Stage;
use crate::texts::Texts;

/// What happens to a paragraph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Rewritten,
    Inserted,
    Deleted,
}

impl Change {
    pub const ALL: [Change; 3] = [Change::Rewritten, Change::Inserted, Change::Deleted];

    pub fn name(self) -> &'static str {
        match self {
            Change::Rewritten => "rewritten",
            Change::Inserted => "inserted",
            Change::Deleted => "deleted",
        }
    }
}

/// Where in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Beginning,
    Middle,
    End,
}

impl Place {
    pub const ALL: [Place; 3] = [Place::Beginning, Place::Middle, Place::End];

    pub fn name(self) -> &'static str {
        match self {
            Place::Beginning => "beginning",
            Place::Middle => "middle",
            Place::End => "end",
        }
    }

    /// The paragraph of so many that is edited: the fifth, the middle one, the last but four.
    fn of(self, paragraphs: usize) -> usize {
        match self {
            Place::Beginning => 4,
            Place::Middle => paragraphs / 2,
            Place::End => paragraphs - 5,
        }
    }
}

/// The same edit in all documents.
#[derive(Clone, Debug, Serialize)]
pub struct Edit {
    pub change: Change,
    pub place: Place,
    pub documents: usize,
    /// Passages of a document, on average.
    pub passages: f64,
    /// Passages of a document that the daemon embedded, on average.
    pub embedded: f64,
    /// The most new passages of a document.
    pub most: i64,
}

/// Of a document.
const PARAGRAPHS: usize = 320;
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_secs(600);

pub async fn measure(documents: usize, texts: &Texts) -> Vec<Edit> {
    let mut stage = Stage::on(Server::durable(&SETTINGS).await).await;
    let mut all: Vec<Vec<String>> = (0..documents)
        .map(|number| texts.document(number, PARAGRAPHS))
        .collect();
    stage
        .sql("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
        .await;
    put(&stage, &all).await;
    let options = [("chunk_table", "'docs_chunks'")];
    stage.server.job_with("docs", MODEL, &options).await;
    // A vector that is known from before would not be counted.
    stage.spawn_daemon(&[("LANTERN_YIELD", "off"), ("LANTERN_CACHE_SIZE", "0")]);
    stage.wait_for_backfill().await;
    let mut written = documents;
    let mut embedded = embedded(&stage, documents, written).await;
    let mut fresh = (documents * PARAGRAPHS..).map(|number| texts.paragraph(number));
    let mut edits = Vec::new();
    for change in Change::ALL {
        for place in Place::ALL {
            for paragraphs in &mut all {
                let place = place.of(paragraphs.len());
                let new = fresh.next().expect("they do not end");
                match change {
                    Change::Rewritten => paragraphs[place] = new,
                    Change::Inserted => paragraphs.insert(place, new),
                    Change::Deleted => drop(paragraphs.remove(place)),
                }
            }
            stage
                .sql("DROP TABLE IF EXISTS known; CREATE TABLE known AS SELECT id, chunk_fingerprint FROM docs_chunks")
                .await;
            put(&stage, &all).await;
            written += documents;
            let before = std::mem::replace(
                &mut embedded,
                self::embedded(&stage, documents, written).await,
            );
            let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM docs_chunks c \
                        WHERE NOT EXISTS (SELECT FROM known k WHERE (k.id, k.chunk_fingerprint) = (c.id, c.chunk_fingerprint)) \
                        GROUP BY id)";
            let passages = stage.number("SELECT count(*) FROM docs_chunks").await;
            edits.push(Edit {
                change,
                place,
                documents,
                passages: passages as f64 / documents as f64,
                embedded: (embedded - before) as f64 / documents as f64,
                most: stage.number(most).await,
            });
        }
    }
    edits
}

/// Inserts the documents, or updates them.
async fn put(stage: &Stage, documents: &[Vec<String>]) {
    let bodies: Vec<String> = documents.iter().map(|all| all.join("\n\n")).collect();
    let put = "INSERT INTO docs SELECT n, body FROM unnest($1::text[]) WITH ORDINALITY AS u(body, n) \
               ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body";
    let put = stage.server.session.execute(put, &[&bodies]).await;
    put.expect("the documents are there");
}

/// The texts that the daemon has embedded when the passages are those of all documents, which were written this often.
async fn embedded(stage: &Stage, documents: usize, written: usize) -> i64 {
    let current = format!(
        "SELECT count(DISTINCT id) = {documents} AND (SELECT (stats -> 'totals' ->> 'rows_written')::int >= {written} FROM jobs) \
         FROM docs_chunks_documents"
    );
    let log = || stage.daemon().log();
    let server = &stage.server;
    server.until(&current, POLL_INTERVAL, TIMEOUT, log).await;
    stage
        .number("SELECT (stats -> 'totals' ->> 'texts')::bigint FROM jobs")
        .await
}
