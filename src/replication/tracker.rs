//! Up to which position the WAL is processed.
//!
//! Transactions arrive in commit order. Their rows are finished in any order, by many tasks. A position may be
//! confirmed only when every row before it is finished, because the server then never sends that part of the WAL again.
//! It sends transactions whole, so only the end of a committed transaction can be confirmed, or the position of a
//! keepalive that came after it.
//!
//! ```text
//! transactions, oldest first    rows outstanding    end        confirmed()
//!   A                           0 (retired)         0/10       0/10
//!   B                           2                   0/20
//!   C                           0 (retired into B)  0/30       0/30 when both rows of B are finished
//!   D                           1                   0/40
//! ```
//!
//! Only transactions with outstanding rows take memory. A finished one that waits for an older one passes its end to
//! its older neighbor: "when you are finished, so is everything up to here".

use super::lsn::Lsn;

/// Identifies a transaction of an [`LsnTracker`]. A ticket may outlive its transaction: it then has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    place: u32,
    sequence: u64,
}

/// Counts the unfinished rows of each transaction and says which position may be confirmed.
///
/// Every operation takes constant time, whatever the number of transactions and rows. Memory is that of the
/// transactions with outstanding rows. A transaction of a million rows is one counter.
///
/// ```
/// use lantern::replication::{Lsn, LsnTracker};
///
/// let mut tracker = LsnTracker::new(Lsn(5));
/// let first = tracker.begin();
/// tracker.row(first);
/// tracker.commit(Lsn(10));
/// let second = tracker.begin();
/// tracker.row(second);
/// tracker.commit(Lsn(20));
///
/// tracker.finish(second); // out of order
/// assert_eq!(tracker.confirmed(), Lsn(5));
/// tracker.finish(first);
/// assert_eq!(tracker.confirmed(), Lsn(20));
/// ```
#[derive(Debug)]
pub struct LsnTracker {
    confirmed: Lsn,
    outstanding_rows: u64,
    /// Counts transactions and is never reset, so that no two tickets of one tracker are equal.
    next_sequence: u64,
    /// The transaction between its Begin and its Commit. It is always the newest.
    open: Option<Ticket>,
    /// The unfinished transactions, linked by age. Places are reused.
    places: Vec<Transaction>,
    vacant: Vec<u32>,
    oldest: Option<u32>,
    newest: Option<u32>,
}

#[derive(Debug)]
struct Transaction {
    sequence: u64,
    outstanding: u64,
    /// The position that can be confirmed when this transaction and all older ones are finished: its own end, or that
    /// of finished ones right after it.
    end: Lsn,
    is_open: bool,
    older: Option<u32>,
    newer: Option<u32>,
}

impl LsnTracker {
    /// A tracker for a stream that starts at `start`, the slot's confirmed position.
    pub fn new(start: Lsn) -> LsnTracker {
        LsnTracker {
            confirmed: start,
            outstanding_rows: 0,
            next_sequence: 0,
            open: None,
            places: Vec::new(),
            vacant: Vec::new(),
            oldest: None,
            newest: None,
        }
    }

    /// Forgets every transaction, for a new connection whose stream starts at `start`.
    ///
    /// The server sends again what was not confirmed. Earlier tickets have no effect from now on.
    pub fn reset(&mut self, start: Lsn) {
        let next_sequence = self.next_sequence;
        *self = LsnTracker {
            next_sequence,
            ..LsnTracker::new(start)
        };
    }

    /// A transaction begins.
    ///
    /// If the previous one had no commit, which the protocol rules out, nothing from there on is confirmed until
    /// [`reset`](Self::reset).
    pub fn begin(&mut self) -> Ticket {
        let ticket = self.occupy();
        self.open = Some(ticket);
        ticket
    }

    /// One more row of the transaction is now outstanding.
    pub fn row(&mut self, ticket: Ticket) {
        self.add(ticket, 1);
    }

    /// `rows` more rows of the transaction are now outstanding. No effect once it is committed and finished.
    pub fn add(&mut self, ticket: Ticket, rows: u64) {
        if let Some(transaction) = self.transaction(ticket) {
            transaction.outstanding += rows;
            self.outstanding_rows += rows;
        }
    }

