//! The middle of a job: rows come in from the stream and from a scan, their texts go to the embedding engine, and their
//! vectors are gathered into write-backs.
//!
//! ```text
//! live ──────┐                                        ┌─▶ retry later (row locked, change not visible yet)
//!            ├─▶ admit ─▶ engine ─▶ queue ─▶ write ───┤
//! backfill ──┘    ▲ │        │                        ├─▶ finished: the receipt goes back to the sender
//!                 │ ▼        │                        │
//!            read by key     └─ error of one text ────┴─▶ quarantine, then finished
//! ```
//!
//! A write-back starts as soon as there is something to write and none is under way, and takes along what has gathered
//! by then. So a lone row waits for nothing, and batches grow with the load by themselves. While one is under way, the
//! next one leaves only if it is full: the server executes them one after the other anyway, and over a long link it
//! would otherwise wait for each.
//!
//! The batcher is one task, and the only owner of all this.

mod newest;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_util::task::AbortOnDropHandle;

use crate::embedding::{Completions, Embedded, Submitter};
use crate::failpoint;
use crate::pipeline::error::JobError;
use crate::pipeline::table::recent_texts::RecentTexts;
use crate::pipeline::table::row::{Ack, BackfillAck, Key, LiveAck, Row, SourceText, TextHash};
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::table::write_back_marker::MAX_CASCADE_DEPTH;
use crate::pipeline::write::at_engine::AtEngine;
use crate::pipeline::write::failed_batch::{
    Conflicts, Decision, cancellation, decide, endless_cascade, refusal,
};
use crate::pipeline::write::link_speed::LinkSpeed;
use crate::pipeline::write::outcome::{EmbeddedRow, Outcome, Reading};
use crate::pipeline::write::ports::{Ports, Sinks};
use crate::pipeline::write::quarantine::Quarantine;
use crate::pipeline::write::queue::{BatchLimit, PendingWrite, RetryQueue, WriteQueue};
use crate::pipeline::write::rereads::Rereads;
use crate::pipeline::write::truncated_texts::TruncatedTexts;
use crate::pipeline::write::unread::Unread;
use crate::pipeline::write::writer::Writer;
use crate::plural::form;
use crate::postgres::DatabaseError;
use crate::postgres::error::describe;
use crate::postgres::sqlstate::{SqlStateClass, classify};
use crate::status::JobCounters;

/// Rows whose texts are read by key at a time: many, because each reading costs a round trip, unless their texts turn
/// out to be long.
const MAX_READ_ROWS: usize = 512;
const FIRST_READ_ROWS: usize = 64;
/// How often the text of one change is read: users may change it each time.
const MAX_READS: u8 = 4;
/// About as much text as a reading may bring.
const MAX_READ_BYTES: usize = 4 << 20;
/// The batcher reads texts by key only while it holds fewer bytes of text than this. The sender of such a row did not
/// have its text, so the sender's own limit did not count it.
const MAX_HELD_TEXT_BYTES: usize = 32 << 20;
/// How often a write-back may find a row with another text, with growing pauses in between, before it is read by key. With
/// these pauses that is about a second.
const MAX_MISSES: u32 = 9;
/// Rows, or vectors, that are taken out of a channel at a time.
const MAX_RECEIVED: usize = 1024;
/// Write-backs that are under way at a time, if they are full.
const MAX_UNDER_WAY: usize = 3;
/// How often a refused batch is mentioned in the log, while it is retried.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);

/// See the [module](self).
pub struct Batcher {
    ports: Ports,
    completions: Completions,
    batch_rows: usize,
    target: Arc<TargetTable>,
    quarantine: Quarantine,
    truncated: TruncatedTexts,
    counters: Arc<JobCounters>,
    at_engine: AtEngine,
    /// Rows whose text must be read by key, and how many of them are read at a time.
    unread: Unread,
    read_rows: usize,
    is_reading: bool,
    /// Halves of rows whose texts could not be read at once, to be read next: one of them holds the row that cannot.
    unread_halves: Vec<Vec<PendingWrite>>,
    queue: WriteQueue,
    /// Halves of a batch that the server refused, to be written next: one of them holds the row that it refused.
    halves: Vec<Vec<PendingWrite>>,
    later: RetryQueue,
    /// Which text was written last for a key, where texts are read by key.
    written: Option<RecentTexts>,
    /// Rows with another text than the one embedded that may be read by key.
    rereads: Rereads,
    /// Work of the session that has not ended.
    under_way: FuturesUnordered<AbortOnDropHandle<Work>>,
    speed: LinkSpeed,
    /// When a write-back ended last, and when one wrote a row last.
    last_ended: Option<Instant>,
    last_written: Option<Instant>,
    /// When the log mentioned a refused batch last.
    last_notice: Option<Instant>,
}

