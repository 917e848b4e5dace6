//! Watches how much WAL a slot retains. Past a limit the slot is dropped, and the job catches up by a scan of its
//! table instead of replaying the WAL.
//!
//! Two things retain WAL. To a full disk they are the same, so both count, but they are judged differently:
//!
//! - **What the reader has not confirmed**, because embedding is slower than the writes. Past the limit the slot is
//!   dropped at once.
//! - **The oldest transaction that writes**, of any session. A slot may have to decode it from its beginning, so
//!   `restart_lsn` stays there until it ends. Past the limit the slot is dropped only after `restart_lsn` has not moved
//!   for `STANDSTILL_TIMEOUT`. It moves with the snapshots that the server logs every 15 s
//!   (`LOG_SNAPSHOT_INTERVAL_MS` in `bgwriter.c`), so on a busy server it is always a little behind.
//!
//! Neither can repeat endlessly. A new slot is ready only after every open transaction has ended, so one transaction
//! costs at most one slot; while the new slot waits, the same limit holds ([`unfinished_over_limit`]). And a job whose
//! slot is dropped before it has caught up waits longer each time before it creates the next one ([`pause`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::backoff::pause_after;
use crate::byte_size::Size;
use crate::pipeline::error::JobError;
use crate::pipeline::slot::catalog::{RetainedWal, SlotState, slot_states};
use crate::pipeline::slot::retention_limit::RetentionLimit;
use crate::postgres::shared_answer::SharedAnswer;
use crate::postgres::{ConnectionString, DatabaseError, Session};
use crate::replication::{Lsn, SlotName};
use crate::status::lag::{SlotLag, StreamLag};
use crate::ticks;

const CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// An answer serves all slots of a server for this long.
const MAX_AGE: Duration = Duration::from_millis(200);
/// How long `restart_lsn` must stand still before an open transaction is to blame: two snapshots of the server, and a
/// margin.
const STANDSTILL_TIMEOUT: Duration = Duration::from_secs(32);
/// How long the session of the write-backs may take to answer. A write-back may wait for a lock, and queries behind it
/// too.
const SHARED_SESSION_TIMEOUT: Duration = Duration::from_secs(2);
/// The shortest and the longest pause of a job whose slots are dropped before it has caught up.
const MIN_BACKOFF: Duration = Duration::from_secs(5);
const MAX_BACKOFF: Duration = Duration::from_secs(3600);

/// A slot whose WAL is watched.
#[derive(Debug, Clone)]
pub struct WatchedSlot {
    /// The database of the slot.
    pub database: ConnectionString,
    /// Its name.
    pub slot: SlotName,
    /// The most WAL that it may retain.
    pub limit: RetentionLimit,
    /// Told what was seen.
    pub lag: Arc<StreamLag>,
}

/// The states of a server's slots by name, asked for once for all of its jobs.
pub type SlotStates = SharedAnswer<Arc<BTreeMap<String, SlotState>>>;

/// Returns when the slot retains more WAL than its limit, or when its database cannot be asked. Uses the session of
/// the write-backs, and opens one of its own when that is slow to answer.
///
/// Cancellation safe.
pub async fn watch(
    watched: WatchedSlot,
    states: Arc<SlotStates>,
    shared: Arc<Session>,
) -> JobError {
    let mut clock = ticks::together(CHECK_INTERVAL, 0);
    let mut monitor = Monitor {
        watched,
        states,
        shared,
        own: None,
        max_age: Duration::ZERO,
        history: History::default(),
    };
    loop {
        match monitor.check().await {
            Ok(None) => {}
            Ok(Some(reason)) => return JobError::NewSlotRequired(reason),
            // A write-back has failed on the shared session and will be rolled back.
            Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {}
            Err(error) => return error.into(),
        }
        clock.tick().await;
    }
}

/// As [`watch`]; without a slot it never returns.
pub async fn watch_if(
    watched: Option<WatchedSlot>,
    states: Arc<SlotStates>,
    shared: Arc<Session>,
) -> JobError {
    match watched {
        Some(watched) => watch(watched, states, shared).await,
        None => std::future::pending().await,
    }
}

