//! Which daemons work on the jobs table, which of them runs which job, and which of them no longer responds.
//!
//! Each daemon's session holds one *shared* advisory lock that names the table, besides the exclusive locks of its
//! jobs. So two views of the server are enough, and no table of ours is needed; the server forgets a session when it
//! ends:
//!
//! ```text
//! pg_locks          who is there (the shared lock), and who runs what (the locks of jobs)
//! pg_stat_activity  when each session was last active (state_change)
//! ```
//!
//! `state_change` is the time at which a session last went from idle to active or back (PostgreSQL manual, section "The
//! Cumulative Statistics System"). A daemon polls the jobs table every 400 ms, so the time stands still only for a
//! daemon that hangs, or that the network has cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::definition::JobId;
use super::lock::JobsLock;
use super::store::JobStore;
use crate::postgres::answer::all;
use crate::postgres::{DatabaseError, Session};

/// The process id of the server process that serves a session.
pub type Pid = i32;

/// A daemon that works on this jobs table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The server process of its session to the jobs database.
    pub pid: Pid,
    /// It takes the same rows as this daemon: it has the same label and the same value of `--slots`.
    pub same_label: bool,
    /// It has the same label and the other value of `--slots`.
    pub other_slots: bool,
    /// `None` if this daemon's role may not see it.
    pub activity: Option<Activity>,
}

/// The activity of a session, as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// When the session last began or ended a statement (`pg_stat_activity.state_change`), as text.
    pub last_change: String,
    /// How long ago that was, by the server's clock.
    pub since: Duration,
    /// The server is executing a statement: it is the server that keeps the daemon waiting.
    pub busy: bool,
}

/// All daemons of the jobs table at one moment.
#[derive(Debug, Clone, Default)]
pub struct FleetView {
    /// The daemons with this jobs table, this one included.
    pub peers: Vec<Peer>,
    /// Who holds the lock of each job that is locked.
    pub holders: BTreeMap<JobId, Pid>,
    /// Sessions that hold a lock of ours and are of no daemon.
    pub strangers: Vec<Stranger>,
}

/// A session whose role may not write to the jobs table, as a daemon must, and which holds a lock of a daemon's. Every
/// role that may connect to the jobs database can take any advisory lock, and see the keys of those that are taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stranger {
    /// Its server process.
    pub pid: Pid,
    /// Its role.
    pub role: String,
    /// What it holds.
    pub held: Held,
}

/// A lock of daemons, for a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// By which a daemon shows itself. A session that poses as a daemon does no harm.
    Presence,
    /// That of a job, which does not run meanwhile.
    Job(JobId),
    /// That of a shared slot, whose jobs do not run meanwhile.
    SharedSlot(String),
    /// That of the search for slots of no job, which waits.
    OrphanSearch,
}

/// Makes this daemon visible to the others until its session ends or [`leave`] is called.
///
/// # Errors
/// The server's.
pub async fn join(store: &JobStore) -> Result<(), DatabaseError> {
    let (table, label) = keys(store, store.shares_slots());
    store
        .session()
        .execute("SELECT pg_advisory_lock_shared($1, $2)", &[&table, &label])
        .await
        .map_err(DatabaseError::during("joining the daemons of a jobs table"))?;
    Ok(())
}

/// Makes this daemon invisible, so that the others divide all jobs among themselves. The session and its locks of jobs
/// stay.
///
/// # Errors
/// The server's.
pub async fn leave(store: &JobStore) -> Result<(), DatabaseError> {
    let (table, label) = keys(store, store.shares_slots());
    store
        .session()
        .execute(
            "SELECT pg_advisory_unlock_shared($1, $2)",
            &[&table, &label],
        )
        .await
        .map_err(DatabaseError::during("leaving the daemons of a jobs table"))?;
    Ok(())
}

/// Whether a daemon works on this jobs table, with whatever label. `None` where that cannot be told: daemons do not show
/// themselves at a view of their table.
///
/// # Errors
/// The server's.
pub async fn is_any_there(store: &JobStore) -> Result<Option<bool>, DatabaseError> {
    let (table, _) = keys(store, false);
    let found: bool = store
        .session()
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_locks l \
               WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid::bigint = $1 \
                 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
            &[&i64::from(table.cast_unsigned())],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("looking for daemons"))?;
    Ok((found || !store.table().is_view()).then_some(found))
}

/// The two halves of the key: one for the table, one for the label and the value of `--slots`. So one condition finds
/// all daemons of a table, and the second half tells which of them take the same rows.
fn keys(store: &JobStore, shares_slots: bool) -> (i32, i32) {
    let half = |text: String| {
        let hash = xxh3_64(text.as_bytes());
        ((hash ^ (hash >> 32)) as u32).cast_signed()
    };
    let label = match store.label() {
        Some(label) => format!("label {label}"),
        None => "all".into(),
    };
    let label = match shares_slots {
        true => format!("slots shared, {label}"),
        false => label,
    };
    (
        half(format!("lantern daemons {}", store.table().oid())),
        half(label),
    )
}

