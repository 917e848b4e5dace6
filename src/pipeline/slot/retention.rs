//! Keeps a job's slot from filling its server's disk: past a limit the slot is let go, and the job catches up by
//! scanning the table instead of replaying the WAL.
//!
//! Two things hold a slot back. One is the job itself: what it has not confirmed yet, because embedding is slower than
//! the writes. The other is everybody's: the server keeps the WAL from the beginning of the oldest transaction that
//! writes, as a logical slot may have to decode it from there. To a disk that is full it makes no difference, so both
//! count, but they are told apart:
//!
//! - What the job holds back lets the slot go as soon as it is past the limit.
//! - Otherwise `restart_lsn` has to stand still for [`STANDSTILL`]. It moves only with the snapshots that the server
//!   logs every 15 s (`LOG_SNAPSHOT_INTERVAL_MS` in `bgwriter.c`), so on a busy server it is always somewhat behind.
//!
//! Neither can go round in circles. A new slot is not made before every transaction that is open has ended, so one
//! transaction costs one slot at most; while it is waited for, the half-made slot is held to the same limit
//! ([`outgrown`]). And a job that lets go before it has caught up waits longer and longer, without a slot, before it
//! begins again ([`pause`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::pipeline::error::JobError;
use crate::pipeline::slot::catalog as slot_lifecycle;
use crate::pipeline::slot::catalog::HeldBack;
use crate::postgres::{ConnectionString, DatabaseError, Session};
use crate::replication::{Lsn, SlotName};

use crate::pipeline::slot::retention_limit::{RetentionLimit, Size};

const EVERY: Duration = Duration::from_secs(3);
/// How long `restart_lsn` has to stand still before somebody's transaction is what holds it: two snapshots of the
/// server.
const STANDSTILL: Duration = Duration::from_secs(32);
/// A write-back may wait for a table's lock, and questions on its session wait with it.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pauses of a job that cannot catch up.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What is watched: a slot, in a database, with its limit.
#[derive(Debug, Clone)]
pub struct Watched {
    pub database: ConnectionString,
    pub slot: SlotName,
    pub limit: RetentionLimit,
}

