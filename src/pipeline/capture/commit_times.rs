//! When the transactions with unfinished rows were committed: the oldest of these times says how old the oldest change
//! without a vector is.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::replication::Lsn;

/// Transactions that were committed within this time share an entry, so that an hour of lag takes 36,000 of them.
const RESOLUTION: Duration = Duration::from_millis(100);

/// The commit times of transactions that are not finished yet.
#[derive(Debug, Default)]
pub(super) struct CommitTimes {
    /// The oldest first.
    entries: VecDeque<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The end of the last transaction of this entry.
    end: Lsn,
    /// The commit time of the first.
    committed: SystemTime,
}

impl CommitTimes {
    /// A transaction with unfinished rows, whose commit ends at `end`.
    pub fn note(&mut self, end: Lsn, committed: SystemTime) {
        match self.entries.back_mut() {
            Some(last) if committed < last.committed + RESOLUTION => last.end = end,
            _ => self.entries.push_back(Entry { end, committed }),
        }
    }

    /// Everything up to `position` is finished.
    pub fn finish(&mut self, position: Lsn) {
        while self
            .entries
            .front()
            .is_some_and(|first| first.end <= position)
        {
            self.entries.pop_front();
        }
    }

    /// The stream restarts: what was not finished comes again.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The commit time of the oldest unfinished transaction, or that of one at most 100 ms before it.
    pub fn oldest(&self) -> Option<SystemTime> {
        self.entries.front().map(|first| first.committed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn the_oldest_time_is_that_of_the_first_unfinished_transaction() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let mut times = CommitTimes::default();
        for (end, millis) in [(10, 0), (20, 50), (30, 120), (40, 130), (50, 900)] {
            times.note(Lsn(end), at(millis));
        }
        let mut oldest = |position| {
            times.finish(Lsn(position));
            times.oldest()
        };
        assert_eq!(oldest(10), Some(at(0)), "within 100 ms of the second one");
        assert_eq!(oldest(20), Some(at(120)));
        assert_eq!(oldest(40), Some(at(900)));
        assert_eq!(oldest(50), None);
    }

    #[test]
    fn a_clock_that_is_set_back_loses_no_transaction() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let mut times = CommitTimes::default();
        times.note(Lsn(10), at(1000));
        times.note(Lsn(20), at(10));
        times.finish(Lsn(10));
        assert_eq!(times.oldest(), Some(at(1000)));
        times.finish(Lsn(20));
        assert_eq!(times.oldest(), None);
    }
}
