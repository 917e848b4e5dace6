//! A reader of passages while the schedule runs, on a connection of its own past the proxy.
//!
//! It knows each version that a row had from the [history](super::tables), in the snapshot in which it reads. So it tells
//! that the passages of a key are those of one version, never of an older one than before and never missing while the row
//! has a text, and that the view shows a row with its own passages or not at all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use testkit::client::connect_when_ready;
use testkit::tiny_model::TinyModel;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row};

use super::cutting::{Content, Cutting, Judge, Passage};
use super::tables::WATCHED;
use super::versions::Versions;
use super::{Documents, PassageTableName};
use crate::record::Record;
use crate::shape::Shape;

/// At least so long between two looks, and as long as a look takes.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// So many faults are reported.
const MAX_REPORTED: usize = 5;

/// What the reader needs.
pub struct Reader {
    pub uri: String,
    pub shape: Shape,
    pub documents: Documents,
    /// How documents may be cut, and by which models embedded.
    pub cuttings: Vec<Cutting>,
    pub models: Vec<TinyModel>,
    pub record: Arc<Record>,
    pub stop: Arc<AtomicBool>,
}

/// What it remembers of a table for passages.
struct Watched {
    table: PassageTableName,
    oid: Option<u32>,
    /// What was read last of each key, in short.
    digests: HashMap<String, String>,
    of_view: HashMap<String, String>,
    versions: HashMap<String, Versions>,
}

/// The work of a [`Reader`].
struct Reading {
    reader: Reader,
    judges: Vec<Judge>,
    tables: Vec<Watched>,
    /// The snapshot of the last look. None after a crash of the server, which may give transaction ids out again.
    seen: Option<String>,
    /// The versions that were read, by their numbers in the history.
    read: HashSet<i64>,
    looks: u64,
    reported: usize,
}

impl Reader {
    /// Reads until told to stop.
    pub async fn run(self) {
        let judges = self.cuttings.iter().flat_map(|cutting| {
            let models = self.models.iter();
            models.map(|model| Judge::new(cutting, *model))
        });
        let tables = self.documents.tables().map(|table| Watched {
            table,
            oid: None,
            digests: HashMap::new(),
            of_view: HashMap::new(),
            versions: HashMap::new(),
        });
        let reading = Reading {
            judges: judges.collect(),
            tables: tables.into(),
            seen: None,
            read: HashSet::new(),
            looks: 0,
            reported: 0,
            reader: self,
        };
        reading.run().await;
    }
}

impl Reading {
    async fn run(mut self) {
        let mut client = connect_when_ready(&self.reader.uri, "chaos-reader").await;
        let mut is_last = false;
        while !is_last {
            // After the end of the workload it looks once more.
            is_last = self.reader.stop.load(Ordering::SeqCst);
            let began = Instant::now();
            if let Err(error) = self.look(&client).await {
                if client.is_closed() {
                    client = connect_when_ready(&self.reader.uri, "chaos-reader").await;
                    self.seen = None;
                } else {
                    let _ = client.batch_execute("ROLLBACK").await;
                    self.settle(&error);
                }
            }
            tokio::time::sleep(POLL_INTERVAL.max(began.elapsed())).await;
        }
        self.reader.record.looked(self.looks);
    }

    /// The table and its view may be dropped or replaced while they are read.
    fn settle(&mut self, error: &Error) {
        let expected = [
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_FUNCTION,
            SqlState::UNDEFINED_COLUMN,
            // A view that is replaced between the preparation and the query.
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
        ];
        let is_expected = error.code().is_none_or(|code| expected.contains(code));
        // A relation that is dropped after it was looked up.
        let is_dropped = error.code() == Some(&SqlState::INTERNAL_ERROR);
        if !is_expected && !is_dropped {
            self.report(format!("a reader of passages failed: {error:?}"));
        }
    }

    fn report(&mut self, what: String) {
        self.reported += 1;
        if self.reported <= MAX_REPORTED {
            self.reader.record.violation(what);
        }
    }

