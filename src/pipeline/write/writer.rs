//! The session that writes the vectors of one job, and reads the texts that the stream did not carry.
//!
//! A write-back is one statement outside a transaction block, so it is a transaction of its own, which the server
//! commits at the `Sync` that leaves in the same packet. See [`statement`].
//!
//! A writer can be shared: several write-backs may be on the way at a time, and the server executes them one after the
//! other. On a link with a long way, that keeps the server busy.

use std::sync::Arc;

use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;

use crate::failpoint;
use crate::pipeline::error::JobError;
use crate::pipeline::table::key_sql::parameters;
use crate::pipeline::table::row::{Row, SourceText};
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::outcome::{EmbeddedRow, Outcome, Reading};
use crate::pipeline::write::owner_role::{self, WrittenTable};
use crate::pipeline::write::statement::{self, WriteParameters};
use crate::postgres::answer::columns;
use crate::postgres::user_settings::UserSettings;
use crate::postgres::{DatabaseError, Session};

/// How the statements of this session are planned.
///
/// A batch is a list of keys, and index lookups are right for it whatever the statistics say, also on a table that was
/// never analyzed. The statements are prepared once and their arrays have any length, so a generic plan is made once as
/// well (PostgreSQL manual, "Planner Method Configuration" and "Other Planner Options"). The users' code inside the
/// statement is planned as always ([`user_settings`](crate::postgres::user_settings)).
///
/// A statement and the `Sync` behind it leave together. Should the network be cut just between the two, the server
/// waits for the `Sync` with the rows locked; the keepalives make it notice within seconds (manual, "Connection
/// Settings"). A server on a Unix socket has none, and needs none.
const SETTINGS: &str = "SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;
SET plan_cache_mode = force_generic_plan;
SET tcp_keepalives_idle = 2;
SET tcp_keepalives_interval = 2;
SET tcp_keepalives_count = 3;";

/// From PostgreSQL 18 on (seen in 18.6), when a statement rechecks a row that was changed meanwhile (EvalPlanQual), its
/// other scans of a partitioned table prune by freed memory: the server process crashes, and all others with it.
/// Without pruning the index of each partition is asked.
const WITHOUT_PRUNING: &str = "SET enable_partition_pruning = off";

/// The session that writes to one target table.
#[derive(Clone)]
pub struct Writer {
    session: Arc<Session>,
    target: Arc<TargetTable>,
    write: Statement,
    read: Statement,
}

impl Writer {
    /// Makes a session one for write-backs, and prepares its statements.
    ///
    /// # Errors
    /// The server's.
    pub async fn prepare(
        session: Session,
        target: Arc<TargetTable>,
        dimensions: usize,
    ) -> Result<Writer, JobError> {
        let as_owner = owner_role::take(&session, &WrittenTable::of_vectors(&target)).await?;
        let (write, read) = match prepare(&session, &target, dimensions).await {
            // The owner may lack rights on what is not its own, such as the schema of the vector type.
            Err(error) if as_owner && error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                owner_role::give_back(&session).await?;
                prepare(&session, &target, dimensions).await?
            }
            prepared => prepared?,
        };
        Ok(Writer {
            session: Arc::new(session),
            target,
            write,
            read,
        })
    }

    /// Writes a batch in one transaction; returns one outcome for each row, in order. No key may occur twice, and all rows
    /// have the same cascade depth.
    ///
    /// # Errors
    /// The server's; then nothing of the batch is written.
    ///
    /// Cancellation: the transaction may or may not commit. The guard makes repeating it harmless.
    pub async fn write(
        &self,
        batch: &[&EmbeddedRow],
    ) -> Result<Vec<Outcome>, tokio_postgres::Error> {
        let parameters = WriteParameters::new(&self.target, batch);
        let parameters = parameters.as_sql();
        // The first poll of the query sends it.
        let (rows, ()) = tokio::join!(
            biased;
            self.session.query(&self.write, &parameters),
            failpoint::reach_awaiting("write-back-sent"),
        );
        let rows = rows?;
        failpoint::reach("write-back-after-commit");
        let mut outcomes = vec![Outcome::Superseded; batch.len()];
        for row in &rows {
            let (place, outcome): (i64, i32) = columns(row)?;
            if let Some(settled) = outcomes.get_mut(index(place)) {
                *settled = Outcome::from_number(outcome);
            }
        }
        Ok(outcomes)
    }

    /// Reads the sources of rows whose text the stream did not carry; returns one reading for each row, in order.
    ///
    /// # Errors
    /// The server's.
    ///
    /// Cancellation safe: it only reads.
    pub async fn read_sources(&self, rows: &[&Row]) -> Result<Vec<Reading>, JobError> {
        let keys = self.target.key_arrays(rows.iter().map(|row| &row.key));
        let xids = statement::xids(rows);
        let mut parameters = parameters(&keys);
        parameters.push(&xids);
        let answers = self.session.query(&self.read, &parameters).await;
        let found = answers.and_then(|answers| {
            let found = answers.iter().map(reading);
            found.collect::<Result<Vec<_>, _>>()
        });
        let found = found.map_err(DatabaseError::during(format!(
            "reading texts of {}",
            self.target.qualified()
        )))?;
        let mut readings = vec![Reading::Gone; rows.len()];
        for (place, found) in found {
            if let Some(reading) = readings.get_mut(place) {
                *reading = found;
            }
        }
        Ok(readings)
    }

    /// The session, for small questions between batches.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

async fn prepare(
    session: &Session,
    target: &TargetTable,
    dimensions: usize,
) -> Result<(Statement, Statement), DatabaseError> {
    let failed = || {
        DatabaseError::during(format!(
            "preparing the write-back to {}",
            target.qualified()
        ))
    };
    let user_settings = configure(session).await?;
    let write = statement::write_statement(target, dimensions, &user_settings);
    let types = statement::write_types(target);
    let write = session.prepare_typed(&write, &types).await;
    let write = write.map_err(failed())?;
    let read = statement::read_statement(target);
    let types = statement::read_types(target);
    let read = session.prepare_typed(&read, &types).await;
    Ok((write, read.map_err(failed())?))
}

/// Sets how the statements of a write-back session are planned; returns the settings that the users' code gets.
///
/// # Errors
/// The server's.
pub(super) async fn configure(session: &Session) -> Result<UserSettings, DatabaseError> {
    let failed = || DatabaseError::during("preparing a session for write-backs");
    let user_settings = UserSettings::read(session).await?;
    session.batch_execute(SETTINGS).await.map_err(failed())?;
    if session.version() >= 180_000 {
        let set = session.batch_execute(WITHOUT_PRUNING).await;
        set.map_err(failed())?;
    }
    Ok(user_settings)
}

/// The index of a row of the batch that a statement counts from 1. Past the end for a number that is none, which
/// PostgreSQL does not send.
fn index(place: i64) -> usize {
    let counted = usize::try_from(place).ok();
    let index = counted.and_then(|place| place.checked_sub(1));
    index.unwrap_or(usize::MAX)
}

/// One row of the read statement's result, and its place in the batch.
fn reading(answer: &tokio_postgres::Row) -> Result<(usize, Reading), tokio_postgres::Error> {
    let (place, exists, visible, current): (_, _, _, bool) = columns(answer)?;
    let reading = match (exists, visible) {
        (_, false) => Reading::NotYetVisible,
        (false, true) => Reading::Gone,
        (true, true) if current => Reading::Current,
        (true, true) => Reading::Found(SourceText::from_row(answer, 4)?),
    };
    Ok((index(place), reading))
}
