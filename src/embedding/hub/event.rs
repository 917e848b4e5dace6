//! What a download tells of itself while it runs.

use std::time::Duration;

/// Says how a download goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownloadEvent {
    /// So many bytes are missing in all.
    Missing(u64),
    /// So many of them have arrived, or were there from an earlier attempt.
    Received(u64),
    /// So many bytes are received again, because the server does not continue a file.
    Restarted(u64),
    /// Something failed, and is tried again after a pause.
    Waiting {
        /// What failed, as a sentence.
        reason: String,
        /// How long the pause is.
        pause: Duration,
    },
}
