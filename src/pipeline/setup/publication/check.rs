//! Whether a publication serves a job, and which columns one of ours must list.
//!
//! Column lists came with PostgreSQL 15. A list must cover the replica identity, or every UPDATE of the table fails;
//! with REPLICA IDENTITY FULL that is the whole row, so there may be none (PostgreSQL manual, "Column Lists";
//! `pub_collist_contains_invalid_column` in `publicationcmds.c`).

use crate::pipeline::setup::publication::catalog::{COLUMN_LISTS_SINCE, Publication};
use crate::pipeline::table::target::TargetTable;
use crate::postgres::Session;

/// Why a publication does not publish what the job needs, as the rest of a sentence.
pub fn find_mismatch(publication: &Publication, target: &TargetTable) -> Option<String> {
    if !publication.has_table {
        return Some(format!("does not contain {}", target.qualified()));
    }
    if !(publication.inserts && publication.updates) {
        return Some("does not publish both insert and update".into());
    }
    if publication.filtered {
        return Some("has a row filter, which hides rows from the job".into());
    }
    if target.partitioned && !publication.via_root {
        return Some("lacks publish_via_partition_root = true".into());
    }
    let columns = publication.columns.as_ref()?;
    if target.identity_full {
        return Some("has a column list, which REPLICA IDENTITY FULL does not allow".into());
    }
    let missing: Vec<String> = target
        .required_columns()
        .into_iter()
        .filter(|column| !columns.contains(column))
        .collect();
    (!missing.is_empty()).then(|| format!("does not publish the column {}", missing.join(", ")))
}

/// The columns that a publication of ours lists for the table; `None` where it must publish all of them.
pub fn listed_columns(session: &Session, target: &TargetTable) -> Option<Vec<String>> {
    let may_list = session.version() >= COLUMN_LISTS_SINCE && !target.identity_full;
    may_list.then(|| target.published_columns())
}
