//! Whether a publication serves a job.

use crate::pipeline::setup::publication::catalog::Publication;
use crate::pipeline::table::target::TargetTable;

/// Why a publication does not publish what the job needs, as the rest of a sentence.
pub fn misfit(publication: &Publication, target: &TargetTable) -> Option<String> {
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