    /// One look: all in one snapshot.
    async fn look(&mut self, client: &Client) -> Result<(), Error> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        client.batch_execute(begin).await?;
        // The clock is read after the snapshot is taken: statements that begin later see what it shows.
        let now =
            "SELECT pg_current_snapshot()::text, extract(epoch FROM clock_timestamp())::float8";
        let now = client.query_one(now, &[]).await?;
        self.read_history(client, now.get(1)).await?;
        self.seen = Some(now.get(0));
        for place in 0..self.tables.len() {
            self.read_table(client, place).await?;
        }
        client.batch_execute("COMMIT").await?;
        self.looks += 1;
        Ok(())
    }

    /// The versions that were committed since the last look.
    async fn read_history(&mut self, client: &Client, now: f64) -> Result<(), Error> {
        let history = format!(
            "SELECT xid::text, key, NULLIF(body, ''), other, id FROM history \
             WHERE ($1::text IS NULL OR NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)) \
               AND (key IS NULL OR key IN (SELECT name FROM {WATCHED})) ORDER BY id"
        );
        for row in client.query(&history, &[&self.seen]).await? {
            if !self.read.insert(row.get(4)) {
                continue;
            }
            let (xid, key): (&str, Option<&str>) = (row.get(0), row.get(1));
            let body: Option<String> = row.get(2);
            let content = body.map(|body| Content {
                body,
                other: row.get(3),
            });
            for watched in &mut self.tables {
                match key {
                    Some(key) => {
                        let versions = watched.versions.entry(key.to_owned()).or_default();
                        versions.push(xid, content.clone(), now);
                    }
                    None => {
                        for versions in watched.versions.values_mut() {
                            versions.push(xid, None, now);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn read_table(&mut self, client: &Client, place: usize) -> Result<(), Error> {
        let PassageTableName {
            qualified, view, ..
        } = self.tables[place].table;
        let oids = client
            .query_one(
                "SELECT to_regclass($1)::oid, to_regclass($2)::oid",
                &[&qualified, &view],
            )
            .await?;
        let oid: Option<u32> = oids.get(0);
        let watched = &mut self.tables[place];
        if oid != watched.oid {
            watched.oid = oid;
            watched.digests.clear();
            watched
                .versions
                .values_mut()
                .for_each(Versions::forget_shown);
        }
        if oid.is_none() {
            return Ok(());
        }
        self.read_passages(client, place, qualified).await?;
        if oids.get::<_, Option<u32>>(1).is_some() {
            self.read_view(client, place, view).await?;
        }
        Ok(())
    }

    async fn read_passages(
        &mut self,
        client: &Client,
        place: usize,
        table: &str,
    ) -> Result<(), Error> {
        let of_key = self.reader.shape.same_key("p", "w");
        let digests = format!(
            "SELECT w.name, string_agg(p.ctid::text || p.xmin::text, ' ' ORDER BY p.chunk_seq) \
             FROM {WATCHED} w JOIN {table} p ON {of_key} GROUP BY 1"
        );
        let new = digests_of(&client.query(&digests, &[]).await?);
        let changed = changed(&self.tables[place].digests, &new);
        let passages = format!(
            "SELECT w.name, p.chunk_seq, p.chunk_start, p.chunk_end, p.chunk, p.embedding::real[], \
                    p.document_fingerprint IS NOT NULL, p.chunk_fingerprint IS NOT NULL, \
                    CASE WHEN p.chunk_seq = 0 THEN (to_jsonb(p) ->> 'written_at')::float8 END \
             FROM {WATCHED} w JOIN {table} p ON {of_key} WHERE w.name = ANY($1) ORDER BY w.name, p.chunk_seq"
        );
        let rows = client.query(&passages, &[&changed]).await?;
        let mut found = by_name(&rows);
        for key in changed {
            let rows = found.remove(key.as_str()).unwrap_or_default();
            let passages: Vec<Passage> = rows.iter().map(|row| passage(row, 2)).collect();
            if let Err(what) = check_form(&rows) {
                self.report(format!("the passages of {key} in {table}: {what}"));
                continue;
            }
            // The first passage is written with every change of a document.
            let written = rows.first().and_then(|row| row.get(8));
            let versions = self.tables[place].versions.entry(key.clone()).or_default();
            if let Err(what) = versions.show(&mut self.judges, &passages, written) {
                self.report(format!("the passages of {key} in {table} are {what}"));
            }
        }
        self.tables[place].digests = new;
        Ok(())
    }

    /// What the view shows of a row are the passages of its content.
    async fn read_view(&mut self, client: &Client, place: usize, view: &str) -> Result<(), Error> {
        let of_key = self.reader.shape.same_key("p", "w");
        let digests = format!(
            "SELECT w.name, string_agg(CASE WHEN p.chunk_seq = 0 THEN md5(concat(p.body, ' ', p.other)) ELSE '' END \
                      || p.chunk_seq || ' ' || p.chunk_start || ' ' || p.chunk_end || md5(p.chunk), ' ' ORDER BY p.chunk_seq) \
             FROM {WATCHED} w JOIN {view} p ON {of_key} GROUP BY 1"
        );
        let new = digests_of(&client.query(&digests, &[]).await?);
        let mut changed = changed(&self.tables[place].of_view, &new);
        // A document that is not shown is right.
        changed.retain(|key| new.contains_key(key));
        let passages = format!(
            "SELECT w.name, p.chunk_seq, p.chunk_start, p.chunk_end, p.chunk, p.embedding::real[], p.body, p.other \
             FROM {WATCHED} w JOIN {view} p ON {of_key} WHERE w.name = ANY($1) ORDER BY w.name, p.chunk_seq"
        );
        let rows = client.query(&passages, &[&changed]).await?;
        for (key, rows) in by_name(&rows) {
            let passages: Vec<Passage> = rows.iter().map(|row| passage(row, 2)).collect();
            let content = Content {
                body: rows[0].get::<_, Option<String>>(6).unwrap_or_default(),
                other: rows[0].get(7),
            };
            let mut judges = self.judges.iter_mut();
            if !judges.any(|judge| judge.accepts(&content, &passages)) {
                self.report(format!(
                    "{view} shows the row {key} with passages of another text: {content:?} {passages:?}"
                ));
            }
        }
        self.tables[place].of_view = new;
        Ok(())
    }
}

/// The passages of a document are numbered from 0, and the first one alone names the document.
fn check_form(rows: &[&Row]) -> Result<(), String> {
    for (place, row) in (0..).zip(rows) {
        let seq: i32 = row.get(1);
        if seq != place {
            return Err(format!("number {place} is {seq}"));
        }
        if row.get::<_, bool>(6) != (seq == 0) {
            return Err(format!("document_fingerprint of number {seq}"));
        }
        if !row.get::<_, bool>(7) {
            return Err(format!("number {seq} has no chunk_fingerprint"));
        }
    }
    Ok(())
}

/// The passage of a row whose columns from `first` on are start, end, text and vector.
pub fn passage(row: &Row, first: usize) -> Passage {
    Passage {
        start: row.get(first),
        end: row.get(first + 1),
        chunk: row.get(first + 2),
        vector: row.get(first + 3),
    }
}

fn digests_of(rows: &[Row]) -> HashMap<String, String> {
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The keys whose digest is another one, or gone, or new.
fn changed(before: &HashMap<String, String>, now: &HashMap<String, String>) -> Vec<String> {
    let keys: HashSet<&String> = before.keys().chain(now.keys()).collect();
    let changed = keys
        .into_iter()
        .filter(|key| before.get(*key) != now.get(*key));
    changed.cloned().collect()
}

/// Rows by their first column, in their order.
fn by_name(rows: &[Row]) -> HashMap<&str, Vec<&Row>> {
    let mut by_name: HashMap<&str, Vec<&Row>> = HashMap::new();
    for row in rows {
        by_name.entry(row.get(0)).or_default().push(row);
    }
    by_name
}
