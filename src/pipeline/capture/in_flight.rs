//! How many rows of a stream are on their way, and how many may be.
//!
//! This is the bound on memory: beyond it the reader stops reading, the kernel's buffers fill, and TCP stops the walsender.
//! Status updates go on meanwhile, so a slow engine never trips `wal_sender_timeout`.

/// Rows of one stream that may be on their way at a time.
pub const MAX_LIVE_ROWS: usize = 4096;
/// Memory that the rows of one stream may take at a time, in bytes.
pub const MAX_LIVE_BYTES: usize = 32 << 20;

/// Rows that were sent and whose receipts have not come back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct InFlight {
    pub rows: usize,
    /// As the rows' receipts count them.
    pub bytes: usize,
}

impl InFlight {
    pub(super) fn add(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
    }

    pub(super) fn settle(&mut self, bytes: usize) {
        self.rows -= 1;
        self.bytes -= bytes;
    }

    /// Writes off the rows of a subscriber that has left.
    pub(super) fn write_off(&mut self, other: InFlight) {
        self.rows -= other.rows;
        self.bytes -= other.bytes;
    }

    pub(super) fn has_room(&self) -> bool {
        self.rows < MAX_LIVE_ROWS && self.bytes < MAX_LIVE_BYTES
    }
}
