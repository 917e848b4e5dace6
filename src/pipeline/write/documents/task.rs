//! The task that moves documents from one step to the next. It is the only owner of all this.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::at_engine::PassagesAtEngine;
use super::document::{Document, Embedding, Stage};
use super::in_hand::{InHand, Line};
use super::refusals;
use super::session::DocumentSession;
use super::sweep::Sweeps;
use super::work::{Load, Work};
use crate::embedding::{Completions, Embedded, Priority, Submitter};
use crate::failpoint;
use crate::pipeline::chunks::cutter::Cutter;
use crate::pipeline::chunks::plan::Plan;
use crate::pipeline::chunks::write::DocumentWrite;
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{Ack, BackfillAck, Key, LiveAck, Row, SourceText};
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::table::write_back_marker::MAX_CASCADE_DEPTH;
use crate::pipeline::write::link_speed::LinkSpeed;
use crate::pipeline::write::ports::{Ports, Sinks};
use crate::pipeline::write::quarantine::Quarantine;
use crate::pipeline::write::truncated_texts::TruncatedTexts;
use crate::status::JobCounters;

/// Rows, or vectors, that are taken out of a channel at a time.
const MAX_RECEIVED: usize = 1024;

/// Passages of a document that are submitted in its turn: enough that most documents need one.
const SUBMITTED_PASSAGES: usize = 16;
/// Documents of which passages are submitted in turn.
const MAX_AT_ONCE: usize = 64;

/// How a job cuts and writes its documents.
pub struct DocumentOptions {
    /// Passages in one transaction, unless a document has more.
    pub batch_rows: usize,
    /// Dimensions of the vectors.
    pub dimensions: usize,
    /// How documents are cut.
    pub cutter: Cutter,
}

/// See the [module](self).
pub struct DocumentTask {
    ports: Ports,
    completions: Completions,
    pub(super) options: DocumentOptions,
    pub(super) target: Arc<TargetTable>,
    /// The table of passages, quoted.
    pub(super) table: String,
    pub(super) quarantine: Quarantine,
    truncated: TruncatedTexts,
    pub(super) counters: Arc<JobCounters>,
    pub(super) in_hand: InHand,
    pub(super) at_engine: PassagesAtEngine,
    pub(super) sweeps: Sweeps,
    /// Keys of a reading that failed because of one of them, to be read next in halves.
    pub(super) unread_halves: Vec<Vec<Key>>,
    /// Halves of a batch that the server refused, to be written next: one of them holds the document that it refused.
    pub(super) halves: Vec<Vec<DocumentWrite>>,
    /// Work that has not ended: of the session, and of threads that cut.
    under_way: FuturesUnordered<AbortOnDropHandle<Work>>,
    pub(super) load: Load,
    pub(super) speed: LinkSpeed,
    /// When a write-back ended last, and when one wrote a document last.
    pub(super) last_ended: Option<Instant>,
    pub(super) last_written: Option<Instant>,
    /// When the log mentioned a refused batch last.
    pub(super) last_notice: Option<Instant>,
}

impl DocumentTask {
    /// A task that writes the passages of `target` into `table`, which is its name, quoted.
    pub fn new(
        ports: Ports,
        (submitter, completions): (Submitter, Completions),
        options: DocumentOptions,
        (target, table): (Arc<TargetTable>, String),
        sinks: Sinks,
    ) -> Self {
        DocumentTask {
            ports,
            completions,
            in_hand: InHand::new(options.dimensions),
            options,
            target,
            table,
            quarantine: sinks.quarantine,
            truncated: sinks.truncated,
            counters: sinks.counters,
            at_engine: PassagesAtEngine::new(submitter),
            sweeps: Sweeps::default(),
            unread_halves: Vec::new(),
            halves: Vec::new(),
            under_way: FuturesUnordered::new(),
            load: Load::default(),
            speed: LinkSpeed::default(),
            last_ended: None,
            last_written: None,
            last_notice: None,
        }
    }

