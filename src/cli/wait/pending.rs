//! Why a job is not done yet, as far as its row, its slot and its daemon's record tell.

use crate::byte_size::Size;
use crate::cli::job_state;
use crate::cli::status_figures::{count, plural};
use crate::jobs::stats::JobRemarks;
use crate::jobs::{JobRow, JobStore};
use crate::pipeline::commands::wait::Pending;
use crate::pipeline::slot::committed_end::CommittedEnd;
use crate::pipeline::slot::job_slots::JobSlot;
use crate::postgres::{DatabaseError, Session};
use crate::status::record::JobRecord;

/// The rest of a sentence that begins with the job.
pub async fn why_pending(
    store: &JobStore,
    pending: &Pending,
    remarks: &JobRemarks,
    end: Option<CommittedEnd>,
    target: Option<&Session>,
) -> Result<String, DatabaseError> {
    let record = remarks.stats.as_deref().and_then(JobRecord::from_json);
    let why = match pending {
        Pending::Backfill(row) => {
            let why = job_state::description(store, row).await?;
            let why = why.unwrap_or_else(|| "has not finished its initial backfill".to_owned());
            why + &scanned(record.as_ref(), row)
        }
        Pending::NoSlot => no_slot(record.as_ref(), target),
        Pending::SlotIsLost(slot) => format!(
            "has to begin again, because the server has removed WAL that the replication slot {} needs: a daemon \
             replaces the slot and scans the table",
            slot.name
        ),
        Pending::Behind(slot) => behind(slot, end),
    };
    Ok(match cause(remarks) {
        Some(cause) => format!("{why}; {cause}"),
        None => why,
    })
}

/// What the row says of the reason.
pub fn cause(remarks: &JobRemarks) -> Option<String> {
    let text = |text: &Option<String>| {
        let text = text.as_deref()?.trim().trim_end_matches(['.', ';']);
        (!text.is_empty()).then(|| text.to_owned())
    };
    let waits_for = text(&remarks.waits_for).map(|what| format!("it waits for: {what}"));
    let last_error = text(&remarks.last_error).map(|why| format!("it is interrupted: {why}"));
    let causes: Vec<String> = [waits_for, last_error].into_iter().flatten().collect();
    (!causes.is_empty()).then(|| causes.join("; "))
}

/// How far its scan is, after a description of it.
fn scanned(record: Option<&JobRecord>, row: &JobRow) -> String {
    let Some(scan) = record.and_then(|record| record.scan) else {
        return String::new();
    };
    let (one, many) = row.definition.unit();
    let total = plural(scan.rows_total, one, many);
    format!("; {} of {total} done", count(Some(scan.rows_done)))
}

fn no_slot(record: Option<&JobRecord>, target: Option<&Session>) -> String {
    let place = target.map_or_else(String::new, |target| format!(" in {}", target.server()));
    match record.and_then(|record| record.slot.as_ref()) {
        Some(slot) => format!(
            "has no replication slot at the moment{place}; its daemon has recorded the slot {}: if --target names another \
             server or database than that of the job, correct it; otherwise the slot was dropped, and a daemon creates \
             it when it starts the job",
            slot.name
        ),
        None => format!(
            "has no replication slot at the moment{place}: a daemon creates it when it starts the job, in the database \
             of the job, which --target must name too; see its log, and last_error of the job"
        ),
    }
}

fn behind(slot: &JobSlot, end: Option<CommittedEnd>) -> String {
    let confirmed = slot.confirmed.unwrap_or_default();
    let end = end.map(CommittedEnd::position).unwrap_or_default();
    let left = Size(end.bytes_since(confirmed));
    let who = match slot.is_read {
        true => "its daemon works it off",
        false => "no daemon reads it: start one, or see its log",
    };
    format!(
        "has not embedded everything up to {end}: the replication slot {} is at {confirmed}, {left} before that, and {who}",
        slot.name
    )
}
