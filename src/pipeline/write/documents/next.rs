//! Which work comes next.

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::document::Stage;
use super::in_hand::Line;
use super::session::{Asked, DocumentSession, ReadLimit};
use super::task::DocumentTask;
use super::work::{Work, Written};
use crate::pipeline::chunks::found::FoundDocument;
use crate::pipeline::chunks::write::DocumentWrite;
use crate::pipeline::table::row::Key;
use crate::pipeline::write::statement::xid;

/// Documents that are read at a time: many, because each reading costs a round trip, unless their texts turn out to be
/// long.
const MAX_READ_ROWS: usize = 512;
/// The most text that a reading may bring, but for a single document.
const MAX_READ_BYTES: usize = 8 << 20;
/// A reading is not worth its round trip where it may bring less than this.
const MIN_READ_BYTES: usize = 256 << 10;
/// What all documents in hand may take, but for a single one.
const MAX_HELD_BYTES: usize = 64 << 20;
/// A document takes about this much for each byte of its text: the text, the passages that are to be embedded, and their
/// vectors, of which each is of some hundreds of bytes.
const TEXT_SHARE: usize = 2;
const BYTES_OF_A_PASSAGE: usize = 512;
/// Threads that cut documents at a time.
const MAX_CUTTING: usize = 2;
/// A thread takes documents until it has this much text.
const CUT_BYTES: usize = 256 << 10;
/// Write-backs that are under way at a time, if they are full.
const MAX_UNDER_WAY: usize = 3;

impl DocumentTask {
    /// The most urgent work that can begin now.
    pub(super) fn next_work(
        &mut self,
        session: &DocumentSession,
    ) -> Option<AbortOnDropHandle<Work>> {
        self.next_write(session)
            .or_else(|| self.next_cutting())
            .or_else(|| self.next_reading(session))
            .or_else(|| self.next_page(session))
    }

    fn next_page(&mut self, session: &DocumentSession) -> Option<AbortOnDropHandle<Work>> {
        let page = self.sweeps.next_page()?;
        let session = session.clone();
        Some(spawn(
            async move { Work::Swept(session.orphans(&page).await) },
        ))
    }

    fn next_reading(&mut self, session: &DocumentSession) -> Option<AbortOnDropHandle<Work>> {
        if self.load.is_reading {
            return None;
        }
        let growth = TEXT_SHARE + self.options.dimensions * size_of::<f32>() / BYTES_OF_A_PASSAGE;
        let free = MAX_HELD_BYTES.saturating_sub(self.in_hand.bytes());
        let bytes = (free / growth).min(MAX_READ_BYTES);
        let first_always = self.in_hand.bytes() == 0;
        let half = self.unread_halves.pop();
        let asked: Vec<Asked> = match half {
            Some(keys) => {
                let documents = keys.iter().filter_map(|key| self.in_hand.get(key));
                let asked =
                    documents.map(|document| (document.row.key.clone(), xid(&document.row)));
                asked.collect()
            }
            None => {
                let first = self.in_hand.line(Line::Unread).next()?;
                if !first_always && bytes < MIN_READ_BYTES.max(first.size) {
                    return None;
                }
                let rows = self.load.read_rows.clamp(1, MAX_READ_ROWS);
                let line = self.in_hand.line(Line::Unread).take(rows);
                line.map(|document| (document.row.key.clone(), xid(&document.row)))
                    .collect()
            }
        };
        if asked.is_empty() {
            return None;
        }
        for (key, _) in &asked {
            if let Some(mut document) = self.in_hand.remove(key) {
                document.stage = Stage::Reading;
                document.is_outdated = false;
                self.in_hand.put(document);
            }
        }
        self.load.is_reading = true;
        let session = session.clone();
        let limit = ReadLimit {
            bytes,
            first_always,
        };
        Some(spawn(async move {
            let found = session.read(&asked, limit).await;
            Work::Read(asked.into_iter().map(|(key, _)| key).collect(), found)
        }))
    }

    /// Texts are as long as those before, as far as is known.
    pub(super) fn note_reading(&mut self, rows: usize, bytes: usize) {
        let average = bytes / rows.max(1) + 1;
        self.load.read_rows = (MAX_READ_BYTES / average).clamp(1, MAX_READ_ROWS);
    }