    /// Works until the sender of `ports.live` is dropped.
    ///
    /// # Errors
    /// The first error that ends the attempt.
    ///
    /// Cancellation: documents whose receipts are not out are not finished, and are sent again by the next attempt.
    pub async fn run(mut self, session: DocumentSession) -> Result<(), JobError> {
        let (mut live, mut backfill, mut completed) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            self.submit_passages();
            while let Some(work) = self.next_work(&session) {
                self.under_way.push(work);
            }
            // The end of a scan is no event: without this it would be one over and over.
            let backfill_open =
                !(self.ports.backfill.is_closed() && self.ports.backfill.is_empty());
            // What frees memory and locks comes before what brings new rows.
            tokio::select! {
                biased;
                Some(work) = self.under_way.next() => self.conclude(work?, &session).await?,
                recorded = self.quarantine.next_recorded() => {
                    self.counters.rows_quarantined.add(1);
                    self.finish_row(recorded?).await;
                }
                () = self.in_hand.until_due() => self.in_hand.wake_due(Instant::now()),
                () = self.sweeps.until_due() => {}
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
                            self.finish_row(row).await;
                        }
                    }
                    for row in live.drain(..) {
                        self.admit(row).await?;
                    }
                }
                _ = self.ports.backfill.recv_many(&mut backfill, MAX_RECEIVED), if backfill_open => {
                    for row in backfill.drain(..) {
                        self.admit(row).await?;
                    }
                }
            }
        }
    }

    /// Takes a change in.
    pub(super) async fn admit(&mut self, row: Row) -> Result<(), JobError> {
        if row.cascade_depth > MAX_CASCADE_DEPTH {
            let reason = refusals::endless_cascade(&self.table, row.cascade_depth);
            return self.quarantine.add(row, reason, 0);
        }
        if row.source == SourceText::Truncated {
            self.sweeps.push(row);
            return Ok(());
        }
        if let Some(ack) = self.in_hand.admit(row) {
            self.counters.rows_superseded.add(1);
            self.finish_live(ack).await;
        }
        Ok(())
    }

    /// Takes a plan in: submits what has to be embedded, and takes back what no longer has to be.
    pub(super) fn admit_plan(&mut self, mut document: Document, plan: Plan) {
        let key = document.row.key.clone();
        let wanted: HashSet<_> = plan.to_embed().map(|passage| passage.fingerprint).collect();
        document
            .vectors
            .retain(|fingerprint, _| wanted.contains(fingerprint));
        self.at_engine
            .withdraw(&key, |fingerprint| wanted.contains(fingerprint));
        let mut awaited = HashSet::new();
        let mut unsubmitted = std::collections::VecDeque::new();
        for passage in plan.to_embed() {
            let fingerprint = passage.fingerprint;
            let is_new =
                !document.vectors.contains_key(&fingerprint) && awaited.insert(fingerprint);
            if is_new && !self.at_engine.has(&key, &fingerprint) {
                unsubmitted.push_back(passage.clone());
            }
        }
        document.stage = match awaited.is_empty() {
            true => Stage::Ready(plan),
            false => Stage::Embedding(Embedding {
                plan,
                unsubmitted,
                awaited,
            }),
        };
        self.in_hand.put(document);
    }

    /// Submits passages of all documents in turn, as many as the engine takes from this job.
    fn submit_passages(&mut self) {
        while self.at_engine.has_room() {
            let keys = self.in_hand.line(Line::Embedding).take(MAX_AT_ONCE);
            let keys: Vec<Key> = keys.map(|document| document.row.key.clone()).collect();
            if keys.is_empty() {
                return;
            }
            for key in keys {
                self.submit_some(&key);
            }
        }
    }

    /// Submits some passages of a document.
    fn submit_some(&mut self, key: &Key) {
        let Some(mut document) = self.in_hand.remove(key) else {
            return;
        };
        let priority = match document.row.is_live() {
            true => Priority::Live,
            false => Priority::Backfill,
        };
        if let Stage::Embedding(embedding) = &mut document.stage
            && let Some(planned) = &embedding.plan.document
        {
            for _ in 0..SUBMITTED_PASSAGES {
                if !self.at_engine.has_room() {
                    break;
                }
                let Some(passage) = embedding.unsubmitted.pop_front() else {
                    break;
                };
                let chunk = embedding.plan.chunk(&passage);
                let text = self.options.cutter.embedded_text(&planned.document, chunk);
                self.at_engine
                    .submit(key, passage.fingerprint, priority, text);
            }
        }
        self.in_hand.put(document);
    }

    fn embedded(&mut self, embedded: Embedded) -> Result<(), JobError> {
        let Some((key, fingerprint)) = self.at_engine.take(embedded.id) else {
            return Ok(());
        };
        let Some(mut document) = self.in_hand.remove(&key) else {
            return Ok(());
        };
        if embedded.is_truncated {
            self.truncated.note(&self.target.qualified());
        }
        match embedded.vector {
            Ok(vector) => {
                // Kept even while the document is read again: most passages of the new text are those of the old one.
                document.vectors.insert(fingerprint, vector);
                document.stage = match document.stage {
                    Stage::Embedding(mut embedding) => {
                        embedding.awaited.remove(&fingerprint);
                        match embedding.awaited.is_empty() {
                            true => {
                                failpoint::reach("documents-embedded");
                                Stage::Ready(embedding.plan)
                            }
                            false => Stage::Embedding(embedding),
                        }
                    }
                    stage => stage,
                };
            }
            Err(error) if error.concerns_one_text() => {
                if let Stage::Embedding(embedding) = &document.stage
                    && embedding.awaited.contains(&fingerprint)
                {
                    let reason = refusals::unusable_passage(&embedding.plan, fingerprint, &error);
                    return self.quarantine(document, reason, 1);
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.in_hand.put(document);
        Ok(())
    }

    /// Gives a document up until it changes, which has been taken out.
    pub(super) fn quarantine(
        &mut self,
        document: Document,
        reason: String,
        attempts: u32,
    ) -> Result<(), JobError> {
        self.at_engine.withdraw(&document.row.key, |_| false);
        self.quarantine.add(document.row, reason, attempts)
    }

    /// The passages of a document, which has been taken out, are as they should be.
    ///
    /// A row that a trigger changed in the write-back before stays quarantined: the end of a chain of such write-backs may
    /// be known before the answer to the last of them.
    pub(super) async fn finish(&mut self, document: Document) {
        if document.row.cascade_depth == 0 {
            self.quarantine.release(&document.row.key);
        }
        self.finish_unreleased(document).await;
    }

    /// As [`finish`](Self::finish), where a later change decides whether the row can be written.
    pub(super) async fn finish_unreleased(&mut self, document: Document) {
        self.at_engine.withdraw(&document.row.key, |_| false);
        self.finish_row(document.row).await;
    }

    /// Sends the receipts of a finished row back to their senders.
    async fn finish_row(&mut self, row: Row) {
        self.sweeps.note_finished(&row.key);
        self.finish_receipts(row).await;
        while let Some(row) = self.sweeps.pop_ended() {
            self.finish_receipts(row).await;
        }
    }

    async fn finish_receipts(&mut self, row: Row) {
        for ack in row.absorbed {
            self.finish_backfill(ack).await;
        }
        match row.ack {
            Ack::Live(ack) => self.finish_live(ack).await,
            Ack::Backfill(ack) => self.finish_backfill(ack).await,
            Ack::None => {}
        }
    }

    /// Ends sweeps that found nothing.
    pub(super) async fn finish_ended_sweeps(&mut self) {
        while let Some(row) = self.sweeps.pop_ended() {
            self.finish_receipts(row).await;
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
