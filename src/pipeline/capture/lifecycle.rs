//! The life of a feed: gather members, stream for them, begin again where that is needed, end.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::pipeline::capture::open::{Sharing, SlotSource};
use crate::pipeline::capture::reader::{Capture, Ended, Inputs};
use crate::pipeline::capture::slot_reader::{GATHERING, Joining};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::drop::drop_slot_and_publication;
use crate::pipeline::setup::publication::members::MembershipSnapshot;
use crate::pipeline::setup::publication::shared;
use crate::pipeline::slot::retention;
use crate::pipeline::slot::retention_limit::RetentionLimit;
use crate::postgres::{DatabaseError, Session};

/// How often it is looked who is a member.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Serves members until there are none.
pub(super) async fn run(
    source: SlotSource,
    mut inputs: Inputs,
    marks: watch::Sender<MembershipSnapshot>,
    end: CancellationToken,
) {
    let mut waiting = Vec::new();
    let mut capture = None;
    let result = tokio::select! {
        result = serve(&source, &mut inputs, &mut waiting, &mut capture) => result,
        error = watch_over(&source, marks) => Err(error),
        () = end.cancelled() => Err(JobError::Transient("slot and publication are made anew".into())),
    };
    inputs.joins.close();
    let Err(error) = result else { return };
    tracing::debug!("the stream has ended: {error}");
    if source.sharing != Sharing::Own && error.requires_new_slot() {
        give_up(&source).await;
    }
    if let Some(mut capture) = capture {
        capture.seated.fail_all(&error);
    }
    for joining in waiting {
        let _ = joining.link.ended.send(Err(error.for_each_job()));
    }
}

async fn serve(
    source: &SlotSource,
    inputs: &mut Inputs,
    waiting: &mut Vec<Joining>,
    serving: &mut Option<Capture>,
) -> Result<(), JobError> {
    loop {
        if serving
            .as_ref()
            .is_none_or(|capture| capture.seated.is_empty())
        {
            gather(source, inputs, waiting).await;
            if waiting.is_empty() {
                return Ok(());
            }
        }
        let opened = tokio::select! {
            opened = source.open() => opened?,
            () = all_gone(waiting), if serving.is_none() => return Ok(()),
        };
        match serving {
            Some(capture) => capture.restart(opened),
            None => *serving = Some(Capture::new(opened)),
        }
        let Some(capture) = serving else { continue };
        for joining in waiting.drain(..) {
            capture.join(joining);
        }
        match capture.run(inputs).await? {
            Ended::Again => tracing::info!("beginning again from the confirmed position"),
            // The slot is free for whoever comes next.
            Ended::Empty => *serving = None,
        }
    }
}

/// Waits for the first member, and a moment longer for others. Nobody comes where nobody can any more, or within that moment
/// after others have gone.
async fn gather(source: &SlotSource, inputs: &mut Inputs, waiting: &mut Vec<Joining>) {
    let first = match source.sharing {
        Sharing::Own => inputs.joins.recv().await,
        Sharing::Shared(_) => {
            let patience = Instant::now() + 10 * GATHERING;
            timeout_at(patience, inputs.joins.recv())
                .await
                .ok()
                .flatten()
        }
    };
    waiting.extend(first);
    if source.sharing == Sharing::Own || waiting.is_empty() {
        return;
    }
    let deadline = Instant::now() + GATHERING;
    while let Ok(Some(joining)) = timeout_at(deadline, inputs.joins.recv()).await {
        waiting.push(joining);
    }
}

async fn all_gone(waiting: &[Joining]) {
    for joining in waiting {
        joining.link.gone.cancelled().await;
    }
}

/// Looks after a shared slot: who its members are, and how much WAL it holds back. Returns when it cannot go on so.
async fn watch_over(source: &SlotSource, marks: watch::Sender<MembershipSnapshot>) -> JobError {
    match source.sharing {
        Sharing::Own => std::future::pending().await,
        Sharing::Shared(limit) => match Session::open(&source.named("watch")).await {
            Ok(session) => {
                let session = Arc::new(session);
                tokio::select! {
                    error = retention::watch(watched(source, limit), session.clone()) => error,
                    error = look(source, &session, marks) => error.into(),
                }
            }
            Err(error) => error.into(),
        },
    }
}

async fn look(
    source: &SlotSource,
    session: &Session,
    marks: watch::Sender<MembershipSnapshot>,
) -> DatabaseError {
    loop {
        let looked = Instant::now();
        match shared::membership_records(session, &source.slot).await {
            Ok(now) => marks.send_replace(MembershipSnapshot {
                looked,
                records: now,
            }),
            Err(error) => return error,
        };
        sleep(LOOK_EVERY).await;
    }
}

fn watched(source: &SlotSource, limit: RetentionLimit) -> retention::WatchedSlot {
    retention::WatchedSlot {
        database: source.database.clone(),
        slot: source.slot.clone(),
        limit,
    }
}

/// The slot is of no use any more, or does harm. Its absence is what tells all members that changes were missed.
async fn give_up(source: &SlotSource) {
    let given_up = async {
        let session = Session::open(&source.named("ending")).await?;
        drop_slot_and_publication(&session, &source.slot).await
    };
    if let Err(error) = given_up.await {
        tracing::warn!("the slot {} stays for now: {error}", source.slot);
    }
}
