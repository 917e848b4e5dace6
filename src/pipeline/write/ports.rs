//! The channels of the task that works on rows, and where it notes what becomes of them.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::pipeline::table::row::{BackfillAck, LiveAck, Row};
use crate::pipeline::write::quarantine::Quarantine;
use crate::pipeline::write::truncated_texts::TruncatedTexts;
use crate::status::JobCounters;

/// The channels that rows come from and receipts go back to.
pub struct Ports {
    /// The changes of the stream. The task ends when their sender is dropped.
    pub live: mpsc::Receiver<Row>,
    /// The rows of a scan.
    pub backfill: mpsc::Receiver<Row>,
    /// Takes the receipt of each live row when it is finished. Capacity: the most that can be outstanding.
    pub live_finished: mpsc::Sender<LiveAck>,
    /// Takes the receipt of each row of a scan when it is finished. Capacity: the most that can be outstanding.
    pub backfill_finished: mpsc::Sender<BackfillAck>,
}

/// Where the task notes what becomes of rows.
pub struct Sinks {
    /// Takes rows that cannot be embedded or written.
    pub quarantine: Quarantine,
    /// Is told of texts that were cut.
    pub truncated: TruncatedTexts,
    /// Counts the others.
    pub counters: Arc<JobCounters>,
}