/// What the session has done.
enum Work {
    Wrote(Written),
    Read(Vec<PendingWrite>, Result<Vec<Reading>, JobError>),
}

/// A write-back that has ended.
struct Written {
    batch: Vec<PendingWrite>,
    outcomes: Result<Vec<Outcome>, tokio_postgres::Error>,
    bytes: usize,
    began: Instant,
}

impl Batcher {
    /// A batcher that writes at most `batch_rows` rows at a time.
    pub fn new(
        ports: Ports,
        (submitter, completions): (Submitter, Completions),
        batch_rows: usize,
        target: Arc<TargetTable>,
        sinks: Sinks,
    ) -> Self {
        Batcher {
            ports,
            completions,
            batch_rows,
            quarantine: sinks.quarantine,
            truncated: sinks.truncated,
            counters: sinks.counters,
            at_engine: AtEngine::new(submitter),
            unread: Unread::default(),
            unread_halves: Vec::new(),
            read_rows: FIRST_READ_ROWS,
            is_reading: false,
            queue: WriteQueue::default(),
            halves: Vec::new(),
            later: RetryQueue::default(),
            written: (!target.source.published || target.reads_texts()).then(RecentTexts::default),
            rereads: Rereads::default(),
            under_way: FuturesUnordered::new(),
            speed: LinkSpeed::default(),
            last_ended: None,
            last_written: None,
            last_notice: None,
            target,
        }
    }

