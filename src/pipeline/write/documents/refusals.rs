//! Why documents are quarantined, as a person reads it in the failures table.

use uuid::Uuid;

use crate::byte_size::Size;
use crate::embedding::EmbeddingError;
use crate::pipeline::chunks::plan::Plan;

/// Why a document is quarantined that has more bytes than the job cuts.
pub fn too_large(size: usize, limit: usize) -> String {
    let shown = |bytes: usize| Size(bytes as u64);
    format!(
        "the text has {size} bytes ({}), more than max_document_bytes ({}); divide it into several rows, or set \
         max_document_bytes in runtime_params to {size} or more and then run lantern-cli retry-failed",
        shown(size),
        shown(limit)
    )
}

/// Why a document is quarantined of which the model cannot embed a passage.
pub fn unusable_passage(plan: &Plan, fingerprint: Uuid, error: &EmbeddingError) -> String {
    let mut changes = plan.changes.iter();
    let change = changes.find(|change| change.passage.fingerprint == fingerprint);
    match change {
        Some(change) => format!(
            "passage {} (characters {} to {}): {error}",
            change.seq, change.passage.span.0, change.passage.span.1
        ),
        None => error.to_string(),
    }
}

/// Why a document is quarantined of which a trigger has canceled the change of a passage.
pub fn cancellation(table: &str) -> String {
    format!(
        "a trigger of {table} canceled the change of a passage, that is, returned NULL; let it pass INSERT, UPDATE and \
         DELETE, or set skip_triggers = true in the jobs table"
    )
}

/// Why a row is quarantined whose write-backs fire triggers that cause the next one.
pub fn endless_cascade(table: &str, depth: u8) -> String {
    format!(
        "each write-back fires triggers of {table} that change the document again, {depth} times in a row; let them leave \
         the texts alone, or set skip_triggers = true in the jobs table"
    )
}
