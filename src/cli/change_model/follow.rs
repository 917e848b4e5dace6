//! How far a change is.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;

use super::pair::Pair;
use crate::cli::{output, stderr};
use crate::jobs::{InitProgress, JobStore};

/// How often the rows are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// As a shell reports a process that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// Prints how far the change is.
///
/// # Errors
/// The server's.
pub async fn print(store: &JobStore, pair: &Pair) -> anyhow::Result<()> {
    output::line(describe(store, pair).await?)?;
    Ok(())
}

/// Prints how far the change is, until it is over. Ctrl-C ends the command, and not the change.
///
/// # Errors
/// The new job has failed or was canceled; and the server's.
pub async fn follow(store: &JobStore, pair: Pair) -> anyhow::Result<ExitCode> {
    tokio::select! {
        followed = to_the_end(store, pair) => followed.map(|()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => {
            stderr::line(
                "the change goes on without this command, as long as a daemon runs; change-model --job says how far it \
                 is, and --cancel gives it up",
            );
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

async fn to_the_end(store: &JobStore, mut pair: Pair) -> anyhow::Result<()> {
    let mut said = String::new();
    loop {
        let id = pair.successor.id.clone();
        let Some(now) = pair.read_again(store).await? else {
            bail!("job {id} was deleted: the change is given up");
        };
        pair = now;
        if pair.successor.failed {
            bail!(
                "job {id} has failed, and job {} goes on as before: {}; then: {} Or give the change up: lantern-cli \
                 change-model --job {id} --cancel",
                pair.old_id(),
                pair.successor
                    .failure_reason
                    .as_deref()
                    .unwrap_or("no reason is given"),
                store.table().retry_statement(&id)
            );
        }
        let described = describe(store, &pair).await?;
        if described != said {
            output::line(&described)?;
            said = described;
        }
        if pair.is_over() {
            return Ok(());
        }
        if pair.successor.canceled {
            bail!("job {id} is canceled: the change is given up");
        }
        if pair.predecessor.is_none() {
            bail!(
                "the row of job {} was deleted; job {id} goes on, and takes its column",
                pair.old_id()
            );
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// A line for each percent would be many.
fn in_steps(percent: &str) -> u32 {
    percent.parse::<u32>().unwrap_or(0) / 5 * 5
}

/// One line.
async fn describe(store: &JobStore, pair: &Pair) -> anyhow::Result<String> {
    let (id, old) = (&pair.successor.id, pair.old_id());
    if pair.is_over() {
        return Ok(format!(
            "job {id} has replaced job {old}; the old vectors stay until: lantern-cli change-model --job {id} \
             --drop-old"
        ));
    }
    if pair.successor.canceled {
        return Ok(format!(
            "job {id}, which was to replace job {old}, is canceled"
        ));
    }
    let remarks = store.remarks_on(id).await?;
    let (reason, percent) = store.remarks(id).await?;
    let state = match pair.successor.progress {
        _ if pair.successor.failed => format!(
            "has failed: {}",
            reason.as_deref().unwrap_or("no reason is given")
        ),
        InitProgress::New => "has not started yet".to_owned(),
        InitProgress::Finished => "has a vector for every row".to_owned(),
        InitProgress::Started | InitProgress::StartedAgain => match percent {
            Some(percent) => format!("{} % of the rows", in_steps(&percent)),
            None => "fills its column".to_owned(),
        },
    };
    let further = [
        Some(state),
        remarks.last_error,
        remarks.waits_for.map(|what| format!("waits for {what}")),
        remarks.index_state.map(|state| format!("index {state}")),
    ];
    let said: Vec<String> = further.into_iter().flatten().collect();
    Ok(format!(
        "job {id} is to replace job {old}: {}",
        said.join("; ")
    ))
}
