//! What a TRUNCATE of the source leaves to do: the passages of all rows that are gone.
//!
//! The keys of such passages are read page by page, and each is then a document like any other: its row is read, found
//! gone, and its passages are deleted. The change is finished when all of them are.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::pause_after;
use crate::pipeline::chunks::orphans::OrphanPage;
use crate::pipeline::table::row::{Key, Row};

/// The next page is read while fewer keys than this are unfinished.
const MAX_UNFINISHED: usize = 2048;
/// The pauses before it is asked again whether the TRUNCATE is visible.
const MIN_BACKOFF: Duration = Duration::from_millis(2);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The sweeps of one job, which follow each other.
#[derive(Default)]
pub struct Sweeps {
    waiting: VecDeque<Row>,
    current: Option<Sweep>,
}

struct Sweep {
    /// The change that asked for it.
    row: Row,
    /// The last key of the page before.
    after: Option<Key>,
    is_reading: bool,
    is_at_end: bool,
    /// Keys that were found and are not finished.
    unfinished: HashSet<Key>,
    retries: u32,
    /// When the next page may be read.
    due: Instant,
}

/// The page that a sweep reads next.
pub struct NextPage {
    /// The last key of the page before.
    pub after: Option<Key>,
    /// The transaction of the change.
    pub xid: i64,
}

impl Sweeps {
    /// Takes in a change that removed all rows.
    pub fn push(&mut self, row: Row) {
        self.waiting.push_back(row);
        self.begin();
    }

    fn begin(&mut self) {
        if self.current.is_some() {
            return;
        }
        self.current = self.waiting.pop_front().map(|row| Sweep {
            row,
            after: None,
            is_reading: false,
            is_at_end: false,
            unfinished: HashSet::new(),
            retries: 0,
            due: Instant::now(),
        });
    }

    /// The page to read now, if any.
    pub fn next_page(&mut self) -> Option<NextPage> {
        let sweep = self.current.as_mut()?;
        let is_idle = !sweep.is_reading && !sweep.is_at_end;
        if !is_idle || sweep.unfinished.len() >= MAX_UNFINISHED || sweep.due > Instant::now() {
            return None;
        }
        sweep.is_reading = true;
        Some(NextPage {
            after: sweep.after.clone(),
            xid: sweep.row.xid.map_or(0, i64::from),
        })
    }

    /// Takes a page. Returns the keys that are to be looked at.
    pub fn note_page(&mut self, page: OrphanPage) -> Vec<Key> {
        let Some(sweep) = self.current.as_mut() else {
            return Vec::new();
        };
        sweep.is_reading = false;
        if !page.is_visible {
            sweep.due = Instant::now() + pause_after(sweep.retries, MIN_BACKOFF, MAX_BACKOFF);
            sweep.retries += 1;
            return Vec::new();
        }
        sweep.is_at_end = page.last.is_none();
        sweep.after = page.last;
        sweep.unfinished.extend(page.orphans.iter().cloned());
        page.orphans
    }

    /// A document is finished.
    pub fn note_finished(&mut self, key: &Key) {
        if let Some(sweep) = &mut self.current {
            sweep.unfinished.remove(key);
        }
    }

    /// The change of a sweep that has ended. Another one begins.
    pub fn pop_ended(&mut self) -> Option<Row> {
        let ended = self
            .current
            .take_if(|sweep| sweep.is_at_end && sweep.unfinished.is_empty())?;
        self.begin();
        Some(ended.row)
    }

    /// Waits until a page can be asked for again, for ever where nothing is paused. Cancellation safe.
    pub async fn until_due(&self) {
        match &self.current {
            Some(sweep) if !sweep.is_reading && sweep.due > Instant::now() => {
                tokio::time::sleep_until(sweep.due).await;
            }
            _ => std::future::pending().await,
        }
    }
}
