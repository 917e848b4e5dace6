//! What a person should know of the server of a job, though it keeps no job from starting.

use crate::jobs::InitProgress;
use crate::pipeline::setup::preflight::points::{Outcome, Points};
use crate::pipeline::setup::preflight::publishing::SlotPlan;
use crate::pipeline::setup::preflight::restart::restart_or_raise;
use crate::pipeline::setup::preflight::service::{Service, setting_remedy};
use crate::pipeline::slot::blockers::{self, Waiting};
use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// From so many slots of jobs on, one for all of them is advised. Measured with 50 jobs: users keep 0.20 of their
/// transactions beside a slot for each, and 0.73 beside one (docs/benchmarks).
const MANY_SLOTS: i64 = 5;
/// From this age on, in seconds, a transaction that delays the creation of a slot is worth a word.
const LONG_TRANSACTION: f64 = 3.0;

/// The points that are there for every server.
const POINTS: [&str; 3] = ["max_slot_wal_keep_size", "walsenders", "transactions"];

/// Adds the points that cannot be made, for this reason.
pub(super) fn skip(points: &mut Points, why: &str) {
    points.skip(&POINTS, why);
}

/// Adds the advice. A question that fails is a point of its own. `owns_table`: the role of the stream does.
pub(super) async fn give(
    points: &mut Points,
    session: &Session,
    slot: SlotPlan<'_>,
    progress: InitProgress,
    owns_table: bool,
) {
    let [wal, senders, transactions] = POINTS;
    let given = [
        ("service", service(session).await),
        (wal, wal_limit(session).await),
        (senders, walsenders(session).await),
        ("pooler", Ok(pooler(session))),
        ("slots", many_slots(session, slot, owns_table).await),
        (transactions, open_transactions(session, progress).await),
    ];
    for (title, outcome) in given {
        match outcome {
            Ok(outcome) => outcome.map_or((), |outcome| points.add(title, outcome)),
            Err(error) => points.add(title, Outcome::Unknown(error.to_string())),
        }
    }
}

type Advice = Result<Option<Outcome>, DatabaseError>;

async fn service(session: &Session) -> Advice {
    let Some(service) = Service::of(session).await? else {
        return Ok(None);
    };
    Ok(Some(match service {
        Service::Neon => Outcome::Advice(
            "Neon drops a slot that nothing has read for about 40 hours: after a longer pause of the daemon every row \
             is embedded again. A compute does not suspend while the daemon streams"
                .into(),
        ),
        service => Outcome::Passed(format!("{}: the remedies are those for it", service.name())),
    }))
}

async fn wal_limit(session: &Session) -> Advice {
    let (limit, shown): (i64, String) = session
        .query_one(
            "SELECT setting::bigint, current_setting(name) FROM pg_settings WHERE name = 'max_slot_wal_keep_size'",
            &[],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("reading max_slot_wal_keep_size"))?;
    if limit >= 0 {
        return Ok(Some(Outcome::Passed(shown)));
    }
    let remedy = match Service::of(session).await? {
        None => "ALTER SYSTEM SET max_slot_wal_keep_size = '64GB'; SELECT pg_reload_conf(); (no restart)".to_owned(),
        Some(service) => format!("on {}, set it where its other settings are (no restart)", service.name()),
    };
    Ok(Some(Outcome::Advice(format!(
        "no limit: while no daemon runs, the slot keeps WAL until the disk is full (a daemon that runs obeys \
         --max-retained-wal). Choose what the disk can spare: {remedy}"
    ))))
}

async fn walsenders(session: &Session) -> Advice {
    let (limit, used): (i32, i64) = session
        .query_one(
            "SELECT current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_stat_replication)",
            &[],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("counting walsenders"))?;
    let shown = format!("{used} of {limit} are in use");
    if used < i64::from(limit) {
        return Ok(Some(Outcome::Passed(shown)));
    }
    let more = i64::from(limit.max(5)) * 2;
    let name = "max_wal_senders";
    let remedy = setting_remedy(Service::of(session).await?, name, more);
    let remedy = restart_or_raise(session, name, limit, remedy).await?;
    Ok(Some(Outcome::Advice(format!(
        "{shown}; allow more: {remedy}"
    ))))
}

/// Ports and names that poolers usually have. One that does carry replication is found out by its walsender.
fn pooler(session: &Session) -> Option<Outcome> {
    let server = session.server().first_server().to_string();
    let usual = [":6432", ":6543"];
    let is_one = server.contains("pooler") || usual.iter().any(|port| server.ends_with(port));
    is_one.then(|| {
        Outcome::Advice(format!(
            "{server} looks like a pooler (PgBouncer, Supavisor, RDS Proxy, a Neon host with -pooler): let \
             db_connection name the server itself, on Supabase the direct connection"
        ))
    })
}

/// None for a role for which the owner of the table has prepared a publication: that serves one job.
async fn many_slots(session: &Session, slot: SlotPlan<'_>, owns_table: bool) -> Advice {
    if slot.is_shared() || !owns_table {
        return Ok(None);
    }
    let own = slot.slot().map(SlotName::as_str);
    let others: i64 = session
        .query_one(
            "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() \
             AND slot_name ~ '^lantern_[0-9a-f]{8}_' AND slot_name !~ '^lantern_[0-9a-f]{8}_db_[0-9a-f]{16}$' \
             AND slot_name IS DISTINCT FROM $1",
            &[&own],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("counting the slots of jobs"))?;
    let count = others + 1;
    Ok((count >= MANY_SLOTS).then(|| {
        Outcome::Advice(format!(
            "with this job {count} slots decode the WAL of this database, each all of it: run the daemon with --slots \
             database, which reads one for all jobs (measured with 50 jobs: users keep 0.20 of their transactions \
             beside a slot for each, and 0.73 beside one)"
        ))
    }))
}

async fn open_transactions(session: &Session, progress: InitProgress) -> Advice {
    if progress != InitProgress::New {
        return Ok(None);
    }
    let is_long: bool = session
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_xid IS NOT NULL \
               AND xact_start < clock_timestamp() - make_interval(secs => $1)) \
             OR EXISTS (SELECT FROM pg_prepared_xacts)",
            &[&LONG_TRANSACTION],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("looking for open transactions"))?;
    if !is_long {
        return Ok(Some(Outcome::Passed("none that delays the slot".into())));
    }
    let own = blockers::backend_pid(session).await?;
    let open = blockers::describe(session, own, Waiting::ForTransactions).await?;
    Ok(Some(Outcome::Advice(format!(
        "the slot is created when these transactions have ended: {open}"
    ))))
}
