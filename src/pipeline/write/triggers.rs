//! The option `skip_triggers`: write-backs that fire no triggers, for tables whose triggers are for their users'
//! changes only.
//!
//! `session_replication_role = replica` does it for the session. It leaves out triggers and rules but for those that
//! are enabled as REPLICA or ALWAYS (PostgreSQL manual, "Statement Behavior" and "ALTER TABLE"). The foreign keys of
//! the table are among them: the server checks those by triggers, too. A write-back changes none of their columns.

use tokio_postgres::error::SqlState;

use crate::pipeline::error::JobError;
use crate::pipeline::setup::preflight::triggers::skip_remedy;
use crate::postgres::{DatabaseError, Session};

/// Lets the statements of this session, from now on, fire only triggers that are enabled as REPLICA or ALWAYS.
///
/// # Errors
/// Permanent, with the remedy, where the role lacks the right to do that.
pub async fn skip(session: &Session) -> Result<(), JobError> {
    let set = session.batch_execute("SET session_replication_role = replica");
    let Err(error) = set.await else {
        return Ok(());
    };
    let refused = error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
    let error = JobError::from(DatabaseError::during("switching triggers off")(error));
    if !refused {
        return Err(error);
    }
    Err(error.with_remedy(skip_remedy(session).await?))
}
