//! The change filter: from the messages of a stream to the rows that need work.
//!
//! It knows the open transaction, reads the marker of our own write-backs, and counts in the [`LsnTracker`] every row that it lets
//! through. What a change means for a subscriber is decided in [`table_changes`](super::table_changes); who subscribes is
//! known to [`Subscribers`]. No I/O: bytes in, rows out.

use std::time::SystemTime;

use super::commit_times::CommitTimes;
use super::subscribers::Subscribers;
use super::table_changes::{Delivery, OpenTransaction, RowUpdate, TableChanges};
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{LiveAck, Row, SubscriberId};
use crate::pipeline::table::write_back_marker::{Marker, WRITE_BACK_MARKER};
use crate::replication::pgoutput::{self, Message, RelationId};
use crate::replication::{Lsn, LsnTracker};

/// Reads a stream message by message.
pub(super) struct ChangeFilter {
    tracker: LsnTracker,
    /// An earlier connection may have worked on what committed before this position.
    replayed_until: Lsn,
    transaction: Option<OpenTransaction>,
    commit_times: CommitTimes,
}

impl ChangeFilter {
    /// For a stream that starts at `start`. Up to `replayed_until`, where the WAL ends now, it may repeat what an earlier
    /// connection has worked on.
    pub(super) fn new(start: Lsn, replayed_until: Lsn) -> Self {
        ChangeFilter {
            tracker: LsnTracker::new(start),
            replayed_until,
            transaction: None,
            commit_times: CommitTimes::default(),
        }
    }

    /// The stream restarts at `start`. Receipts of rows that were counted before have no effect from now on.
    pub(super) fn restart(&mut self, start: Lsn, replayed_until: Lsn) {
        self.tracker.reset(start);
        self.replayed_until = replayed_until;
        self.transaction = None;
        self.commit_times.clear();
    }

    /// Reads one message. What it means for subscribers is appended to `deliveries`; each row in it is outstanding from now
    /// on.
    ///
    /// # Errors
    /// When the message cannot be decoded.
    pub(super) fn read(
        &mut self,
        payload: &[u8],
        subscribers: &mut Subscribers,
        deliveries: &mut Vec<Delivery>,
    ) -> Result<(), JobError> {
        match pgoutput::decode(payload)? {
            Message::Begin { xid, final_lsn, .. } => self.begin(xid, final_lsn),
            Message::Commit {
                end_lsn,
                commit_time,
                ..
            } => {
                self.transaction = None;
                self.tracker.commit(end_lsn);
                if self.tracker.confirmed() < end_lsn
                    && let Some(committed) = commit_time.to_system_time()
                {
                    self.commit_times.note(end_lsn, committed);
                }
            }
            Message::LogicalMessage {
                transactional: true,
                prefix: WRITE_BACK_MARKER,
                content,
                ..
            } => {
                if let (Some(transaction), Some(marker)) =
                    (&mut self.transaction, Marker::new(content))
                {
                    transaction.marker = Some(marker);
                }
            }
            Message::Relation(body) => subscribers.announced_table(body.id).announce(
                &body,
                payload,
                self.transaction.as_ref(),
                &mut self.tracker,
                deliveries,
            ),
            Message::Insert { relation, new } => {
                self.change(
                    relation,
                    subscribers,
                    deliveries,
                    |changes, transaction, id| changes.insert(transaction, id, &new),
                );
            }
            Message::Update {
                relation,
                key,
                old,
                new,
            } => {
                let update = RowUpdate {
                    old: key.or(old),
                    old_is_whole: old.is_some(),
                    new,
                };
                if update.old.is_some() {
                    self.change(
                        relation,
                        subscribers,
                        deliveries,
                        |changes, transaction, id| changes.leave_key(transaction, id, update),
                    );
                }
                self.change(
                    relation,
                    subscribers,
                    deliveries,
                    |changes, transaction, id| changes.update(transaction, id, update),
                );
            }
            // Of most jobs not published: a deleted row needs no vector, and work on it misses its guard.
            Message::Delete { relation, key, old } => {
                if let Some(old) = key.or(old) {
                    self.change(
                        relation,
                        subscribers,
                        deliveries,
                        |changes, transaction, id| changes.delete(transaction, id, &old),
                    );
                }
            }
            Message::Truncate { relations, .. } => {
                for relation in relations.iter() {
                    self.change(
                        relation,
                        subscribers,
                        deliveries,
                        |changes, transaction, id| changes.truncate(transaction, id),
                    );
                }
            }
            // Not published, or without a meaning for us.
            Message::LogicalMessage { .. } | Message::Origin { .. } | Message::Type { .. } => {}
        }
        Ok(())
    }