/// Why a slot that is still being created must be dropped; `None` while it is within its limit. Opens a session,
/// because the one that creates the slot is busy with that.
///
/// # Errors
/// The server's.
pub async fn unfinished_over_limit(watched: &WatchedSlot) -> Result<Option<String>, DatabaseError> {
    let WatchedSlot { slot, limit, .. } = watched;
    let session = Session::open(&watched.database).await?;
    let states = slot_states(&session).await?;
    let retained = states.get(slot.as_str()).map(|state| state.retained);
    let over = retained.filter(|retained| limit.is_exceeded_by(retained.bytes));
    Ok(over.map(|retained| {
        format!(
            "the slot {slot} is not ready yet and already retains {} of WAL, more than {limit} (--max-retained-wal): \
             it is dropped and created again",
            Size(retained.bytes)
        )
    }))
}

/// The pause of a job after `dropped` slots in a row were dropped before it had caught up. It has no slot meanwhile.
pub fn pause(dropped: u32) -> Duration {
    pause_after(dropped.saturating_sub(1), MIN_BACKOFF, MAX_BACKOFF)
}

/// The state of [`watch`].
struct Monitor {
    watched: WatchedSlot,
    states: Arc<SlotStates>,
    shared: Arc<Session>,
    /// Opened once the shared session has been slow.
    own: Option<Session>,
    /// How old an answer may be that another job has asked for. The first look needs one of its own: the slot may have been
    /// created a moment ago, in place of another one of its name.
    max_age: Duration,
    history: History,
}

impl Monitor {
    /// Checks the slot once. Returns why it must be dropped, or warns, or does nothing.
    async fn check(&mut self) -> Result<Option<String>, DatabaseError> {
        // A slot that does not exist or is lost ends the stream by itself.
        let state = self.slot_state().await?;
        let WatchedSlot {
            slot, limit, lag, ..
        } = &self.watched;
        lag.set_slot(state.map(SlotLag::from));
        if let Some(state) = state {
            lag.set_server_clock(state.server_time);
        }
        let Some(SlotState { retained, .. }) = state else {
            return Ok(None);
        };
        let verdict = self.history.judge(*limit, retained, Instant::now());
        if verdict == Verdict::Fine {
            return Ok(None);
        }
        let cause = describe(self.own.as_ref().unwrap_or(&self.shared), retained).await;
        if verdict == Verdict::Drop {
            return Ok(Some(format!(
                "the slot {slot} is dropped, since it retained more than {limit} (--max-retained-wal): {cause}. \
                 Every row is embedded again"
            )));
        }
        tracing::warn!(
            "the slot {slot} retains {cause}. Past {limit} (--max-retained-wal) it will be dropped and every row embedded \
             again. What helps: more --threads, a larger limit, or ending that transaction"
        );
        Ok(None)
    }

    async fn slot_state(&mut self) -> Result<Option<SlotState>, DatabaseError> {
        let max_age = self.max_age;
        let states = match &self.own {
            Some(own) => ask(&self.states, max_age, own).await?,
            None => {
                let answer = ask(&self.states, max_age, &self.shared);
                match timeout(SHARED_SESSION_TIMEOUT, answer).await {
                    Ok(answer) => answer?,
                    Err(_) => {
                        let own = Session::open(&self.watched.database).await?;
                        ask(&self.states, max_age, self.own.insert(own)).await?
                    }
                }
            }
        };
        self.max_age = MAX_AGE;
        Ok(states.get(self.watched.slot.as_str()).copied())
    }
}

async fn ask(
    states: &SlotStates,
    max_age: Duration,
    session: &Session,
) -> Result<Arc<BTreeMap<String, SlotState>>, DatabaseError> {
    let asking = async { slot_states(session).await.map(Arc::new) };
    states.get(max_age, asking).await
}

impl From<SlotState> for SlotLag {
    fn from(state: SlotState) -> Self {
        SlotLag {
            unconfirmed_bytes: state.retained.unconfirmed,
            retained_bytes: state.retained.bytes,
            wal_status: state.wal_status,
            confirmed: state.confirmed.0,
        }
    }
}

/// How much WAL is retained, and by which transaction.
async fn describe(session: &Client, retained: RetainedWal) -> String {
    let amounts = format!(
        "{} of WAL, of which the job has yet to confirm {}",
        Size(retained.bytes),
        Size(retained.unconfirmed)
    );
    // Only privileged roles see other people's transactions; the sentence is complete without them.
    match oldest_writer(session).await {
        Ok(Some(writer)) => {
            format!("{amounts}; the oldest open transaction is that of {writer}")
        }
        _ => amounts,
    }
}

