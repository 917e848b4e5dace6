//! The index of the vectors, built once all rows are embedded.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::jobs::reporter::{Report, ReportMessage, Reporter};
use crate::pipeline::error::JobError;
use crate::pipeline::index::look;
use crate::pipeline::index::upkeep::Upkeep;
use crate::pipeline::index::wanted::WantedIndex;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{ConnectionString, Session};

/// Checks before the work that the index can be built after it.
///
/// # Errors
/// Permanent, with the remedy; and the server's.
pub async fn check(
    session: &Session,
    target: &TargetTable,
    wanted: &WantedIndex,
) -> Result<(), JobError> {
    look::check_operator_class(session, wanted).await?;
    if look::is_owner(session, target.oid).await? {
        return Ok(());
    }
    match look::find(session, target, wanted).await? {
        Some(_) => Ok(()),
        None => Err(JobError::permanent(look::for_the_owner(target, wanted))),
    }
}

/// Builds the index unless one is there, and returns what it is called. `say` is told how far it is.
///
/// # Errors
/// Why it is not built. The vectors stay as they are.
///
/// Cancellation: the server ends the build soon after; what that leaves is replaced the next time.
pub async fn build(
    database: &ConnectionString,
    target: Arc<TargetTable>,
    wanted: WantedIndex,
    say: impl FnMut(&str) + Send + 'static,
) -> Result<String, JobError> {
    let (sender, messages) = mpsc::channel(16);
    let _telling = AbortOnDropHandle::new(tokio::spawn(tell(messages, say)));
    let upkeep = Upkeep {
        roles: vec![database.named("index")],
        target,
        wanted,
        reporter: Reporter::without_row(sender),
    };
    Ok(upkeep.build_once().await?.qualified())
}

async fn tell(mut messages: mpsc::Receiver<ReportMessage>, mut say: impl FnMut(&str)) {
    while let Some(message) = messages.recv().await {
        if let Report::IndexState(Some(state)) = message.report {
            say(&state);
        }
    }
}
