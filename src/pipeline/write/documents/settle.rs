//! What the results of work mean for the documents.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::document::{Document, Stage};
use super::refusals::{cancellation, too_large};
use super::session::DocumentSession;
use super::task::DocumentTask;
use super::work::{Work, Written};
use crate::backoff::pause_after;
use crate::failpoint;
use crate::pipeline::chunks::found::Found;
use crate::pipeline::chunks::orphans::OrphanPage;
use crate::pipeline::chunks::plan::Plan;
use crate::pipeline::chunks::write::{CANCELED, DocumentOutcome, DocumentWrite};
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{Key, Row};
use crate::pipeline::write::failed_batch::{Conflicts, Decision, decide, refusal_of};
use crate::plural::form;
use crate::postgres::DatabaseError;
use crate::postgres::error::describe;
use crate::postgres::sqlstate::{SqlStateClass, classify};

/// The shortest and the longest pause before a document is retried.
const MIN_BACKOFF: Duration = Duration::from_millis(2);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// How often a write-back may find the row with another text: the change that brought that text is on its way, and comes
/// within the pauses in between.
const MAX_MISSES: u32 = 16;
/// How often a refused batch is mentioned in the log, while it is retried.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);
/// A document that was retried this often has been for about a second.
const RETRIED_OFTEN: u32 = 8;

impl DocumentTask {
    pub(super) async fn conclude(
        &mut self,
        work: Work,
        session: &DocumentSession,
    ) -> Result<(), JobError> {
        match work {
            Work::Read(keys, found) => {
                self.load.is_reading = false;
                match found {
                    Ok(found) => self.conclude_reading(keys, found).await,
                    Err(error) => self.settle_unreadable(keys, error).await,
                }
            }
            Work::Cut(plans) => {
                self.load.cutting -= 1;
                failpoint::reach("documents-cut");
                for (key, plan) in plans {
                    self.conclude_cutting(&key, plan).await;
                }
                Ok(())
            }
            Work::Wrote(written) => self.conclude_write(written, session).await,
            Work::Swept(page) => {
                failpoint::reach("orphans-read");
                self.conclude_sweep(page?).await
            }
        }
    }

    async fn conclude_reading(
        &mut self,
        keys: Vec<Key>,
        found: Vec<Found>,
    ) -> Result<(), JobError> {
        let bytes = found.iter().map(|found| match found {
            Found::Changed(found) => found.document.text.len(),
            Found::Postponed(size) => *size,
            _ => 0,
        });
        self.note_reading(keys.len(), bytes.sum());
        failpoint::reach("documents-read");
        for (key, found) in keys.into_iter().zip(found) {
            let Some(mut document) = self.in_hand.remove(&key) else {
                continue;
            };
            if document.is_outdated {
                document.stage = Stage::Unread;
                self.in_hand.put(document);
                continue;
            }
            match found {
                Found::Current => self.finish(document).await,
                Found::NotYetVisible => self.pause(document, None),
                Found::Leftover(version) => self.admit_plan(document, Plan::removal(version)),
                Found::Postponed(size) => {
                    document.size = size;
                    document.stage = Stage::Unread;
                    self.in_hand.put(document);
                }
                Found::TooLarge(size) => {
                    let limit = self.target.passages.as_ref();
                    let limit = limit.map_or(0, |passages| passages.max_document_bytes);
                    self.quarantine(document, too_large(size, limit), 0)?;
                }
                Found::Changed(found) => {
                    document.stage = Stage::Uncut(found);
                    self.in_hand.put(document);
                }
            }
        }
        Ok(())
    }

    /// These documents could not be read. If one of them is at fault, it is found by halving, as for a write-back.
    async fn settle_unreadable(
        &mut self,
        mut keys: Vec<Key>,
        error: JobError,
    ) -> Result<(), JobError> {
        if error.code().map(classify) != Some(SqlStateClass::Row) {
            return Err(error);
        }
        if keys.len() > 1 {
            let second = keys.split_off(keys.len() / 2);
            self.unread_halves.extend([second, keys]);
            return Ok(());
        }
        for key in keys {
            let Some(mut document) = self.in_hand.remove(&key) else {
                continue;
            };
            if document.is_outdated {
                document.stage = Stage::Unread;
                self.in_hand.put(document);
            } else if error.code() == Some(&SqlState::INVALID_TEXT_REPRESENTATION) {
                // The key is none of its type, as after a label of an enum was renamed: no row can have it.
                self.finish(document).await;
            } else {
                let attempts = document.conflicts.count + 1;
                self.quarantine(document, error.to_string(), attempts)?;
            }
        }
        Ok(())
    }

    async fn conclude_cutting(&mut self, key: &Key, plan: Plan) {
        let Some(mut document) = self.in_hand.remove(key) else {
            return;
        };
        if document.is_outdated {
            document.stage = Stage::Unread;
            self.in_hand.put(document);
        } else if plan.is_done() {
            self.finish(document).await;
        } else {
            self.admit_plan(document, plan);
        }
    }

    async fn conclude_write(
        &mut self,
        written: Written,
        session: &DocumentSession,
    ) -> Result<(), JobError> {
        self.load.writing -= 1;
        let begins = self
            .last_ended
            .map_or(written.began, |last| last.max(written.began));
        self.last_ended = Some(Instant::now());
        self.speed.note(written.bytes, begins.elapsed());
        self.counters.note_write_back(written.began.elapsed());
        match written.outcomes {
            Ok(outcomes) => {
                for (write, outcome) in written.batch.into_iter().zip(outcomes) {
                    self.conclude_document(write, outcome).await;
                }
                Ok(())
            }
            Err(error) if session.session().is_closed() => Err(JobError::Transient(format!(
                "the connection was lost: {}",
                describe(&error)
            ))),
            // The session goes on: the failed transaction has ended.
            Err(error) => self.settle_error(written.batch, error),
        }
    }

