//! Work that is under way: readings and write-backs of the session, and threads that cut.

use tokio::time::Instant;

use crate::pipeline::chunks::found::Found;
use crate::pipeline::chunks::orphans::OrphanPage;
use crate::pipeline::chunks::plan::Plan;
use crate::pipeline::chunks::write::{DocumentOutcome, DocumentWrite};
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::Key;

/// Documents that the first reading asks for.
const FIRST_READ_ROWS: usize = 64;

/// What has been done.
pub enum Work {
    /// Documents were read.
    Read(Vec<Key>, Result<Vec<Found>, JobError>),
    /// Documents were cut.
    Cut(Vec<(Key, Plan)>),
    /// A batch was written.
    Wrote(Written),
    /// A sweep has read a page.
    Swept(Result<OrphanPage, JobError>),
}

/// A write-back that has ended.
pub struct Written {
    /// What was to be written.
    pub batch: Vec<DocumentWrite>,
    /// What became of it.
    pub outcomes: Result<Vec<DocumentOutcome>, tokio_postgres::Error>,
    /// Its size, in bytes.
    pub bytes: usize,
    /// When it began.
    pub began: Instant,
}

/// How much work is under way.
#[derive(Debug)]
pub(super) struct Load {
    /// Whether documents are being read.
    pub is_reading: bool,
    /// Documents that one reading asks for.
    pub read_rows: usize,
    /// Threads that cut.
    pub cutting: usize,
    /// Write-backs.
    pub writing: usize,
}

impl Default for Load {
    fn default() -> Self {
        Load {
            is_reading: false,
            read_rows: FIRST_READ_ROWS,
            cutting: 0,
            writing: 0,
        }
    }
}