    /// Works until the sender of `ports.live` is dropped.
    ///
    /// # Errors
    /// The first error that ends the attempt.
    ///
    /// Cancellation: rows without a receipt are not finished, and are sent again by the next attempt.
    pub async fn run(mut self, writer: Writer) -> Result<(), JobError> {
        let (mut live, mut backfill, mut completed) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            while let Some(work) = self.next_work(&writer) {
                self.under_way.push(work);
            }
            // The end of a scan is no event: without this it would be one over and over.
            let backfill_open =
                !(self.ports.backfill.is_closed() && self.ports.backfill.is_empty());
            // What frees memory and locks comes before what brings new rows.
            tokio::select! {
                biased;
                Some(work) = self.under_way.next() => self.conclude(work?, &writer).await?,
                recorded = self.quarantine.next_recorded() => {
                    self.counters.rows_quarantined.add(1);
                    self.finish(recorded?).await;
                }
                () = self.later.until_due() => self.wake_due(),
                count = self.completions.next_many(&mut completed, MAX_RECEIVED) => {
                    if count == 0 {
                        return Err(JobError::Transient("the embedding engine has stopped".into()));
                    }
                    for embedded in completed.drain(..) {
                        self.embedded(embedded)?;
                    }
                }
                count = self.ports.live.recv_many(&mut live, MAX_RECEIVED) => {
                    if count == 0 {
                        self.quarantine.flush().await;
                        return Ok(());
                    }
                    if failpoint::is_set("batcher-lets-go") {
                        for row in live.drain(..) {
                            self.finish(row).await;
                        }
                    }
                    for row in live.drain(..) {
                        self.admit_newest(row).await?;
                    }
                }
                _ = self.ports.backfill.recv_many(&mut backfill, MAX_RECEIVED), if backfill_open => {
                    for row in backfill.drain(..) {
                        self.admit_newest(row).await?;
                    }
                }
            }
        }
    }

    /// Sends a row on its way, by what is known of its text.
    fn admit(&mut self, row: Row) -> Result<(), JobError> {
        if row.cascade_depth > MAX_CASCADE_DEPTH {
            let reason = endless_cascade(&self.target, row.cascade_depth);
            return self.quarantine.add(row, reason, 0);
        }
        match &row.source {
            SourceText::Text(_) => self.at_engine.submit(row),
            SourceText::Empty => self.queue.push(PendingWrite::new(row, None)),
            // A job that is told of truncated tables has another task than this one.
            SourceText::Unread | SourceText::Truncated => {
                self.unread.push(PendingWrite::new(row, None));
            }
        }
        Ok(())
    }

    fn embedded(&mut self, embedded: Embedded) -> Result<(), JobError> {
        let Some(row) = self.at_engine.take(embedded.id) else {
            // Superseded a moment ago.
            return Ok(());
        };
        let is_cut = row.source.text().is_some_and(|text| text.whole().is_none());
        if embedded.is_truncated || is_cut {
            self.truncated.note(&self.target.qualified());
        }
        match embedded.vector {
            Ok(vector) => self.queue.push(PendingWrite::new(row, Some(vector))),
            Err(error) if error.concerns_one_text() => {
                self.quarantine.add(row, error.to_string(), 1)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn wake_due(&mut self) {
        let now = Instant::now();
        while let Some(pending) = self.later.pop_due(now) {
            match pending.embedded.row.source {
                SourceText::Unread | SourceText::Truncated => self.unread.push(pending),
                SourceText::Text(_) | SourceText::Empty => self.queue.push(pending),
            }
        }
    }

    /// The most urgent work that can begin now.
    fn next_work(&mut self, writer: &Writer) -> Option<AbortOnDropHandle<Work>> {
        let limit = BatchLimit {
            rows: self.batch_rows,
            bytes: self.speed.batch_bytes(),
        };
        let writer = writer.clone();
        let batch = self.next_unread();
        if !batch.is_empty() {
            self.is_reading = true;
            return Some(spawn(async move {
                let rows: Vec<&Row> = batch.iter().map(|pending| &pending.embedded.row).collect();
                let readings = writer.read_sources(&rows).await;
                Work::Read(batch, readings)
            }));
        }
        let writing = self.under_way.len() - usize::from(self.is_reading);
        let has_full_batch = self.queue.fills(limit) || !self.halves.is_empty();
        if writing > 0 && (writing >= MAX_UNDER_WAY || !has_full_batch) {
            return None;
        }
        let next = || self.queue.next_batch(limit);
        let batch = self.halves.pop().unwrap_or_else(next);
        if batch.is_empty() {
            return None;
        }
        let began = Instant::now();
        Some(spawn(async move {
            let rows: Vec<&EmbeddedRow> = batch.iter().map(|pending| &pending.embedded).collect();
            let outcomes = writer.write(&rows).await;
            Work::Wrote(Written {
                bytes: batch.iter().map(PendingWrite::bytes).sum(),
                batch,
                outcomes,
                began,
            })
        }))
    }

    /// The rows whose texts are read next; empty where there are none, or too much text is here already.
    fn next_unread(&mut self) -> Vec<PendingWrite> {
        if self.is_reading
            || self.unread.is_empty() && self.unread_halves.is_empty()
            || self.text_bytes() >= MAX_HELD_TEXT_BYTES
        {
            return Vec::new();
        }
        self.unread_halves
            .pop()
            .unwrap_or_else(|| self.unread.take(self.read_rows))
    }

    /// The texts of all rows that are here, in bytes.
    fn text_bytes(&self) -> usize {
        let pending = self.queue.iter().chain(self.later.iter());
        let pending = pending.map(|pending| &pending.embedded.row);
        let rows = self.at_engine.iter().chain(pending);
        rows.map(|row| row.source.bytes()).sum()
    }

    async fn conclude(&mut self, work: Work, writer: &Writer) -> Result<(), JobError> {
        match work {
            Work::Read(batch, readings) => {
                self.is_reading = false;
                match readings {
                    Ok(readings) => self.conclude_reading(batch, readings).await,
                    Err(error) => self.settle_unreadable(batch, error).await,
                }
            }
            Work::Wrote(written) => {
                let begins = self
                    .last_ended
                    .map_or(written.began, |last| last.max(written.began));
                self.last_ended = Some(Instant::now());
                self.speed.note(written.bytes, begins.elapsed());
                self.counters.note_write_back(written.began.elapsed());
                match written.outcomes {
                    Ok(outcomes) => self.conclude_batch(written.batch, outcomes).await,
                    Err(error) if writer.session().is_closed() => Err(JobError::Transient(
                        format!("the connection was lost: {}", describe(&error)),
                    )),
                    // The session goes on: the statement was a transaction of its own.
                    Err(error) => self.settle_error(written.batch, error),
                }
            }
        }
    }

    async fn conclude_reading(
        &mut self,
        batch: Vec<PendingWrite>,
        readings: Vec<Reading>,
    ) -> Result<(), JobError> {
        let bytes: usize = readings.iter().map(Reading::bytes).sum();
        let average = bytes / batch.len().max(1) + 1;
        self.read_rows = (MAX_READ_BYTES / average).clamp(1, MAX_READ_ROWS);
        let mut later = Vec::new();
        for (pending, reading) in batch.into_iter().zip(readings) {
            match reading {
                Reading::NotYetVisible => later.push(pending),
                Reading::Found(source)
                    if is_written_for(&pending, &source) || self.is_written(&pending, &source) =>
                {
                    self.conclude_row(pending).await;
                }
                Reading::Found(source) => self.admit(Row {
                    source,
                    reads: pending.embedded.row.reads.saturating_add(1),
                    ..pending.embedded.row
                })?,
                Reading::Current | Reading::Gone => self.conclude_row(pending).await,
            }
        }
        self.later.push_all(later);
        Ok(())
    }

    async fn conclude_batch(
        &mut self,
        batch: Vec<PendingWrite>,
        outcomes: Vec<Outcome>,
    ) -> Result<(), JobError> {
        let written = outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::Written)
            .count();
        self.counters.rows_written.add(written as u64);
        tracing::debug!("wrote {written} rows of {}", self.target.qualified());
        let (mut later, mut changed) = (Vec::new(), Vec::new());
        for (pending, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Locked | Outcome::NotYetVisible => later.push(pending),
                Outcome::Written => {
                    self.last_written = Some(Instant::now());
                    self.note_written(&pending.embedded.row);
                    self.conclude_row(pending).await;
                }
                // The change that supersedes it decides whether the row can be written, so it stays quarantined.
                Outcome::Superseded => {
                    self.counters.rows_superseded.add(1);
                    self.finish(pending.embedded.row).await;
                }
                Outcome::Changed => changed.push(pending),
                Outcome::Canceled => {
                    let reason = cancellation(&self.target);
                    self.quarantine.add(pending.embedded.row, reason, 1)?;
                }
            }
        }
        self.later.push_all(later);
        self.settle_changed(changed).await;
        Ok(())
    }

    /// Rows that are there with another text. Where a newer change of the row is in hand, that one decides. Where none comes
    /// for about a second, the row is read by key.
    async fn settle_changed(&mut self, rows: Vec<PendingWrite>) {
        if rows.is_empty() {
            return;
        }
        let in_hand = self.keys_in_hand(&rows);
        let mut waiting = Vec::new();
        for mut pending in rows {
            let row = &pending.embedded.row;
            if in_hand.contains(&row.key) || row.reads >= MAX_READS {
                self.finish(pending.embedded.row).await;
            } else if is_read_again(row) || pending.misses >= MAX_MISSES {
                self.read_again(pending.embedded.row);
            } else if pending.misses > 0 || self.rereads.take() {
                pending.misses += 1;
                waiting.push(pending);
            } else {
                self.finish(pending.embedded.row).await;
            }
        }
        self.later.push_all(waiting);
    }

    fn read_again(&mut self, row: Row) {
        let row = Row {
            source: SourceText::Unread,
            ..row
        };
        self.unread.push(PendingWrite::new(row, None));
    }

    /// Those of the keys of `rows` that other rows without a receipt have too.
    fn keys_in_hand(&self, rows: &[PendingWrite]) -> HashSet<Key> {
        let wanted: HashSet<&Key> = rows
            .iter()
            .map(|pending| &pending.embedded.row.key)
            .collect();
        let halves = self.halves.iter().chain(&self.unread_halves).flatten();
        let pending = self.queue.iter().chain(self.later.iter());
        let pending = pending.chain(self.unread.iter()).chain(halves);
        let rows = pending.map(|pending| &pending.embedded.row);
        let keys = rows.chain(self.at_engine.iter()).map(|row| &row.key);
        keys.filter(|key| wanted.contains(key)).cloned().collect()
    }

    fn note_written(&mut self, row: &Row) {
        if let Some(written) = &mut self.written {
            written.note(&row.key, &row.source);
        }
    }

    /// Whether an updated row still has the text whose vector was written last.
    fn is_written(&mut self, pending: &PendingWrite, found: &SourceText) -> bool {
        let row = &pending.embedded.row;
        match (&mut self.written, found) {
            (Some(written), SourceText::Text(text)) if row.is_update => {
                written.is_newest(&row.key, text)
            }
            _ => false,
        }
    }

    /// The row is as it should be.
    ///
    /// A row that a trigger changed in the write-back before stays quarantined: the end of a chain of such write-backs may
    /// be known before the answer to the last of them.
    async fn conclude_row(&mut self, pending: PendingWrite) {
        if pending.embedded.row.cascade_depth == 0 {
            self.quarantine.release(&pending.embedded.row.key);
        }
        self.finish(pending.embedded.row).await;
    }

    /// The texts of these rows could not be read. If one of them is at fault, it is found by halving, as for a write-back.
    async fn settle_unreadable(
        &mut self,
        mut batch: Vec<PendingWrite>,
        error: JobError,
    ) -> Result<(), JobError> {
        if error.code().map(classify) != Some(SqlStateClass::Row) {
            return Err(error);
        }
        if batch.len() > 1 {
            let second = batch.split_off(batch.len() / 2);
            self.unread_halves.extend([second, batch]);
            return Ok(());
        }
        for pending in batch {
            if error.code() == Some(&SqlState::INVALID_TEXT_REPRESENTATION) {
                // The key is none of its type, as after a label of an enum was renamed: no row can have it.
                self.conclude_row(pending).await;
            } else {
                let attempts = pending.conflicts.count + 1;
                self.quarantine
                    .add(pending.embedded.row, error.to_string(), attempts)?;
            }
        }
        Ok(())
    }

    fn settle_error(
        &mut self,
        mut batch: Vec<PendingWrite>,
        error: tokio_postgres::Error,
    ) -> Result<(), JobError> {
        let conflicts: Vec<Conflicts> = batch.iter().map(|pending| pending.conflicts).collect();
        match decide(&error, &conflicts, self.last_written) {
            Decision::RetryAfterOutage => self.retry(batch, &error),
            Decision::RetryAfterConflict => {
                batch
                    .iter_mut()
                    .for_each(|pending| pending.conflicts.note());
                self.retry(batch, &error);
            }
            Decision::RetryAfterUserOutage => {
                batch
                    .iter_mut()
                    .for_each(|pending| pending.conflicts.recount());
                self.retry(batch, &error);
            }
            Decision::Halve => {
                let second = batch.split_off(batch.len() / 2);
                self.halves.extend([second, batch]);
            }
            Decision::Quarantine => {
                for pending in batch {
                    if may_be_of_key(&error) && pending.embedded.row.reads == 0 {
                        self.read_again(pending.embedded.row);
                        continue;
                    }
                    let attempts = pending.conflicts.count + 1;
                    let reason = refusal(&error, &self.target);
                    self.quarantine
                        .add(pending.embedded.row, reason, attempts)?;
                }
            }
            Decision::FailJob => {
                let doing = format!("writing to {}", self.target.qualified());
                return Err(DatabaseError::during(doing)(error).into());
            }
        }
        Ok(())
    }

    /// The batch is written later. What passes within a second is not worth a message; what goes on is logged once a minute.
    fn retry(&mut self, batch: Vec<PendingWrite>, error: &tokio_postgres::Error) {
        let goes_on = batch.iter().any(PendingWrite::is_retried_often);
        let is_due = self
            .last_notice
            .is_none_or(|last| last.elapsed() >= NOTICE_INTERVAL);
        if goes_on && is_due {
            self.last_notice = Some(Instant::now());
            tracing::warn!(
                "writing {} {} of {} fails again and again, and is retried: {}",
                batch.len(),
                form(batch.len(), "row", "rows"),
                self.target.qualified(),
                describe(error)
            );
        }
        self.later.push_all(batch);
    }

    /// Sends the receipt of a finished row back to the row's sender, and those of the rows that it stood for.
    async fn finish(&mut self, row: Row) {
        for ack in row.absorbed {
            self.finish_backfill(ack).await;
        }
        match row.ack {
            Ack::Live(ack) => self.finish_live(ack).await,
            Ack::Backfill(ack) => self.finish_backfill(ack).await,
            Ack::None => {}
        }
    }

    // A closed channel means that the attempt is ending. What is not confirmed is sent again.

    async fn finish_live(&mut self, ack: LiveAck) {
        let _ = self.ports.live_finished.send(ack).await;
    }

    async fn finish_backfill(&mut self, ack: BackfillAck) {
        let _ = self.ports.backfill_finished.send(ack).await;
    }
}

/// Whether the row's key may be no value of its type any more. Reading the row tells.
fn may_be_of_key(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_TEXT_REPRESENTATION)
}

fn spawn(work: impl Future<Output = Work> + Send + 'static) -> AbortOnDropHandle<Work> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

/// Whether a row that holds another text now is read by key, and not left to the change that gave it that text.
///
/// If the stream carried the text, the change filter remembers it, and lets each change pass that brings another one. Of
/// texts from a scan or read by key it knows nothing. If a trigger then changes the text in a write-back of another job,
/// the filter cannot tell that from an ordinary write-back.
fn is_read_again(row: &Row) -> bool {
    let is_scanned = !row.is_live() || !row.absorbed.is_empty();
    (is_scanned || row.reads > 0) && row.reads < MAX_READS
}

/// Whether the row's vector is already that of the text which was found.
fn is_written_for(pending: &PendingWrite, found: &SourceText) -> bool {
    let written_for = pending.embedded.row.written_for;
    written_for.is_some() && written_for == TextHash::new(found)
}