/// In `pg_locks`, `objsubid` is 2 for a key of two halves, which are in `classid` and `objid`, and 1 for a 64-bit key,
/// whose high half is in `classid` and low half in `objid` (PostgreSQL manual, section "pg_locks").
///
/// A session is not busy while the server waits for its client (`wait_event_type = 'Client'`), as with a statement of
/// which only a part has arrived. The role of a session is visible to everyone.
const LOOK: &str = "WITH locks AS MATERIALIZED ( \
       SELECT l.pid, l.objsubid = 2 AS is_daemon, l.objid::bigint AS half, l.classid::bigint << 32 | l.objid::bigint AS key \
       FROM pg_locks l \
       WHERE l.locktype = 'advisory' AND l.granted AND l.pid IS NOT NULL \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND (l.objsubid = 2 AND l.classid::bigint = $1 \
              OR l.objsubid = 1 AND l.classid::bigint << 32 | l.objid::bigint = ANY($2))), \
     sessions AS MATERIALIZED ( \
       SELECT p.pid, a.state_change, a.usesysid, \
              COALESCE(a.state = 'active' AND a.wait_event_type IS DISTINCT FROM 'Client', false) AS busy, \
              COALESCE(has_table_privilege(a.usesysid, $3::oid, 'UPDATE') \
                       OR has_any_column_privilege(a.usesysid, $3::oid, 'UPDATE'), true) AS may_write \
       FROM (SELECT DISTINCT pid FROM locks) p LEFT JOIN LATERAL pg_stat_get_activity(p.pid) a ON true) \
     SELECT l.pid, l.is_daemon, l.half, l.key, \
            CASE WHEN l.pid <> pg_backend_pid() THEN s.state_change::text END, \
            COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - s.state_change), 0)::float8, s.busy, \
            CASE WHEN NOT s.may_write THEN COALESCE(pg_get_userbyid(s.usesysid)::text, '?') END \
     FROM locks l JOIN sessions s USING (pid)";

/// The columns of [`LOOK`].
type LookRow = (
    Pid,
    bool,
    i64,
    i64,
    Option<String>,
    f64,
    bool,
    Option<String>,
);

/// Which daemons are there, and which of them hold the locks of these jobs. Strangers are looked for at the locks of these
/// shared slots, too.
///
/// # Errors
/// The server's.
pub async fn look(
    store: &JobStore,
    jobs: &[JobId],
    shared_slots: BTreeSet<String>,
) -> Result<FleetView, DatabaseError> {
    let (table, label) = keys(store, store.shares_slots());
    let (_, other_slots) = keys(store, !store.shares_slots());
    let jobs = jobs
        .iter()
        .map(|id| (JobsLock::Job(id).key(store), Held::Job(id.clone())));
    let slots = shared_slots.into_iter().map(|slot| {
        (
            JobsLock::SharedSlot(&slot).key(store),
            Held::SharedSlot(slot),
        )
    });
    let search = (JobsLock::OrphanSearch.key(store), Held::OrphanSearch);
    let by_key: BTreeMap<i64, Held> = jobs.chain(slots).chain([search]).collect();
    let lock_keys: Vec<i64> = by_key.keys().copied().collect();
    let failed = || DatabaseError::during("looking for other daemons");
    let question = store.session().repeated(LOOK).await.map_err(failed())?;
    let table_key = i64::from(table.cast_unsigned());
    let found: Vec<LookRow> = store
        .session()
        .query(&question, &[&table_key, &lock_keys, &store.table().oid()])
        .await
        .and_then(|rows| all(&rows))
        .map_err(failed())?;
    let mut view = FleetView::default();
    for (pid, is_daemon, second_half, key, last_change, since, busy, stranger) in found {
        let held = by_key.get(&key).filter(|_| !is_daemon);
        if let Some(role) = stranger {
            let held = held.cloned().unwrap_or(Held::Presence);
            view.strangers.push(Stranger { pid, role, held });
        } else if is_daemon {
            let activity = last_change.map(|last_change| Activity {
                last_change,
                since: Duration::try_from_secs_f64(since.max(0.0)).unwrap_or_default(),
                busy,
            });
            view.peers.push(Peer {
                pid,
                same_label: second_half == i64::from(label.cast_unsigned()),
                other_slots: second_half == i64::from(other_slots.cast_unsigned()),
                activity,
            });
        } else if let Some(Held::Job(id)) = held {
            view.holders.insert(id.clone(), pid);
        }
    }
    Ok(view)
}

/// Those of these keys of job locks that a session holds.
///
/// # Errors
/// The server's.
pub async fn held_keys(session: &Session, keys: &[i64]) -> Result<BTreeSet<i64>, DatabaseError> {
    let held: Vec<i64> = session
        .query(
            "SELECT k.key FROM unnest($1::bigint[]) AS k (key) WHERE EXISTS ( \
               SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
                 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                 AND l.classid::bigint << 32 | l.objid::bigint = k.key)",
            &[&keys],
        )
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
        .map_err(DatabaseError::during("looking for the locks of jobs"))?;
    Ok(held.into_iter().collect())
}

/// Terminates the session of a daemon that has not been active since `last_change`, and waits up to a second until its
/// locks are free. Returns false if it has been active since, or has gone.
///
/// # Errors
/// `insufficient_privilege` if this daemon's role may not terminate that session; the server's others.
pub async fn terminate(
    store: &JobStore,
    pid: Pid,
    last_change: &str,
) -> Result<bool, DatabaseError> {
    let terminated: Option<bool> = store
        .session()
        .query_opt(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_get_activity($1) \
             WHERE state_change = $2::text::timestamptz",
            &[&pid, &last_change],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(DatabaseError::during(
            "terminating the session of a daemon that does not respond",
        ))?;
    Ok(terminated.unwrap_or(false))
}