    fn begin(&mut self, xid: u32, final_lsn: Lsn) {
        self.transaction = Some(OpenTransaction {
            ticket: self.tracker.begin(),
            xid,
            commit: final_lsn,
            marker: None,
            is_replayed: final_lsn < self.replayed_until,
        });
    }

    /// A change of one row, which each subscriber of its table reads in its own way.
    fn change(
        &mut self,
        relation: RelationId,
        subscribers: &mut Subscribers,
        deliveries: &mut Vec<Delivery>,
        read: impl Fn(
            &mut TableChanges,
            &OpenTransaction,
            SubscriberId,
        ) -> Result<Option<Row>, JobError>,
    ) {
        if let Some(transaction) = &self.transaction
            && let Some(table) = subscribers.table(relation)
        {
            table.change(transaction, &mut self.tracker, deliveries, |changes, id| {
                read(changes, transaction, id)
            });
        }
    }

    /// A row is finished.
    ///
    /// The receipt of a row whose subscriber has left comes too late: the row counts as missed. It holds the confirmed
    /// position until the stream restarts, because the changes after it pass uncounted while the member is absent.
    pub(super) fn finish(&mut self, ack: &LiveAck, subscribers: &mut Subscribers) {
        if subscribers.settle(ack) {
            self.tracker.finish(ack.ticket);
        }
    }

    /// The server has sent everything up to `wal_end`.
    pub(super) fn keepalive(&mut self, wal_end: Lsn) {
        self.tracker.keepalive(wal_end);
    }

    /// The position up to which every row is finished.
    pub(super) fn confirmed(&self) -> Lsn {
        self.tracker.confirmed()
    }

