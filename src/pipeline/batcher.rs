//! The middle of a job: rows come in from stream and backfill, texts go to the embedder, and finished vectors are gathered
//! into write-backs.
//!
//! Batching is natural: a write-back starts as soon as there is something to write and none is under way, and takes along
//! what has gathered by then. A lone row waits for nothing. Live rows go before backfilled ones.
//!
//! ```text
//! live ──┐                                        ┌── retry later (row locked, change not visible yet)
//!        ├─▶ admit ─▶ embedder ─▶ ready ─▶ write ─┤
//! backfill ┘  └─▶ read source by key ─┘           └── finished ─▶ whoever sent the row
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::embedding::{Completions, Priority, Submitter};
use crate::failpoint;
use crate::postgres::sqlstate::{SqlStateClass, classify};

use super::aside::Aside;
use super::error::{JobError, is_retryable};
use super::ready::{Pending, Ready};
use super::row::{Origin, Row, Source};
use super::writer::{Outcome, Reading, ReadyRow, Writer};

/// Rows in one write-back unless the job says otherwise.
pub const DEFAULT_BATCH: usize = 512;
/// A row whose write-backs fail this often, with errors that should pass, is taken for their cause. With the pauses in between
/// that is some ten seconds.
const MOST_ERRORS: u32 = 16;
/// Rows whose text is read by key at a time, and the texts beyond which no more are read for now: whoever sent such a row
/// could not count its text.
const READ_ROWS: usize = 64;
const MOST_TEXT: usize = 32 << 20;
/// The longest pause before a locked row is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The two ends that rows come from and go back to.
pub struct Ports {
    pub live: mpsc::Receiver<Row>,
    pub backfill: mpsc::Receiver<Row>,
    /// Every live row that came in goes out here when it is finished. Capacity: as many as can be outstanding.
    pub live_finished: mpsc::Sender<Row>,
    pub backfill_finished: mpsc::Sender<Row>,
}

pub struct Batcher {
    ports: Ports,
    submitter: Submitter,
    completions: Completions,
    batch_rows: usize,
    table: String,
    aside: Aside,
    /// Rows whose text is at the embedder, by the number they were given.
    embedding: HashMap<u64, Row>,
    next_number: u64,
    unread: Vec<Row>,
    ready: Ready,
    /// Halves of a batch that the server refused, on the search for the row that it refused it for.
    suspects: Vec<Vec<Pending>>,
    later: BinaryHeap<Reverse<Later>>,
}

struct Later {
    due: Instant,
    number: u64,
    pending: Pending,
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.number) == (other.due, other.number)
    }
}
impl Eq for Later {}
impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

/// What the session to the target is busy with. The writer travels with its work and comes back with the result.
enum Work {
    Wrote(
        Writer,
        Vec<Pending>,
        Result<Vec<Outcome>, tokio_postgres::Error>,
    ),
    Read(Writer, Vec<Row>, Result<Vec<Reading>, JobError>),
}

