//! Which daemons work on the jobs table, which of them runs what, and which has fallen silent.
//!
//! Each daemon's session holds one shared advisory lock that names the table, besides the locks of its jobs, and reads the
//! table several times a second. So `pg_locks` says who is there, and `pg_stat_activity` when each was heard last. No table
//! of ours is needed for it, and nothing has to be cleaned up: the server forgets a session with its end.

use std::collections::BTreeMap;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::definition::JobId;
use super::lock::Lock;
use super::store::JobStore;
use crate::postgres::DatabaseError;

/// The server process of a session.
pub type Pid = i32;

/// A daemon with this jobs table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub pid: Pid,
    /// It takes the same rows as we do: its label is ours, and so is its kind of slots.
    pub same_label: bool,
    /// Its label is ours, and its kind of slots is not.
    pub other_slots: bool,
    /// `None` where our role may not see it.
    pub signs: Option<Signs>,
}

/// Signs of life, as the server sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signs {
    /// When the session last began or ended a statement (`pg_stat_activity.state_change`).
    pub heard_at: String,
    /// How long ago that was.
    pub silent_for: Duration,
    /// The server works on a statement, so it is not the daemon that keeps us waiting.
    pub busy: bool,
}

/// Everybody at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The daemons with this jobs table, ourselves among them.
    pub peers: Vec<Peer>,
    pub holders: BTreeMap<JobId, Pid>,
}

/// Lets the others see this daemon for as long as its session lives.
pub async fn announce(store: &JobStore) -> Result<(), DatabaseError> {
    let (table, label) = keys(store, store.shares_slots());
    store
        .session()
        .execute("SELECT pg_advisory_lock_shared($1, $2)", &[&table, &label])
        .await
        .map_err(DatabaseError::during("joining the daemons of a jobs table"))?;
    Ok(())
}

/// Takes part in the sharing out no longer; the session and the locks of jobs stay.
pub async fn withdraw(store: &JobStore) -> Result<(), DatabaseError> {
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

/// The two halves of the key: one for the table, one for the label and the kind of slots.
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

/// `objsubid` tells a key of two halves (2) from a whole one (1) (documentation: view-pg-locks). A statement that waits for
/// its client, such as one that was cut off in the middle, is a silence of the client's.
const LOOK: &str = "SELECT l.pid, l.objsubid = 2, l.objid::bigint, l.classid::bigint << 32 | l.objid::bigint, \
            a.state_change::text, COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - a.state_change), 0)::float8, \
            COALESCE(a.state = 'active' AND a.wait_event_type IS DISTINCT FROM 'Client', false) \
     FROM pg_locks l LEFT JOIN LATERAL pg_stat_get_activity(l.pid) a ON l.objsubid = 2 AND l.pid <> pg_backend_pid() \
     WHERE l.locktype = 'advisory' AND l.granted AND l.pid IS NOT NULL \
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
       AND (l.objsubid = 2 AND l.classid::bigint = $1 \
            OR l.objsubid = 1 AND l.classid::bigint << 32 | l.objid::bigint = ANY($2))";

/// Who is there, and who holds the locks of these jobs.
pub async fn look(store: &JobStore, jobs: &[JobId]) -> Result<View, DatabaseError> {
    let (table, label) = keys(store, store.shares_slots());
    let (_, other_slots) = keys(store, !store.shares_slots());
    let by_key: BTreeMap<i64, &JobId> = jobs
        .iter()
        .map(|id| (Lock::Job(id).key(store), id))
        .collect();
    let job_keys: Vec<i64> = by_key.keys().copied().collect();
    let failed = || DatabaseError::during("looking for other daemons");
    let question = store.session().repeated(LOOK).await.map_err(failed())?;
    let rows = store
        .session()
        .query(&question, &[&i64::from(table.cast_unsigned()), &job_keys])
        .await
        .map_err(failed())?;
    let mut view = View::default();
    for row in &rows {
        let pid: Pid = row.get(0);
        if row.get(1) {
            let signs = row.get::<_, Option<String>>(4).map(|heard_at| Signs {
                heard_at,
                silent_for: Duration::from_secs_f64(row.get::<_, f64>(5).max(0.0)),
                busy: row.get(6),
            });
            view.peers.push(Peer {
                pid,
                same_label: row.get::<_, i64>(2) == i64::from(label.cast_unsigned()),
                other_slots: row.get::<_, i64>(2) == i64::from(other_slots.cast_unsigned()),
                signs,
            });
        } else if let Some(id) = by_key.get(&row.get(3)) {
            view.holders.insert((*id).clone(), pid);
        }
    }
    Ok(view)
}

/// Ends the session of a daemon that has not been heard since `heard_at`, and waits until its locks are free. False where it
/// has spoken or gone meanwhile.
///
/// # Errors
/// `insufficient_privilege` where our role may not; the server's others.
pub async fn end(store: &JobStore, pid: Pid, heard_at: &str) -> Result<bool, DatabaseError> {
    let ended = store
        .session()
        .query_opt(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_get_activity($1) \
             WHERE state_change = $2::text::timestamptz",
            &[&pid, &heard_at],
        )
        .await
        .map_err(DatabaseError::during(
            "ending the session of a silent daemon",
        ))?;
    Ok(ended.is_some_and(|row| row.get(0)))
}
