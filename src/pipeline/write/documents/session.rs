//! The session that reads documents and writes the passages of one job.
//!
//! A write-back is a transaction of three messages that leave together: the lock of the table of passages, the statement,
//! the commit. The lock makes all writers of the table wait for each other, and the statement behind it sees what they have
//! committed ([`write`](crate::pipeline::chunks::write)). Over a slow link the lock is held while the statement arrives;
//! only the commands beside the daemon wait for it.

use std::sync::Arc;

use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::failpoint;
use crate::pipeline::chunks::found::Found;
use crate::pipeline::chunks::orphans::{self, OrphanPage};
use crate::pipeline::chunks::read;
use crate::pipeline::chunks::write::{self, DocumentOutcome, DocumentWrite, PassageParameters};
use crate::pipeline::error::JobError;
use crate::pipeline::slot::session_locks;
use crate::pipeline::table::key_sql::parameters;
use crate::pipeline::table::passages::PassageTable;
use crate::pipeline::table::row::Key;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::documents::sweep::NextPage;
use crate::pipeline::write::owner_role::{self, WrittenTable};
use crate::pipeline::write::writer::configure;
use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};

/// See the [module](self). Clones share the session.
#[derive(Clone)]
pub struct DocumentSession {
    session: Arc<Session>,
    target: Arc<TargetTable>,
    passages: Arc<PassageTable>,
    begin: Arc<str>,
    read: Statement,
    write: Statement,
}

/// A key to read, with the transaction that brought its change; 0 for one that a scan has seen.
pub type Asked = (Key, i64);

/// How much a reading may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Bytes of text.
    pub bytes: usize,
    /// Whether the first text comes however long it is.
    pub first_always: bool,
}

impl DocumentSession {
    /// Makes a session one for documents, and prepares its statements, for vectors of so many dimensions; the flag is
    /// whether all documents are read that have a text, also those that are current.
    ///
    /// # Errors
    /// The server's.
    pub async fn prepare(
        session: Session,
        target: Arc<TargetTable>,
        passages: &PassageTable,
        (dimensions, renews): (usize, bool),
    ) -> Result<DocumentSession, JobError> {
        let written = WrittenTable::of_passages(&target, passages);
        let as_owner = owner_role::take(&session, &written).await?;
        let (read, write) = match prepare(&session, &target, passages, (dimensions, renews)).await {
            // The owner may lack rights on what is not its own, such as the schema of the vector type.
            Err(error) if as_owner && error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                owner_role::give_back(&session).await?;
                prepare(&session, &target, passages, (dimensions, renews)).await?
            }
            prepared => prepared?,
        };
        let begin = format!(
            "BEGIN; SELECT pg_catalog.pg_advisory_xact_lock({})",
            session_locks::passages(passages.oid)
        );
        Ok(DocumentSession {
            session: Arc::new(session),
            passages: Arc::new(passages.clone()),
            target,
            begin: begin.into(),
            read,
            write,
        })
    }

    /// Reads documents by key; returns what was found for each, in order.
    ///
    /// # Errors
    /// The server's.
    ///
    /// Cancellation safe: it only reads.
    pub async fn read(&self, asked: &[Asked], limit: ReadLimit) -> Result<Vec<Found>, JobError> {
        let keys = self.target.key_arrays(asked.iter().map(|(key, _)| key));
        let xids: Vec<i64> = asked.iter().map(|(_, xid)| *xid).collect();
        let room = i64::try_from(limit.bytes).unwrap_or(i64::MAX);
        let mut parameters = parameters(&keys);
        parameters.extend([&xids as &(dyn ToSql + Sync), &room, &limit.first_always]);
        let answers = self.session.query(&self.read, &parameters).await;
        let read = answers.and_then(|answers| {
            let limit = self.passages.max_document_bytes;
            let found = answers.iter().map(|answer| read::found(answer, limit));
            found.collect::<Result<Vec<_>, _>>()
        });
        let mut read = read.map_err(DatabaseError::during(format!(
            "reading documents of {}",
            self.target.qualified()
        )))?;
        read.sort_unstable_by_key(|(place, _)| *place);
        if read.len() != asked.len() {
            return Err(JobError::Transient(format!(
                "{} documents of {} were asked for, and the server answered for {}",
                asked.len(),
                self.target.qualified(),
                read.len()
            )));
        }
        Ok(read.into_iter().map(|(_, found)| found).collect())
    }

    /// Writes the passages of documents in one transaction; returns one outcome for each, in order. No key may occur twice,
    /// and all changes have the same cascade depth.
    ///
    /// # Errors
    /// The server's; then nothing of the batch is written.
    ///
    /// Cancellation: the transaction may or may not commit. The guard makes repeating it harmless.
    pub async fn write(
        &self,
        depth: u8,
        batch: &[DocumentWrite],
    ) -> Result<Vec<DocumentOutcome>, tokio_postgres::Error> {
        let parameters = PassageParameters::new(&self.target, depth, batch);
        let parameters = parameters.as_sql();
        // The first poll of each sends it. Where one fails, the server skips what follows it in the transaction.
        let (begun, rows, committed, ()) = tokio::join!(
            biased;
            self.session.batch_execute(&self.begin),
            self.session.query(&self.write, &parameters),
            self.session.batch_execute("COMMIT"),
            failpoint::reach_awaiting("write-back-sent"),
        );
        begun?;
        let rows = rows?;
        committed?;
        failpoint::reach("write-back-after-commit");
        let mut outcomes = vec![DocumentOutcome::RowChanged; batch.len()];
        for row in &rows {
            let (place, outcome): (i64, i32) = columns(row)?;
            let place = usize::try_from(place)
                .ok()
                .and_then(|place| place.checked_sub(1));
            if let Some(settled) = place.and_then(|place| outcomes.get_mut(place)) {
                *settled = DocumentOutcome::from_number(outcome);
            }
        }
        Ok(outcomes)
    }

    /// Reads a page of the keys of passages.
    ///
    /// # Errors
    /// The server's.
    ///
    /// Cancellation safe: it only reads.
    pub async fn orphans(&self, page: &NextPage) -> Result<OrphanPage, JobError> {
        let after = page.after.as_ref();
        let page = orphans::page(&self.session, &self.target, &self.passages, after, page.xid);
        Ok(page.await?)
    }

    /// The session, for small questions between batches.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

async fn prepare(
    session: &Session,
    target: &TargetTable,
    passages: &PassageTable,
    (dimensions, renews): (usize, bool),
) -> Result<(Statement, Statement), DatabaseError> {
    let failed = || {
        DatabaseError::during(format!(
            "preparing the write-back to {}",
            passages.qualified()
        ))
    };
    let user_settings = configure(session).await?;
    let (read, types) = (
        read::statement(target, passages, renews),
        read::types(target),
    );
    let read = session.prepare_typed(&read, &types).await;
    let read = read.map_err(failed())?;
    let write = write::statement(target, passages, dimensions, &user_settings);
    let write = session.prepare_typed(&write, &write::types(target)).await;
    Ok((read, write.map_err(failed())?))
}