/// Returns when the slot holds back more than the limit allows, or its database cannot be asked. Shares the session of
/// the write-backs, and opens one of its own once that has kept it waiting.
///
/// Cancellation safe.
pub async fn watch(watched: Watched, shared: Arc<Session>) -> JobError {
    if watched.limit == RetentionLimit::Off {
        return std::future::pending().await;
    }
    let mut own = None;
    let mut history = History::default();
    loop {
        match look(&watched, &shared, &mut own, &mut history).await {
            Ok(None) => {}
            Ok(Some(reason)) => return JobError::NewSlotRequired(reason),
            Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {}
            Err(error) => return error.into(),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// As [`watch`], where there is something to watch. Pends for ever otherwise.
pub async fn watch_if(watched: Option<Watched>, shared: Arc<Session>) -> JobError {
    match watched {
        Some(watched) => watch(watched, shared).await,
        None => std::future::pending().await,
    }
}

/// Why a slot that is still being made has to be given up, if it has outgrown its limit. Asks over a session of its
/// own, as the one that makes the slot is busy with that.
///
/// # Errors
/// The server's.
pub async fn outgrown(watched: &Watched) -> Result<Option<String>, DatabaseError> {
    let Watched { slot, limit, .. } = watched;
    let session = Session::open(&watched.database).await?;
    let held = held_back(&session, slot).await?;
    let held = held.filter(|held| limit.is_exceeded_by(held.bytes));
    Ok(held.map(|held| {
        format!(
            "the slot {slot} is not ready yet and holds back {} of WAL already, which is more than {limit} \
             (--max-retained-wal): it is made anew",
            Size(held.bytes)
        )
    }))
}

/// How long a job waits before it begins again, which has let go so many times in a row before it had caught up.
pub fn pause(times: u32) -> Duration {
    (SHORTEST_PAUSE * (1 << times.saturating_sub(1).min(10))).min(LONGEST_PAUSE)
}

async fn look(
    watched: &Watched,
    shared: &Session,
    own: &mut Option<Session>,
    history: &mut History,
) -> Result<Option<String>, DatabaseError> {
    let session = match own {
        Some(session) => session,
        None => match tokio::time::timeout(PATIENCE, held_back(shared, &watched.slot)).await {
            Ok(held) => return judge(watched, shared, held?, history).await,
            Err(_) => own.insert(Session::open(&watched.database).await?),
        },
    };
    let held = held_back(session, &watched.slot).await?;
    judge(watched, session, held, history).await
}

async fn judge(
    watched: &Watched,
    session: &Client,
    held: Option<HeldBack>,
    history: &mut History,
) -> Result<Option<String>, DatabaseError> {
    let Watched { slot, limit, .. } = watched;
    // A slot that is gone or lost ends the stream by itself.
    let Some(held) = held else { return Ok(None) };
    match history.judge(*limit, held, Instant::now()) {
        Verdict::Fine => Ok(None),
        Verdict::Warn => {
            tracing::warn!(
                "the slot {slot} holds back {}. Past {limit} (--max-retained-wal) it will be dropped and every row embedded \
                 again. What helps: more --threads, a larger limit, or an end of that transaction",
                describe(session, held).await
            );
            Ok(None)
        }
        Verdict::LetGo => Ok(Some(format!(
            "the slot {slot} is dropped, since it held back more than {limit} (--max-retained-wal): {}. Every row is embedded \
             again",
            describe(session, held).await
        ))),
    }
}

async fn held_back(session: &Client, slot: &SlotName) -> Result<Option<HeldBack>, DatabaseError> {
    slot_lifecycle::held_back(session, slot)
        .await
        .map_err(DatabaseError::during("looking how much WAL is held back"))
}

/// How much, and because of whom.
async fn describe(session: &Client, held: HeldBack) -> String {
    let mut text = format!(
        "{} of WAL, of which the job itself has yet to work through {}",
        Size(held.bytes),
        Size(held.unconfirmed)
    );
    // Only privileged roles see other people's transactions; a sentence without them is complete too.
    if let Ok(Some(writer)) = oldest_writer(session).await {
        text.push_str(&format!(
            "; the oldest open transaction is that of {writer}"
        ));
    }
    text
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
    Ok(row.and_then(|row| row.get(0)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    Warn,
    LetGo,
}

/// What earlier looks have seen.
#[derive(Debug, Default)]
struct History {
    /// Where `restart_lsn` is, and since when.
    standing: Option<(Lsn, Instant)>,
    /// It was warned of, and has not fallen below a quarter since.
    warned: bool,
}

impl History {
    fn judge(&mut self, limit: RetentionLimit, held: HeldBack, now: Instant) -> Verdict {
        let since = match self.standing {
            Some((restart, since)) if restart == held.restart => since,
            _ => now,
        };
        self.standing = Some((held.restart, since));
        let stands_still = now.duration_since(since) >= STANDSTILL;
        if limit.is_exceeded_by(held.unconfirmed)
            || limit.is_exceeded_by(held.bytes) && stands_still
        {
            return Verdict::LetGo;
        }
        if limit.is_exceeded_by_share(held.bytes, 2) {
            if std::mem::replace(&mut self.warned, true) {
                return Verdict::Fine;
            }
            return Verdict::Warn;
        }
        self.warned &= limit.is_exceeded_by_share(held.bytes, 4);
        Verdict::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn held(bytes: u64, unconfirmed: u64, restart: u64) -> HeldBack {
        HeldBack {
            bytes: bytes * MB,
            unconfirmed: unconfirmed * MB,
            restart: Lsn(restart),
        }
    }

    #[test]
    fn it_is_warned_once_at_half_of_the_limit_and_again_only_after_a_recovery() {
        let (limit, now) = ("100MB".parse().unwrap(), Instant::now());
        let mut history = History::default();
        let verdicts: Vec<Verdict> = [50, 51, 99, 26, 60, 25, 51]
            .into_iter()
            .map(|megabytes| history.judge(limit, held(megabytes, 1, megabytes), now))
            .collect();
        use Verdict::{Fine, Warn};
        assert_eq!(verdicts, [Fine, Warn, Fine, Fine, Fine, Fine, Warn]);
    }

    #[test]
    fn what_the_job_itself_holds_back_counts_at_once() {
        let (limit, now) = ("100MB".parse().unwrap(), Instant::now());
        let verdict = History::default().judge(limit, held(101, 101, 1), now);
        assert_eq!(verdict, Verdict::LetGo);
    }

    #[test]
    fn a_restart_position_that_moves_is_not_held_by_a_transaction() {
        let (limit, mut now) = ("100MB".parse().unwrap(), Instant::now());
        let mut history = History::default();
        for restart in 0..10 {
            let verdict = history.judge(limit, held(500, 99, restart), now);
            assert_ne!(verdict, Verdict::LetGo);
            now += STANDSTILL - Duration::from_secs(1);
        }
        now += Duration::from_secs(1);
        let verdict = history.judge(limit, held(500, 1, 9), now);
        assert_eq!(verdict, Verdict::LetGo);
    }

    #[test]
    fn a_job_that_does_not_catch_up_waits_longer_each_time() {
        let seconds = |times| pause(times).as_secs();
        assert_eq!([seconds(1), seconds(2), seconds(3)], [5, 10, 20]);
        assert_eq!(seconds(u32::MAX), 3600);
    }
}