/// Work under way; it ends with its owner.
struct AbortOnDrop(JoinHandle<Work>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Batcher {
    pub fn new(
        ports: Ports,
        (submitter, completions): (Submitter, Completions),
        batch_rows: usize,
        table: String,
        aside: Aside,
    ) -> Self {
        Batcher {
            ports,
            submitter,
            completions,
            batch_rows,
            table,
            aside,
            embedding: HashMap::new(),
            next_number: 0,
            unread: Vec::new(),
            ready: Ready::default(),
            suspects: Vec::new(),
            later: BinaryHeap::new(),
        }
    }

    /// Works until the stream's end of `ports.live` is closed, or the first error that ends the attempt.
    pub async fn run(mut self, writer: Writer) -> Result<(), JobError> {
        let mut idle = Some(writer);
        let mut under_way = None;
        let (mut live, mut backfill, mut completed) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            if let Some(writer) = idle.take() {
                match self.start_work(writer) {
                    Ok(work) => under_way = Some(work),
                    Err(writer) => idle = Some(writer),
                }
            }
            let due = self.later.peek().map(|Reverse(later)| later.due);
            let backfill_open =
                !(self.ports.backfill.is_closed() && self.ports.backfill.is_empty());
            tokio::select! {
                biased;
                work = finished(&mut under_way) => {
                    under_way = None;
                    idle = Some(self.conclude(work?).await?);
                }
                noted = self.aside.next() => self.finish(noted?).await,
                () = sleep_until(due) => self.wake_due(),
                count = self.completions.next_many(&mut completed, 1024) => {
                    if count == 0 {
                        return Err(JobError::Transient("the embedder has stopped".into()));
                    }
                    for embedded in completed.drain(..) {
                        self.embedded(embedded.id, embedded.vector)?;
                    }
                }
                count = self.ports.live.recv_many(&mut live, 1024) => {
                    if count == 0 {
                        self.aside.settle().await;
                        return Ok(());
                    }
                    if failpoint::is_set("batcher-lets-go") {
                        for row in live.drain(..) {
                            self.finish(row).await;
                        }
                    }
                    live.drain(..).for_each(|row| self.admit(row));
                }
                _ = self.ports.backfill.recv_many(&mut backfill, 1024), if backfill_open => {
                    backfill.drain(..).for_each(|row| self.admit(row));
                }
            }
        }
    }

    fn admit(&mut self, row: Row) {
        match &row.source {
            Source::Text(text) => {
                let number = self.next_number;
                self.next_number += 1;
                let priority = if row.is_live() {
                    Priority::Live
                } else {
                    Priority::Backfill
                };
                self.submitter.submit(priority, number, text.clone());
                self.embedding.insert(number, row);
            }
            Source::Empty => self.ready(Pending::new(row, None)),
            Source::Unread => self.unread.push(row),
        }
    }

    fn embedded(
        &mut self,
        number: u64,
        vector: Result<Vec<f32>, crate::embedding::EmbeddingError>,
    ) -> Result<(), JobError> {
        let Some(row) = self.embedding.remove(&number) else {
            return Ok(());
        };
        match vector {
            Ok(vector) => {
                self.ready(Pending::new(row, Some(vector)));
                Ok(())
            }
            Err(error) if error.is_of_one_text() => self.aside.put(row, error.to_string(), 1),
            Err(error) => Err(error.into()),
        }
    }

    fn ready(&mut self, pending: Pending) {
        if pending.embedded.row.source == Source::Unread {
            self.unread.push(pending.embedded.row);
        } else {
            self.ready.push(pending);
        }
    }

    fn wake_due(&mut self) {
        let now = Instant::now();
        while self
            .later
            .peek()
            .is_some_and(|Reverse(later)| later.due <= now)
        {
            if let Some(Reverse(later)) = self.later.pop() {
                self.ready(later.pending);
            }
        }
    }

    /// Gives the writer the most urgent work, or hands it back where there is none.
    fn start_work(&mut self, writer: Writer) -> Result<AbortOnDrop, Writer> {
        if !self.unread.is_empty() && self.text_bytes() < MOST_TEXT {
            let count = self.unread.len().min(READ_ROWS);
            let rows: Vec<Row> = self.unread.drain(..count).collect();
            return Ok(spawn(async move {
                let readings = writer.read_sources(&rows).await;
                Work::Read(writer, rows, readings)
            }));
        }
        let cut = || self.ready.next_batch(self.batch_rows);
        let batch = self.suspects.pop().unwrap_or_else(cut);
        if batch.is_empty() {
            return Err(writer);
        }
        Ok(spawn(async move {
            let rows: Vec<&ReadyRow> = batch.iter().map(|pending| &pending.embedded).collect();
            let outcomes = writer.write(&rows).await;
            Work::Wrote(writer, batch, outcomes)
        }))
    }

    /// The texts of all rows that are here.
    fn text_bytes(&self) -> usize {
        let later = self.later.iter().map(|Reverse(later)| &later.pending);
        let ready = self.ready.iter().chain(later);
        let ready = ready.map(|pending| &pending.embedded.row);
        let rows = self.embedding.values().chain(ready);
        rows.map(|row| row.source.bytes()).sum()
    }

    async fn conclude(&mut self, work: Work) -> Result<Writer, JobError> {
        match work {
            Work::Read(writer, rows, readings) => {
                for (row, reading) in rows.into_iter().zip(readings?) {
                    match reading {
                        Reading::Found(source) => self.admit(Row { source, ..row }),
                        Reading::Fits | Reading::Gone => {
                            self.aside.done(&row.key);
                            self.finish(row).await;
                        }
                        Reading::NotYetVisible => self.put_off(Pending::new(row, None)),
                    }
                }
                Ok(writer)
            }
            Work::Wrote(writer, batch, Ok(outcomes)) => {
                for (pending, outcome) in batch.into_iter().zip(outcomes) {
                    self.settle(pending, outcome).await;
                }
                Ok(writer)
            }
            Work::Wrote(writer, mut batch, Err(error)) => {
                if writer.session().is_closed() {
                    return Err(JobError::Transient(format!(
                        "the connection was lost: {}",
                        describe(&error)
                    )));
                }
                // An error in the middle of the pipeline leaves the transaction aborted; COMMIT has ended it.
                let passes = is_retryable(&error);
                let lasts = batch.iter().all(|pending| pending.errors >= MOST_ERRORS);
                if passes && (is_outage(&error) || !lasts) {
                    for mut pending in batch {
                        pending.errors += u32::from(!is_outage(&error));
                        self.put_off(pending);
                    }
                } else if !passes && !is_of_one_row(&error) {
                    return Err(JobError::definite(format!(
                        "writing to {} failed: {}",
                        self.table,
                        describe(&error)
                    )));
                } else if batch.len() > 1 {
                    let second = batch.split_off(batch.len() / 2);
                    self.suspects.extend([second, batch]);
                } else if let Some(Pending {
                    embedded, errors, ..
                }) = batch.pop()
                {
                    self.aside.put(embedded.row, refusal(&error), errors + 1)?;
                }
                Ok(writer)
            }
        }
    }

    async fn settle(&mut self, pending: Pending, outcome: Outcome) {
        match outcome {
            Outcome::Written => {
                self.aside.done(&pending.embedded.row.key);
                self.finish(pending.embedded.row).await;
            }
            Outcome::Superseded => self.finish(pending.embedded.row).await,
            Outcome::Locked | Outcome::NotYetVisible => self.put_off(pending),
        }
    }

    /// Gives a row back to where it came from, without its text.
    async fn finish(&mut self, mut row: Row) {
        row.source = Source::Empty;
        let port = match row.origin {
            Origin::Live { .. } => &self.ports.live_finished,
            Origin::Backfill => &self.ports.backfill_finished,
        };
        // A closed port means that the attempt is ending; what is unconfirmed will come again.
        let _ = port.send(row).await;
    }

    /// Tries a row again after a pause that doubles from 2 ms.
    fn put_off(&mut self, mut pending: Pending) {
        let pause = Duration::from_millis(2 << pending.attempts.min(9)).min(LONGEST_PAUSE);
        pending.attempts += 1;
        self.next_number += 1;
        self.later.push(Reverse(Later {
            due: Instant::now() + pause,
            number: self.next_number,
            pending,
        }));
    }
}

fn spawn(work: impl Future<Output = Work> + Send + 'static) -> AbortOnDrop {
    AbortOnDrop(tokio::spawn(work))
}

/// Pends for ever while nothing is under way. Cancellation safe.
async fn finished(under_way: &mut Option<AbortOnDrop>) -> Result<Work, JobError> {
    match under_way {
        Some(task) => (&mut task.0).await.map_err(|error| {
            JobError::Transient(format!("the write-back task ended early: {error}"))
        }),
        None => std::future::pending().await,
    }
}

/// Pends for ever while nothing is due.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The data of one row was refused, not the statement.
fn is_of_one_row(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| classify(code) == SqlStateClass::Row)
}

/// The server or the way to it is in trouble, whatever the rows are like. An error without a code is the network's.
fn is_outage(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_none_or(|code| classify(code) == SqlStateClass::Outage)
}

/// The server's words about one row, without the detail, which would repeat the row's own.
fn refusal(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refused) => format!("{} (SQLSTATE {})", refused.message(), refused.code().code()),
        None => describe(error),
    }
}

fn describe(error: &tokio_postgres::Error) -> String {
    crate::postgres::error::describe(error)
}
