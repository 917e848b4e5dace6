//! The role that reads and writes rows, where a job has another one for that than for the stream.
//!
//! What runs the users' code are statements on rows: write-backs above all, but reads too (a virtual generated column, a
//! cast). REPLICATION, and what creates a publication, are rights that such code should not get. So `write_connection` of
//! the jobs row may name a second role. Everything that touches rows is done by it: the scan, the write-backs with their
//! locks, the reads of texts, the questions of the watchdog. What is left to the role of `db_connection` is the stream,
//! the slot, the publication, missing columns, and the catalog.

use crate::pipeline::error::JobError;
use crate::postgres::{ConnectionString, DatabaseError, ServerInstance, Session};

/// The sessions of both roles with the target. They are one and the same where the job names one role.
#[derive(Clone, Copy)]
pub struct Sessions<'a> {
    /// May replicate.
    pub stream: &'a Session,
    /// Reads and writes rows.
    pub rows: &'a Session,
}

impl<'a> Sessions<'a> {
    /// The job names one role.
    pub fn of_one_role(session: &'a Session) -> Self {
        Sessions {
            stream: session,
            rows: session,
        }
    }

    /// Whether the job names two roles.
    pub fn are_two(self) -> bool {
        !std::ptr::eq(self.stream, self.rows)
    }
}

/// Opens the session of `write_connection`, and checks that it leads to the database that `stream` has reached.
///
/// # Errors
/// Permanent where it is another database, [`JobError::Transient`] where it is another server of the same cluster, as
/// during a failover; and the server's.
pub async fn open(connection: &ConnectionString, stream: &Session) -> Result<Session, JobError> {
    let session = Session::open(connection).await?;
    let (wanted, found) = (
        ServerInstance::of(stream).await?,
        ServerInstance::of(&session).await?,
    );
    if found.is_copy_of(wanted) {
        return Err(JobError::Transient(format!(
            "write_connection leads to another server of the cluster ({}) than db_connection ({}); let both name the same \
             hosts, with the same target_session_attrs",
            session.server(),
            stream.server()
        )));
    }
    if !found.may_be(wanted) || database(&session).await? != database(stream).await? {
        return Err(JobError::permanent(format!(
            "write_connection leads to another database ({}) than db_connection ({}); it must be the same server and \
             database, and only the role another one",
            session.server(),
            stream.server()
        )));
    }
    Ok(session)
}

/// The OID of the session's database, which no other database of the server has.
async fn database(session: &Session) -> Result<u32, DatabaseError> {
    session
        .query_one(
            "SELECT oid FROM pg_database WHERE datname = current_database()",
            &[],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("asking for the database"))
}