    fn next_cutting(&mut self) -> Option<AbortOnDropHandle<Work>> {
        if self.load.cutting >= MAX_CUTTING {
            return None;
        }
        let mut bytes = 0;
        let mut batch: Vec<(Key, FoundDocument)> = Vec::new();
        while bytes < CUT_BYTES {
            let Some(key) = self.in_hand.line(Line::Uncut).next() else {
                break;
            };
            let key = key.row.key.clone();
            let Some(mut document) = self.in_hand.remove(&key) else {
                break;
            };
            let stage = std::mem::replace(&mut document.stage, Stage::Cutting);
            self.in_hand.put(document);
            if let Stage::Uncut(found) = stage {
                bytes += found.document.text.len();
                batch.push((key, found));
            }
        }
        if batch.is_empty() {
            return None;
        }
        self.load.cutting += 1;
        let cutter = self.options.cutter.clone();
        let cut = tokio::task::spawn_blocking(move || {
            let plans = batch
                .into_iter()
                .map(|(key, found)| (key, cutter.plan(found)));
            plans.collect()
        });
        Some(spawn(async move {
            match cut.await {
                Ok(plans) => Work::Cut(plans),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }))
    }

    fn next_write(&mut self, session: &DocumentSession) -> Option<AbortOnDropHandle<Work>> {
        let has_full_batch = !self.halves.is_empty() || self.fills_batch();
        if self.load.writing > 0 && (self.load.writing >= MAX_UNDER_WAY || !has_full_batch) {
            return None;
        }
        let batch = match self.halves.pop() {
            Some(half) => half,
            None => self.next_batch(),
        };
        if batch.is_empty() {
            return None;
        }
        let documents = batch
            .iter()
            .filter_map(|write| self.in_hand.get(&write.key));
        let depths = documents.map(|document| document.row.cascade_depth);
        let depth = depths.max().unwrap_or(0);
        self.load.writing += 1;
        let session = session.clone();
        let dimensions = self.options.dimensions;
        let bytes = batch
            .iter()
            .map(|write| write.plan.write_bytes(dimensions))
            .sum();
        let began = Instant::now();
        Some(spawn(async move {
            let outcomes = session.write(depth, &batch).await;
            Work::Wrote(Written {
                batch,
                outcomes,
                bytes,
                began,
            })
        }))
    }

    fn fills_batch(&self) -> bool {
        let (mut rows, mut bytes) = (0, 0);
        self.in_hand.line(Line::Ready).any(|document| {
            if let Stage::Ready(plan) = &document.stage {
                rows += plan.changes.len().max(1);
                bytes += plan.write_bytes(self.options.dimensions);
            }
            rows >= self.options.batch_rows || bytes >= self.speed.batch_bytes()
        })
    }

    /// Takes documents that can be written: until they have as many passages as a batch, of one cascade depth.
    fn next_batch(&mut self) -> Vec<DocumentWrite> {
        let (mut rows, mut bytes) = (0, 0);
        let mut batch = Vec::new();
        let mut depth = None;
        let mut keys = Vec::new();
        for document in self.in_hand.line(Line::Ready) {
            let Stage::Ready(plan) = &document.stage else {
                continue;
            };
            if *depth.get_or_insert(document.row.cascade_depth) != document.row.cascade_depth {
                continue;
            }
            rows += plan.changes.len().max(1);
            bytes += plan.write_bytes(self.options.dimensions);
            // A long document has a batch of its own.
            if !keys.is_empty() && rows > self.options.batch_rows {
                break;
            }
            keys.push(document.row.key.clone());
            if rows >= self.options.batch_rows || bytes >= self.speed.batch_bytes() {
                break;
            }
        }
        for key in keys {
            let Some(mut document) = self.in_hand.remove(&key) else {
                continue;
            };
            let vectors = std::mem::take(&mut document.vectors);
            if let Stage::Ready(plan) = std::mem::replace(&mut document.stage, Stage::Writing) {
                batch.push(DocumentWrite {
                    key,
                    xid: xid(&document.row),
                    plan,
                    vectors,
                });
            }
            self.in_hand.put(document);
        }
        batch
    }
}

fn spawn(work: impl Future<Output = Work> + Send + 'static) -> AbortOnDropHandle<Work> {
    AbortOnDropHandle::new(tokio::spawn(work))
}
