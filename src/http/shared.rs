//! What the requests of people and monitoring share.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::page::Page;
use super::rendered::Rendered;
use crate::status::StatusBoard;

/// What these requests share.
pub(super) struct Shared {
    pub board: StatusBoard,
    /// The daemon is told to stop.
    pub stop: CancellationToken,
    pub started: Instant,
    pub page: Page,
    pub metrics: Rendered,
    pub status: Rendered,
}