    async fn conclude_document(&mut self, write: DocumentWrite, outcome: DocumentOutcome) {
        let Some(mut document) = self.in_hand.remove(&write.key) else {
            return;
        };
        match outcome {
            DocumentOutcome::Written => {
                self.last_written = Some(Instant::now());
                self.counters.rows_written.add(1);
                self.counters
                    .passages_written
                    .add(write.plan.changes.len() as u64);
                if document.is_outdated {
                    document.stage = Stage::Unread;
                    self.in_hand.put(document);
                } else {
                    self.finish(document).await;
                }
            }
            DocumentOutcome::NotYetVisible => {
                document.vectors = write.vectors;
                self.pause(document, Some(write.plan));
            }
            DocumentOutcome::PassagesChanged => {
                document.vectors = write.vectors;
                self.read_again(document);
            }
            DocumentOutcome::RowChanged => {
                document.vectors = write.vectors;
                document.misses += 1;
                if document.misses >= MAX_MISSES && !document.is_outdated {
                    self.counters.rows_superseded.add(1);
                    self.finish_unreleased(document).await;
                } else {
                    self.read_again(document);
                }
            }
        }
    }

    /// Reads a document once more: at once the first time, then after pauses.
    fn read_again(&mut self, mut document: Document) {
        if document.retries == 0 || document.is_outdated {
            document.retries += 1;
            document.stage = Stage::Unread;
            self.in_hand.put(document);
        } else {
            self.pause(document, None);
        }
    }

    /// Lets a document wait for a while, which grows each time: then it is written where there is a plan, or else read.
    fn pause(&mut self, mut document: Document, plan: Option<Plan>) {
        if document.is_outdated {
            document.stage = Stage::Unread;
        } else {
            let pause = pause_after(document.retries, MIN_BACKOFF, MAX_BACKOFF);
            document.retries += 1;
            document.stage = Stage::Paused(Instant::now() + pause, plan);
        }
        self.in_hand.put(document);
    }

    fn settle_error(
        &mut self,
        mut batch: Vec<DocumentWrite>,
        error: tokio_postgres::Error,
    ) -> Result<(), JobError> {
        let conflicts = batch.iter().map(|write| self.conflicts_of(&write.key));
        let conflicts: Vec<Conflicts> = conflicts.collect();
        match decide(&error, &conflicts, self.last_written) {
            Decision::RetryAfterOutage => self.retry(batch, &error, |_| {}),
            Decision::RetryAfterConflict => self.retry(batch, &error, Conflicts::note),
            Decision::RetryAfterUserOutage => self.retry(batch, &error, Conflicts::recount),
            Decision::Halve => {
                let second = batch.split_off(batch.len() / 2);
                self.halves.extend([second, batch]);
            }
            Decision::Quarantine => {
                for write in batch {
                    let Some(mut document) = self.in_hand.remove(&write.key) else {
                        continue;
                    };
                    if document.is_outdated {
                        document.stage = Stage::Unread;
                        self.in_hand.put(document);
                        continue;
                    }
                    let attempts = document.conflicts.count + 1;
                    let reason = self.refusal(&error);
                    self.quarantine(document, reason, attempts)?;
                }
            }
            Decision::FailJob => {
                let doing = format!("writing to {}", self.table);
                return Err(DatabaseError::during(doing)(error).into());
            }
        }
        Ok(())
    }

    fn conflicts_of(&self, key: &Key) -> Conflicts {
        let document = self.in_hand.get(key);
        document.map_or_else(Conflicts::default, |document| document.conflicts)
    }

    /// The batch is written later: all of it at the same time, so that it is a batch again. What passes within a second is
    /// not worth a message; what goes on is logged once a minute.
    fn retry(
        &mut self,
        batch: Vec<DocumentWrite>,
        error: &tokio_postgres::Error,
        note: impl Fn(&mut Conflicts),
    ) {
        let retries = batch
            .iter()
            .filter_map(|write| self.in_hand.get(&write.key));
        let retries = retries.map(|document| document.retries).max().unwrap_or(0);
        let is_due = self
            .last_notice
            .is_none_or(|last| last.elapsed() >= NOTICE_INTERVAL);
        if retries > RETRIED_OFTEN && is_due {
            self.last_notice = Some(Instant::now());
            tracing::warn!(
                "writing the passages of {} {} into {} fails again and again, and is retried: {}",
                batch.len(),
                form(batch.len(), "document", "documents"),
                self.table,
                describe(error)
            );
        }
        let due = Instant::now() + pause_after(retries, MIN_BACKOFF, MAX_BACKOFF);
        for write in batch {
            let Some(mut document) = self.in_hand.remove(&write.key) else {
                continue;
            };
            document.vectors = write.vectors;
            document.retries += 1;
            note(&mut document.conflicts);
            document.stage = match document.is_outdated {
                true => Stage::Unread,
                false => Stage::Paused(due, Some(write.plan)),
            };
            self.in_hand.put(document);
        }
    }

    fn refusal(&self, error: &tokio_postgres::Error) -> String {
        let is_canceled = error
            .as_db_error()
            .is_some_and(|refused| refused.message().contains(CANCELED));
        match is_canceled {
            true => cancellation(&self.table),
            false => refusal_of(
                error,
                &format!("INSERT, UPDATE and DELETE of {}", self.table),
            ),
        }
    }

    async fn conclude_sweep(&mut self, page: OrphanPage) -> Result<(), JobError> {
        for key in self.sweeps.note_page(page) {
            self.admit(Row::of_sweep(key)).await?;
        }
        self.finish_ended_sweeps().await;
        Ok(())
    }
}
