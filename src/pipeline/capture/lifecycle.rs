//! The life of a slot reader: gather subscribers, stream for them, restart where that is needed, end.
//!
//! ```text
//!   ┌─────────── no subscribers ───────────┐
//!   ▼                                      │
//! gather ──▶ open ──▶ join the gathered ──▶ read
//!   │          ▲                           │ │
//!   │          └───────── restart ─────────┘ │
//!   └─ no subscriber came: end               └─ error, also while opening: tell every subscriber, end
//! ```

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::join::{JOIN_WINDOW, Joining, Request};
use super::open::{Sharing, SlotSource};
use super::reader::{Inputs, Reader, StreamEnd};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::exclusive_use;
use crate::pipeline::setup::publication::drop::drop_slot_and_publication;
use crate::pipeline::setup::publication::members::MembershipSnapshot;
use crate::pipeline::setup::publication::shared;
use crate::pipeline::slot::retention;
use crate::pipeline::slot::retention_limit::RetentionLimit;
use crate::postgres::{DatabaseError, Session};
use crate::ticks;

/// How often the members of a shared publication are read.
const MEMBERS_INTERVAL: Duration = Duration::from_secs(1);
/// A shared slot reader without subscribers ends after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Serves subscribers until there are none.
pub(super) async fn run(
    source: SlotSource,
    mut inputs: Inputs,
    snapshots: watch::Sender<MembershipSnapshot>,
    end: CancellationToken,
) {
    let mut serving = Serving {
        waiting: Vec::new(),
        reader: None,
    };
    let result = tokio::select! {
        result = serving.serve(&source, &mut inputs) => result,
        error = watch_shared_slot(&source, snapshots) => Err(error),
        () = end.cancelled() => {
            Err(JobError::Transient("slot and publication are being recreated".into()))
        }
    };
    inputs.requests.close();
    let Err(error) = result else { return };
    tracing::debug!("the stream has ended: {error}");
    if source.sharing != Sharing::Own && error.requires_new_slot() {
        drop_shared_slot(&source).await;
    }
    serving.fail_all(&error);
}

/// What a slot reader serves now.
struct Serving {
    /// Subscribers that joined while no stream was open.
    waiting: Vec<Joining>,
    reader: Option<Reader>,
}

impl Serving {
    async fn serve(&mut self, source: &SlotSource, inputs: &mut Inputs) -> Result<(), JobError> {
        loop {
            if self.is_idle() {
                self.gather(source, inputs).await;
                if self.waiting.is_empty() {
                    return Ok(());
                }
            }
            let opened = tokio::select! {
                opened = source.open() => opened?,
                () = all_left(&self.waiting), if self.reader.is_none() => return Ok(()),
            };
            let mut reader = match self.reader.take() {
                Some(mut reader) => {
                    reader.restart(opened);
                    reader
                }
                None => Reader::new(opened, source.lag.clone()),
            };
            for joining in self.waiting.drain(..) {
                reader.join(joining);
            }
            // Kept in `self`, so that its subscribers hear of an error.
            match self.reader.insert(reader).run(inputs).await? {
                StreamEnd::Restart => {
                    tracing::info!("restarting the stream from the confirmed position");
                }
                // Dropped at once, so that the slot is free for the next reader.
                StreamEnd::NoSubscribers => self.reader = None,
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.reader
            .as_ref()
            .is_none_or(|reader| reader.subscribers.is_empty())
    }

    /// Waits for the first subscriber, and for more during the join window. Returns without any when none can come any more,
    /// or none has come to a shared slot for a while.
    async fn gather(&mut self, source: &SlotSource, inputs: &mut Inputs) {
        let is_shared = source.sharing != Sharing::Own;
        let first = if is_shared {
            let first = timeout(IDLE_TIMEOUT, next_join(&mut inputs.requests)).await;
            first.ok().flatten()
        } else {
            next_join(&mut inputs.requests).await
        };
        self.waiting.extend(first);
        if !is_shared || self.waiting.is_empty() {
            return;
        }
        let deadline = Instant::now() + JOIN_WINDOW;
        while let Ok(Some(joining)) = timeout_at(deadline, next_join(&mut inputs.requests)).await {
            self.waiting.push(joining);
        }
    }

    fn fail_all(self, error: &JobError) {
        if let Some(mut reader) = self.reader {
            reader.subscribers.fail_all(error);
        }
        for joining in self.waiting {
            let _ = joining.link.ended.send(Err(error.for_each_job()));
        }
    }
}

/// The next request to join; `None` where none can come any more. Cancellation safe.
async fn next_join(requests: &mut mpsc::Receiver<Request>) -> Option<Joining> {
    loop {
        match requests.recv().await? {
            Request::Join(joining) => return Some(joining),
            // Of a subscriber that has left since.
            Request::Admit(..) => {}
        }
    }
}

async fn all_left(waiting: &[Joining]) {
    for joining in waiting {
        joining.link.left.cancelled().await;
    }
}

/// Watches a shared slot: who its members are, how much WAL it retains, and who else needs the database. Returns when it
/// cannot go on. Pends forever for a slot of one job.
async fn watch_shared_slot(
    source: &SlotSource,
    snapshots: watch::Sender<MembershipSnapshot>,
) -> JobError {
    let limit = match source.sharing {
        Sharing::Own => return std::future::pending().await,
        Sharing::Shared(limit) => limit,
    };
    let session = match Session::open(&source.named("watch")).await {
        Ok(session) => Arc::new(session),
        Err(error) => return error.into(),
    };
    tokio::select! {
        error = retention::watch(watched(source, limit), Arc::default(), session.clone()) => error,
        error = read_members(source, &session, snapshots) => error.into(),
        error = exclusive_use::wait_until_asked_to_leave(&session) => error,
    }
}

async fn read_members(
    source: &SlotSource,
    session: &Session,
    snapshots: watch::Sender<MembershipSnapshot>,
) -> DatabaseError {
    let mut clock = ticks::together(MEMBERS_INTERVAL, 0);
    loop {
        let looked = Instant::now();
        match shared::membership_records(session, &source.slot).await {
            Ok(records) => snapshots.send_replace(MembershipSnapshot { looked, records }),
            Err(error) => return error,
        };
        clock.tick().await;
    }
}

fn watched(source: &SlotSource, limit: RetentionLimit) -> retention::WatchedSlot {
    retention::WatchedSlot {
        database: source.database.clone(),
        slot: source.slot.clone(),
        limit,
        lag: source.lag.clone(),
    }
}

/// The slot is unusable, or does harm. That it is absent tells every member that changes were missed.
async fn drop_shared_slot(source: &SlotSource) {
    let dropped = async {
        let session = Session::open(&source.named("ending")).await?;
        drop_slot_and_publication(&session, &source.slot).await
    };
    if let Err(error) = dropped.await {
        tracing::warn!("the slot {} could not be dropped: {error}", source.slot);
    }
}
