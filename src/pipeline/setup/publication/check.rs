//! Whether a publication serves a job, and which columns one of ours must list.
//!
//! Column lists came with PostgreSQL 15. A list must cover the replica identity, or every UPDATE of the table fails;
//! with REPLICA IDENTITY FULL that is the whole row, so there may be none (PostgreSQL manual, "Column Lists";
//! `pub_collist_contains_invalid_column` in `publicationcmds.c`).

use crate::pipeline::setup::publication::catalog::{COLUMN_LISTS_SINCE, Publication};
use crate::pipeline::table::target::TargetTable;
use crate::postgres::Session;

/// Why a job cannot stream, or go on streaming, from a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// As the rest of a sentence that begins with the publication.
    pub reason: String,
    /// While the table is published so, UPDATE of it fails for its users.
    pub harms_users: bool,
}

impl From<String> for Defect {
    /// A defect that harms the job alone.
    fn from(reason: String) -> Self {
        Defect {
            reason,
            harms_users: false,
        }
    }
}

/// Why a publication does not publish what the job needs, or harms the table's users.
pub fn find_mismatch(publication: &Publication, target: &TargetTable) -> Option<Defect> {
    if publication.has_table && target.identity_full && !publication.unpublished.is_empty() {
        return Some(Defect {
            reason: format!(
                "does not publish the generated column {}, and under REPLICA IDENTITY FULL that makes every UPDATE of {} fail",
                publication.unpublished.join(", "),
                target.qualified()
            ),
            harms_users: true,
        });
    }
    find_omission(publication, target).map(Defect::from)
}

/// What of the job's needs a publication does not publish, as the rest of a sentence.
fn find_omission(publication: &Publication, target: &TargetTable) -> Option<String> {
    if !publication.has_table {
        return Some(format!("does not contain {}", target.qualified()));
    }
    if !(publication.inserts && publication.updates) {
        return Some("does not publish both insert and update".into());
    }
    if target.passages.is_some() && !(publication.deletes && publication.truncates) {
        return Some(
            "does not publish both delete and truncate, which a job with a chunk_table needs"
                .into(),
        );
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
