//! What all requests share.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::page::Page;
use super::rendered::Rendered;
use super::token::Token;
use crate::status::StatusBoard;

/// What all requests share.
pub(super) struct Shared {
    pub board: StatusBoard,
    /// The daemon is told to stop.
    pub stop: CancellationToken,
    pub token: Option<Token>,
    /// Only programs on this machine can reach the server.
    pub is_local: bool,
    pub started: Instant,
    pub page: Page,
    pub metrics: Rendered,
    pub status: Rendered,
}
