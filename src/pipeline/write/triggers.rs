//! Write-backs that fire no triggers, for tables whose triggers are for their users' changes only.

use tokio_postgres::error::SqlState;

use crate::pipeline::error::JobError;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// From now on the session's statements fire only triggers that are enabled as REPLICA or ALWAYS.
///
/// # Errors
/// Permanent, with the remedy, where the role may not do that.
pub async fn skip(session: &Session) -> Result<(), JobError> {
    let Err(error) = session
        .batch_execute("SET session_replication_role = replica")
        .await
    else {
        return Ok(());
    };
    let refused = error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
    let error = JobError::from(DatabaseError::during("switching triggers off")(error));
    if !refused {
        return Err(error);
    }
    let role = session.role().await?;
    let grant = if session.version() >= 150_000 {
        format!(
            "let a superuser GRANT SET ON PARAMETER session_replication_role TO {}",
            identifier(&role)
        )
    } else {
        "before PostgreSQL 15 only a superuser may".into()
    };
    Err(error.with_remedy(format!(
        "skip_triggers of the job asks for it; {grant}, or set skip_triggers to false"
    )))
}