    /// The open transaction is complete. `end_lsn` is the position after its commit record (`end_lsn` of the Commit
    /// message, not `commit_lsn`).
    pub fn commit(&mut self, end_lsn: Lsn) {
        let Some(ticket) = self.open.take() else {
            return;
        };
        let Some(transaction) = self.transaction(ticket) else {
            return;
        };
        transaction.is_open = false;
        transaction.end = end_lsn;
        if transaction.outstanding == 0 {
            self.retire(ticket.place);
        }
    }

    /// One row of the transaction is finished: it need never be sent again.
    pub fn finish(&mut self, ticket: Ticket) {
        let Some(transaction) = self.transaction(ticket) else {
            return;
        };
        if transaction.outstanding == 0 {
            return;
        }
        transaction.outstanding -= 1;
        let is_finished = transaction.outstanding == 0 && !transaction.is_open;
        self.outstanding_rows -= 1;
        if is_finished {
            self.retire(ticket.place);
        }
    }

    /// The server has sent everything up to `wal_end`.
    ///
    /// This releases the WAL of a busy database while the published tables are quiet. The position is confirmed when
    /// all transactions before it are finished, so at once on an idle tracker. Between Begin and Commit it is ignored.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        if self.open.is_some() {
            return;
        }
        match self.newest {
            Some(place) => self.finished_up_to(place, wal_end),
            None => self.confirmed = self.confirmed.max(wal_end),
        }
    }

    /// The position to confirm to the server. Never goes back, except by [`reset`](Self::reset).
    pub fn confirmed(&self) -> Lsn {
        self.confirmed
    }

    /// Whether nothing is outstanding and no transaction is open.
    pub fn is_idle(&self) -> bool {
        self.oldest.is_none()
    }

    /// Rows that are not finished.
    pub fn outstanding_rows(&self) -> u64 {
        self.outstanding_rows
    }

    fn transaction(&mut self, ticket: Ticket) -> Option<&mut Transaction> {
        self.places
            .get_mut(ticket.place as usize)
            .filter(|transaction| transaction.sequence == ticket.sequence)
    }

    fn finished_up_to(&mut self, place: u32, end: Lsn) {
        let transaction = &mut self.places[place as usize];
        transaction.end = transaction.end.max(end);
    }

    /// Adds a transaction as the newest.
    fn occupy(&mut self) -> Ticket {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let transaction = Transaction {
            sequence,
            outstanding: 0,
            end: Lsn::ZERO,
            is_open: true,
            older: self.newest,
            newer: None,
        };
        let place = match self.vacant.pop() {
            Some(place) => {
                self.places[place as usize] = transaction;
                place
            }
            None => {
                self.places.push(transaction);
                u32::try_from(self.places.len() - 1)
                    .expect("memory ends before four billion unfinished transactions")
            }
        };
        match self.newest.replace(place) {
            Some(older) => self.places[older as usize].newer = Some(place),
            None => self.oldest = Some(place),
        }
        Ticket { place, sequence }
    }

    /// Removes a finished transaction from the list. Its end counts when the older ones are finished too.
    fn retire(&mut self, place: u32) {
        let finished = &mut self.places[place as usize];
        let (end, older, newer) = (finished.end, finished.older, finished.newer);
        finished.sequence = u64::MAX;
        match older {
            Some(older) => {
                self.places[older as usize].newer = newer;
                self.finished_up_to(older, end);
            }
            None => {
                self.oldest = newer;
                self.confirmed = self.confirmed.max(end);
            }
        }
        match newer {
            Some(newer) => self.places[newer as usize].older = older,
            None => self.newest = older,
        }
        self.vacant.push(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(tracker: &mut LsnTracker, rows: u64, end: u64) -> Ticket {
        let ticket = tracker.begin();
        tracker.add(ticket, rows);
        tracker.commit(Lsn(end));
        ticket
    }

    #[test]
    fn rows_finished_out_of_order_hold_back_the_confirmation() {
        let mut tracker = LsnTracker::new(Lsn(5));
        let first = transaction(&mut tracker, 2, 10);
        let second = transaction(&mut tracker, 1, 20);
        tracker.finish(second);
        tracker.finish(first);
        assert_eq!(
            (tracker.confirmed(), tracker.outstanding_rows()),
            (Lsn(5), 1)
        );
        tracker.finish(first);
        assert_eq!(tracker.confirmed(), Lsn(20));
        assert!(tracker.is_idle());
    }

    #[test]
    fn an_open_transaction_is_never_confirmed_even_with_all_its_rows_finished() {
        let mut tracker = LsnTracker::new(Lsn::ZERO);
        let ticket = tracker.begin();
        tracker.row(ticket);
        tracker.finish(ticket);
        tracker.keepalive(Lsn(50));
        assert_eq!(tracker.confirmed(), Lsn::ZERO);
        assert!(!tracker.is_idle());
        tracker.commit(Lsn(60));
        assert_eq!(tracker.confirmed(), Lsn(60));
    }

    #[test]
    fn transactions_without_rows_are_confirmed_at_once() {
        let mut tracker = LsnTracker::new(Lsn::ZERO);
        transaction(&mut tracker, 0, 10);
        assert_eq!(tracker.confirmed(), Lsn(10));
    }

    #[test]
    fn an_idle_tracker_confirms_keepalives_and_never_goes_back() {
        let mut tracker = LsnTracker::new(Lsn(100));
        tracker.keepalive(Lsn(500));
        tracker.keepalive(Lsn(400));
        assert_eq!(tracker.confirmed(), Lsn(500));
    }

    #[test]
    fn a_keepalive_after_unfinished_rows_counts_when_they_are_finished() {
        let mut tracker = LsnTracker::new(Lsn::ZERO);
        let ticket = transaction(&mut tracker, 1, 10);
        tracker.keepalive(Lsn(90));
        assert_eq!(tracker.confirmed(), Lsn::ZERO);
        tracker.finish(ticket);
        assert_eq!(tracker.confirmed(), Lsn(90));
    }

    #[test]
    fn finished_transactions_after_an_unfinished_one_take_no_memory() {
        let mut tracker = LsnTracker::new(Lsn::ZERO);
        let slow = transaction(&mut tracker, 1, 1);
        for end in 2..100_000 {
            let ticket = transaction(&mut tracker, 3, end);
            (0..3).for_each(|_| tracker.finish(ticket));
        }
        assert_eq!(tracker.places.len(), 2);
        assert_eq!(tracker.confirmed(), Lsn::ZERO);
        tracker.finish(slow);
        assert_eq!(tracker.confirmed(), Lsn(99_999));
    }

    #[test]
    fn tickets_of_an_earlier_connection_have_no_effect() {
        let mut tracker = LsnTracker::new(Lsn::ZERO);
        let stale = transaction(&mut tracker, 2, 10);
        tracker.reset(Lsn(3));
        assert_eq!(
            (tracker.confirmed(), tracker.outstanding_rows()),
            (Lsn(3), 0)
        );
        let fresh = transaction(&mut tracker, 1, 10);
        tracker.finish(stale);
        tracker.row(stale);
        assert_eq!(
            (tracker.confirmed(), tracker.outstanding_rows()),
            (Lsn(3), 1)
        );
        tracker.finish(fresh);
        assert_eq!(tracker.confirmed(), Lsn(10));
    }

    #[test]
    fn finishing_a_row_twice_changes_nothing() {
        let mut tracker = LsnTracker::new(Lsn::ZERO);
        let ticket = transaction(&mut tracker, 1, 10);
        let other = transaction(&mut tracker, 1, 20);
        tracker.finish(ticket);
        tracker.finish(ticket);
        assert_eq!(
            (tracker.confirmed(), tracker.outstanding_rows()),
            (Lsn(10), 1)
        );
        tracker.commit(Lsn(99));
        tracker.finish(other);
        assert_eq!(tracker.confirmed(), Lsn(20));
    }
}