    /// When the oldest transaction with unfinished rows was committed, by the server's clock.
    pub(super) fn oldest_commit(&mut self) -> Option<SystemTime> {
        self.commit_times.finish(self.tracker.confirmed());
        self.commit_times.oldest()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{mpsc, oneshot};
    use tokio_util::sync::CancellationToken;

    use super::super::in_flight::MAX_LIVE_ROWS;
    use super::super::join::Link;
    use super::*;
    use crate::pipeline::slot::names::MemberId;
    use crate::pipeline::table::row::{Ack, Key, SourceText};
    use crate::pipeline::table::target::TargetTable;

    const TABLE: RelationId = RelationId(9);
    const START: Lsn = Lsn(0x10);
    const RELATION: &[u8] =
        b"R\0\0\0\x09public\0docs\0d\0\x02\x01id\0\0\0\0\x14\xFF\xFF\xFF\xFF\0body\0\0\0\0\x19\xFF\xFF\xFF\xFF";
    const INSERT: &[u8] = b"I\0\0\0\x09N\0\x02t\0\0\0\x011t\0\0\0\x04text";

    /// A stream of inserts into one table, and its subscribers.
    struct Stream {
        filter: ChangeFilter,
        subscribers: Subscribers,
    }

    /// The job's ends of a subscription.
    struct Job {
        id: SubscriberId,
        rows: mpsc::Receiver<Row>,
        _ended: oneshot::Receiver<Result<(), JobError>>,
    }

    impl Stream {
        fn new() -> Self {
            Stream {
                filter: ChangeFilter::new(START, START),
                subscribers: Subscribers::default(),
            }
        }

        /// Subscribes. The bool says whether the stream has to restart for it.
        fn join(&mut self, member: &str) -> (Job, bool) {
            self.join_table(member, TABLE)
        }

        fn join_table(&mut self, member: &str, table: RelationId) -> (Job, bool) {
            self.join_with(member, table, TargetTable::example())
        }

        fn join_with(
            &mut self,
            member: &str,
            table: RelationId,
            target: TargetTable,
        ) -> (Job, bool) {
            let (row_sender, rows) = mpsc::channel(MAX_LIVE_ROWS);
            let (ended_sender, ended) = oneshot::channel();
            let link = Link {
                rows: row_sender,
                ended: ended_sender,
                stop: CancellationToken::new(),
                left: CancellationToken::new(),
            };
            let changes = TableChanges::new(Arc::new(target), Some(START));
            let member = MemberId::from_record(member);
            let joined = self.subscribers.join(member, table, changes, link);
            let (id, missed) = joined.expect("the table's layout is known to be right");
            let job = Job {
                id,
                rows,
                _ended: ended,
            };
            (job, missed)
        }

        /// Reads a transaction with one insert, whose commit ends at `end`, and sends its rows out.
        async fn insert(&mut self, end: Lsn) {
            self.read(end, INSERT).await;
        }

        /// Reads a transaction with one change, likewise.
        async fn read(&mut self, end: Lsn, change: &[u8]) {
            let mut deliveries = Vec::new();
            for payload in [&begin(end)[..], RELATION, change, &commit(end)[..]] {
                let read = self
                    .filter
                    .read(payload, &mut self.subscribers, &mut deliveries);
                read.unwrap();
            }
            for (id, row) in deliveries {
                assert!(self.subscribers.send(id, row.unwrap()).await);
            }
        }

        fn finish(&mut self, row: &Row) {
            let Ack::Live(ack) = &row.ack else {
                panic!("a row of the stream")
            };
            self.filter.finish(ack, &mut self.subscribers);
        }
    }

    fn begin(end: Lsn) -> Vec<u8> {
        let commit = Lsn(end.0 - 1);
        [&b"B"[..], &commit.0.to_be_bytes(), &[0; 8], &[0, 0, 0, 7]].concat()
    }

    fn commit(end: Lsn) -> Vec<u8> {
        let commit = Lsn(end.0 - 1);
        [
            &b"C\0"[..],
            &commit.0.to_be_bytes(),
            &end.0.to_be_bytes(),
            &[0; 8],
        ]
        .concat()
    }

    #[tokio::test]
    async fn the_receipt_of_a_row_moves_the_confirmed_position() {
        let mut stream = Stream::new();
        let (mut job, missed) = stream.join("a");
        stream.insert(Lsn(0x20)).await;
        assert_eq!(stream.filter.confirmed(), START);
        let row = job.rows.recv().await.unwrap();
        stream.finish(&row);
        assert!(!missed);
        assert_eq!(stream.filter.confirmed(), Lsn(0x20));
    }

    /// Between its leaving and its next subscription, changes of the member's table pass without being counted one by one.
    #[tokio::test]
    async fn a_receipt_that_comes_after_its_subscriber_has_left_confirms_nothing() {
        let mut stream = Stream::new();
        let (mut job, _) = stream.join("a");
        stream.insert(Lsn(0x20)).await;
        let row = job.rows.recv().await.unwrap();
        let unfinished = stream.subscribers.leave(job.id, Ok(()));
        stream.insert(Lsn(0x30)).await;
        stream.finish(&row);
        let (mut rejoined, missed) = stream.join("a");
        stream.insert(Lsn(0x40)).await;
        let row = rejoined.rows.recv().await.unwrap();
        stream.finish(&row);
        assert_eq!(unfinished, 1);
        assert!(missed, "the stream restarts for what it has missed");
        assert_eq!(stream.filter.confirmed(), START);
    }

    #[tokio::test]
    async fn a_receipt_from_before_the_stream_was_opened_again_is_not_taken_for_another() {
        let mut stream = Stream::new();
        let (mut job, _) = stream.join("a");
        stream.insert(Lsn(0x20)).await;
        let late = job.rows.recv().await.unwrap();
        let mut stream = Stream::new();
        let (mut job, _) = stream.join("a");
        stream.insert(Lsn(0x20)).await;
        stream.finish(&late);
        assert_eq!(stream.filter.confirmed(), START);
        let row = job.rows.recv().await.unwrap();
        stream.finish(&row);
        assert_eq!(stream.filter.confirmed(), Lsn(0x20));
    }

    const DELETE: &[u8] = b"D\0\0\0\x09K\0\x02t\0\0\0\x011n";
    const OTHER_KEY: &[u8] = b"U\0\0\0\x09K\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x012t\0\0\0\x04text";
    const TRUNCATE: &[u8] = b"T\0\0\0\x01\0\0\0\0\x09";

    /// The keys and texts of the rows that one change means.
    async fn rows_of(stream: &mut Stream, job: &mut Job, end: Lsn, change: &[u8]) -> Vec<Row> {
        stream.read(end, change).await;
        let mut rows = Vec::new();
        while let Ok(row) = job.rows.try_recv() {
            assert_ne!(stream.filter.confirmed(), end, "each row is counted");
            stream.finish(&row);
            rows.push(row);
        }
        assert_eq!(stream.filter.confirmed(), end);
        rows
    }

    #[tokio::test]
    async fn a_job_with_passages_hears_of_rows_that_are_gone_and_others_do_not() {
        let key = |part: &str| Key::new([part.into()]);
        for (change, expected) in [
            (DELETE, vec![(key("1"), SourceText::Unread)]),
            (
                OTHER_KEY,
                vec![
                    (key("1"), SourceText::Unread),
                    (key("2"), SourceText::Unread),
                ],
            ),
            (TRUNCATE, vec![(Key::of_all_rows(), SourceText::Truncated)]),
            (INSERT, vec![(key("1"), SourceText::Unread)]),
        ] {
            let mut stream = Stream::new();
            let (mut job, _) = stream.join_with("a", TABLE, TargetTable::example_with_passages());
            let rows = rows_of(&mut stream, &mut job, Lsn(0x20), change).await;
            assert!(rows.iter().all(|row| row.moved_from.is_none()));
            let found: Vec<(Key, SourceText)> =
                rows.into_iter().map(|row| (row.key, row.source)).collect();
            assert_eq!(found, expected);
        }
        for change in [DELETE, TRUNCATE] {
            let mut stream = Stream::new();
            let (mut job, _) = stream.join("a");
            let rows = rows_of(&mut stream, &mut job, Lsn(0x20), change).await;
            assert_eq!(rows.len(), 0);
        }
    }

    /// A restart voids the tickets of the rows in flight, so they do not hold the position for a member that leaves then.
    #[tokio::test]
    async fn a_change_is_held_for_a_member_that_leaves_right_after_a_restart() {
        let mut stream = Stream::new();
        let (job, _) = stream.join("a");
        stream.insert(Lsn(0x20)).await;
        let members = [(MemberId::from_record("a"), TABLE)];
        stream.subscribers.restart(members);
        stream.filter.restart(START, START);
        stream.subscribers.leave(job.id, Ok(()));
        stream.insert(Lsn(0x20)).await;
        assert_eq!(stream.filter.confirmed(), START);
        let (_, missed) = stream.join("a");
        assert!(missed, "the stream restarts for what it has missed");
    }

    /// The table was dropped and created again, so that the member comes back with another OID.
    #[tokio::test]
    async fn a_member_that_comes_back_with_another_table_is_not_absent_with_the_old_one() {
        let mut stream = Stream::new();
        let (job, _) = stream.join("a");
        stream.insert(Lsn(0x20)).await;
        stream.subscribers.leave(job.id, Ok(()));
        let (_job, missed) = stream.join_table("a", RelationId(10));
        assert!(
            missed,
            "its unfinished row holds the position until the stream restarts"
        );
        let member = MemberId::from_record("a");
        assert!(!stream.subscribers.is_absent(&member));
        // The publication's record may still name the old table.
        stream.subscribers.restart([(member.clone(), TABLE)]);
        assert!(!stream.subscribers.is_absent(&member));
    }
}
