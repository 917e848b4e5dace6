//! The session that writes the vectors of one job, and reads the texts that the stream did not carry.
//!
//! Each write-back is a transaction of its own, sent in one packet and answered in one:
//!
//! ```text
//! BEGIN; SELECT pg_logical_emit_message(…)   the marker, by which the change filter knows our own transactions
//! WITH incoming … held … written …           the prepared write statement
//! COMMIT
//! ```

use std::sync::Arc;

use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use crate::failpoint;
use crate::pipeline::error::JobError;
use crate::pipeline::table::key_sql::parameters;
use crate::pipeline::table::row::{Row, SourceText};
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::table::write_back_marker::WRITE_BACK_MARKER;
use crate::pipeline::write::outcome::{EmbeddedRow, Outcome, Reading};
use crate::pipeline::write::statement::{self, WriteParameters};
use crate::postgres::quote::literal;
use crate::postgres::{ConnectionString, DatabaseError, Session};

/// How the statements of this session are planned and bounded.
///
/// A batch is a list of keys, and index lookups are right for it whatever the statistics say, also on a table that was
/// never analyzed. The statements are prepared once and their arrays have any length, so a generic plan is made once as
/// well (PostgreSQL manual, "Planner Method Configuration" and "Other Planner Options").
///
/// If we or the network stall between UPDATE and COMMIT, the server ends the session after 300 ms, so that the row
/// locks are released (manual, "Statement Behavior"). Both leave in one packet, so nothing else takes this long.
const SETTINGS: &str = "SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;
SET idle_in_transaction_session_timeout = '300ms';
SET plan_cache_mode = force_generic_plan;";

/// From PostgreSQL 18 on (seen in 18.6), when a statement rechecks a row that was changed meanwhile (EvalPlanQual), its
/// other scans of a partitioned table prune by freed memory: the server process crashes, and all others with it.
/// Without pruning the index of each partition is asked.
const WITHOUT_PRUNING: &str = "SET enable_partition_pruning = off";

/// The session that writes to one target table.
pub struct Writer {
    session: Arc<Session>,
    target: Arc<TargetTable>,
    /// Begins a write-back with the marker.
    begin: String,
    write: Statement,
    read: Statement,
}

impl Writer {
    /// Opens a session for write-backs and prepares its statements.
    ///
    /// # Errors
    /// The server's.
    pub async fn open(
        database: &ConnectionString,
        target: Arc<TargetTable>,
        dimensions: usize,
    ) -> Result<Writer, JobError> {
        let session = Arc::new(Session::open(database).await?);
        let prepared = prepare(&session, &target, dimensions).await;
        let (write, read) = prepared.map_err(DatabaseError::during(format!(
            "preparing the write-back to {}",
            target.qualified()
        )))?;
        // The marker must come first: the change filter decides at the first row of a transaction.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_logical_emit_message(true, {}, '')",
            literal(WRITE_BACK_MARKER)
        );
        Ok(Writer {
            session,
            target,
            begin,
            write,
            read,
        })
    }

    /// Writes a batch in one transaction; returns one outcome for each row, in order. No key may occur twice.
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
        let rows = self.write_in_transaction(&parameters.as_sql()).await?;
        failpoint::reach("write-back-after-commit");
        let mut outcomes = vec![Outcome::Superseded; batch.len()];
        for row in &rows {
            outcomes[place(row)] = Outcome::from_number(row.get(1));
        }
        Ok(outcomes)
    }

    async fn write_in_transaction(
        &self,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
        // A future of tokio_postgres sends its request when it is first polled. Polled together and in this order, the
        // three leave in one packet. Where the statement fails, COMMIT ends the aborted transaction.
        let (begun, written, committed) = tokio::join!(
            biased;
            self.session.batch_execute(&self.begin),
            self.session.query(&self.write, parameters),
            async {
                failpoint::reach_awaiting("write-back-before-commit").await;
                self.session.batch_execute("COMMIT").await
            },
        );
        begun?;
        let rows = written?;
        committed?;
        Ok(rows)
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
        let answers = answers.map_err(DatabaseError::during(format!(
            "reading texts of {}",
            self.target.qualified()
        )))?;
        let mut readings = vec![Reading::Gone; rows.len()];
        for answer in &answers {
            readings[place(answer)] = reading(answer);
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
) -> Result<(Statement, Statement), tokio_postgres::Error> {
    session.batch_execute(SETTINGS).await?;
    if session.version() >= 180_000 {
        session.batch_execute(WITHOUT_PRUNING).await?;
    }
    let (write, types) = (
        statement::write_statement(target, dimensions),
        statement::write_types(target),
    );
    let write = session.prepare_typed(&write, &types).await?;
    let (read, types) = (
        statement::read_statement(target),
        statement::read_types(target),
    );
    Ok((write, session.prepare_typed(&read, &types).await?))
}

/// Which row of the batch a result row is about, counted from 0.
fn place(row: &tokio_postgres::Row) -> usize {
    row.get::<_, i64>(0) as usize - 1
}

/// One row of the read statement's result.
fn reading(answer: &tokio_postgres::Row) -> Reading {
    let (exists, visible, current) = (answer.get(1), answer.get(2), answer.get(3));
    match (exists, visible) {
        (_, false) => Reading::NotYetVisible,
        (false, true) => Reading::Gone,
        (true, true) if current => Reading::Current,
        (true, true) => Reading::Found(SourceText::from_column(answer.get(4))),
    }
}