/// The oldest transaction that writes, anywhere on the server, as a person can find it again.
async fn oldest_writer(session: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let row = session
        .query_opt(
            "SELECT w.who || ', since ' || date_trunc('second', w.since)::text FROM ( \
               SELECT format('process %s (user %s, application %s, %s)', pid, usename, application_name, state) AS who, \
                      xact_start AS since, backend_xid AS xid \
               FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() \
               UNION ALL SELECT format('the prepared transaction %L', gid), prepared, transaction FROM pg_prepared_xacts) w \
             ORDER BY age(w.xid) DESC LIMIT 1",
            &[],
        )
        .await?;
    let writer = row.map(|row| row.try_get(0)).transpose()?;
    Ok(writer.flatten())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    Warn,
    Drop,
}

/// What earlier checks have seen.
#[derive(Debug, Default)]
struct History {
    /// The last `restart_lsn`, and since when it has not moved.
    restart: Option<(Lsn, Instant)>,
    /// A warning was given, and the slot has not fallen below a quarter of the limit since.
    warned: bool,
}

impl History {
    fn judge(&mut self, limit: RetentionLimit, retained: RetainedWal, now: Instant) -> Verdict {
        let stands_still = self.stands_still(retained.restart, now);
        let over = limit.is_exceeded_by(retained.bytes);
        if limit.is_exceeded_by(retained.unconfirmed) || over && stands_still {
            return Verdict::Drop;
        }
        if !limit.is_exceeded_by_share(retained.bytes, 2) {
            self.warned &= limit.is_exceeded_by_share(retained.bytes, 4);
            return Verdict::Fine;
        }
        if self.warned {
            return Verdict::Fine;
        }
        self.warned = true;
        Verdict::Warn
    }

    /// Notes `restart_lsn`, and says whether it has not moved for [`STANDSTILL_TIMEOUT`].
    fn stands_still(&mut self, restart: Lsn, now: Instant) -> bool {
        let since = match self.restart {
            Some((last, since)) if last == restart => since,
            _ => now,
        };
        self.restart = Some((restart, since));
        now.duration_since(since) >= STANDSTILL_TIMEOUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn retained(bytes: u64, unconfirmed: u64, restart: u64) -> RetainedWal {
        RetainedWal {
            bytes: bytes * MB,
            unconfirmed: unconfirmed * MB,
            restart: Lsn(restart),
        }
    }

    #[test]
    fn one_warning_comes_at_half_of_the_limit_and_the_next_only_after_a_recovery() {
        let (limit, now) = ("100MB".parse().unwrap(), Instant::now());
        let mut history = History::default();
        let verdicts: Vec<Verdict> = [50, 51, 99, 26, 60, 25, 51]
            .into_iter()
            .map(|megabytes| history.judge(limit, retained(megabytes, 1, megabytes), now))
            .collect();
        use Verdict::{Fine, Warn};
        assert_eq!(verdicts, [Fine, Warn, Fine, Fine, Fine, Fine, Warn]);
    }

    #[test]
    fn a_slot_is_dropped_at_once_for_what_its_reader_has_not_confirmed() {
        let (limit, now) = ("100MB".parse().unwrap(), Instant::now());
        let verdict = History::default().judge(limit, retained(101, 101, 1), now);
        assert_eq!(verdict, Verdict::Drop);
    }

    #[test]
    fn a_slot_is_dropped_for_a_transaction_only_when_restart_lsn_stands_still() {
        let (limit, mut now) = ("100MB".parse().unwrap(), Instant::now());
        let mut history = History::default();
        for restart in 0..10 {
            let verdict = history.judge(limit, retained(500, 99, restart), now);
            assert_ne!(verdict, Verdict::Drop);
            now += STANDSTILL_TIMEOUT
                .checked_sub(Duration::from_secs(1))
                .unwrap();
        }
        now += Duration::from_secs(1);
        let verdict = history.judge(limit, retained(500, 1, 9), now);
        assert_eq!(verdict, Verdict::Drop);
    }

    #[test]
    fn a_job_that_does_not_catch_up_waits_longer_each_time() {
        for (dropped, seconds) in [(1, 5), (2, 10), (3, 20), (u32::MAX, 3600)] {
            let whole = Duration::from_secs(seconds);
            let pause = pause(dropped);
            assert!(pause >= whole / 2 && pause <= whole, "{dropped}: {pause:?}");
        }
    }
}
