//! From decoded messages to the rows that need work.
//!
//! Keeps what the stream is in the middle of (the open transaction, the layout of the relation), leaves out what is no
//! news (our own write-backs, unrelated updates), and counts every row that it lets through in the [`LsnTracker`].
//! No I/O: bytes in, rows out.

use std::num::NonZeroUsize;
use std::sync::Arc;

use uuid::Uuid;

use crate::replication::pgoutput::{
    self, Message, RelationBody, RelationId, ReplicaIdentity, TupleData, Value,
};
use crate::replication::{Lsn, LsnTracker, Ticket};

use super::MARKER;
use super::error::JobError;
use super::recent::RecentTexts;
use super::row::{Key, Origin, Row, Source};
use super::target::TargetTable;

/// Keys whose last text is remembered, at about 64 bytes each.
const RECENT_KEYS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

pub struct Intake {
    target: Arc<TargetTable>,
    tracker: LsnTracker,
    recent: RecentTexts,
    /// What was committed up to here may have been worked on before.
    replayed_until: Lsn,
    layout: Option<Layout>,
    transaction: Option<OpenTransaction>,
}

/// Where the columns that matter stand in the tuples of the target's relation.
struct Layout {
    key: Vec<usize>,
    /// `None` for a source that is not published.
    source: Option<usize>,
    /// `None` without a fingerprint column, or with a publication that leaves it out.
    fingerprint: Option<usize>,
}

struct OpenTransaction {
    ticket: Ticket,
    xid: u32,
    /// It began with our marker: its rows are write-backs.
    own: bool,
    /// It may have been worked on before.
    replayed: bool,
}

impl Intake {
    /// The stream starts at `start`; up to `replayed_until`, where the log ends now, it may repeat what an earlier attempt has
    /// worked on.
    pub fn new(target: Arc<TargetTable>, start: Lsn, replayed_until: Lsn) -> Self {
        Intake {
            target,
            tracker: LsnTracker::new(start),
            recent: RecentTexts::new(RECENT_KEYS),
            replayed_until,
            layout: None,
            transaction: None,
        }
    }

    /// Takes one message in; a row that needs work comes out, and is outstanding from now on.
    ///
    /// # Errors
    /// When the message cannot be understood, or when the table has become one that the job cannot work on.
    pub fn take(&mut self, payload: &[u8]) -> Result<Option<Row>, JobError> {
        let message = pgoutput::decode(payload).map_err(|error| {
            JobError::Transient(format!("the replication stream is not understood: {error}"))
        })?;
        match message {
            Message::Begin { xid, final_lsn, .. } => {
                let ticket = self.tracker.begin();
                self.transaction = Some(OpenTransaction {
                    ticket,
                    xid,
                    own: false,
                    replayed: final_lsn < self.replayed_until,
                });
            }
            Message::Commit { end_lsn, .. } => {
                self.transaction = None;
                self.tracker.commit(end_lsn);
            }
            Message::LogicalMessage {
                transactional: true,
                prefix: MARKER,
                ..
            } => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.own = true;
                }
            }
            Message::Relation(relation) => self.learn(&relation)?,
            Message::Insert { relation, new } => {
                let Some((transaction, layout)) = self.concerned(relation) else {
                    return Ok(None);
                };
                let key = self.key(layout, &new, None)?;
                let source = self.source(layout, &new);
                let origin = Origin::Live {
                    ticket: transaction.ticket,
                    xid: transaction.xid,
                };
                let fits = self.fits(layout, &new, &source);
                let source = self.as_is_known(transaction, source);
                // The text may be a known one and the row still new: deleted in between, or moved from another partition.
                self.recent.note(&key, &source);
                if fits {
                    return Ok(None);
                }
                return Ok(Some(self.outstanding(Row::new(key, source, origin))));
            }
            Message::Update {
                relation,
                key,
                old,
                new,
            } => return self.update(relation, key.or(old), old.is_some(), new),
            Message::LogicalMessage { .. }
            | Message::Delete { .. }
            | Message::Truncate { .. }
            | Message::Origin { .. }
            | Message::Type { .. } => {}
        }
        Ok(None)
    }

    /// One row of this transaction is finished.
    pub fn finish(&mut self, ticket: Ticket) {
        self.tracker.finish(ticket);
    }

    /// The server has sent everything up to `wal_end`.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        self.tracker.keepalive(wal_end);
    }

    /// The position up to which everything is done.
    pub fn confirmed(&self) -> Lsn {
        self.tracker.confirmed()
    }

    /// `old` is the old key, or under REPLICA IDENTITY FULL the whole old row.
    fn update(
        &mut self,
        relation: RelationId,
        old: Option<TupleData<'_>>,
        old_is_whole: bool,
        new: TupleData<'_>,
    ) -> Result<Option<Row>, JobError> {
        let Some((transaction, layout)) = self.concerned(relation) else {
            return Ok(None);
        };
        let origin = Origin::Live {
            ticket: transaction.ticket,
            xid: transaction.xid,
        };
        let key = self.key(layout, &new, old.as_ref())?;
        let moved = match &old {
            Some(old) => self.key(layout, old, None)? != key,
            None => false,
        };
        let value = layout.source.and_then(|index| new.get(index));
        if !moved && matches!(value, Some(Value::UnchangedToast)) {
            return Ok(None);
        }
        let before = old
            .filter(|_| old_is_whole)
            .and_then(|old| layout.source.and_then(|index| old.get(index)));
        let unchanged = value.is_some() && before == value;
        let source = self.source(layout, &new);
        let fits = self.fits(layout, &new, &source);
        let source = self.as_is_known(transaction, source);
        let known = self.recent.note(&key, &source);
        if fits || !moved && (unchanged || known) {
            return Ok(None);
        }
        Ok(Some(self.outstanding(Row::new(key, source, origin))))
    }

    fn outstanding(&mut self, row: Row) -> Row {
        if let Origin::Live { ticket, .. } = row.origin {
            self.tracker.row(ticket);
        }
        row
    }

    /// The open transaction and the layout, if a change of this relation concerns the job.
    fn concerned(&self, relation: RelationId) -> Option<(&OpenTransaction, &Layout)> {
        let transaction = self
            .transaction
            .as_ref()
            .filter(|transaction| !transaction.own)?;
        let layout = self
            .layout
            .as_ref()
            .filter(|_| relation.0 == self.target.oid)?;
        Some((transaction, layout))
    }

    fn key(
        &self,
        layout: &Layout,
        tuple: &TupleData<'_>,
        old: Option<&TupleData<'_>>,
    ) -> Result<Key, JobError> {
        let mut parts = Vec::with_capacity(layout.key.len());
        for &index in &layout.key {
            // A long key that did not change may be out of line; then the server sends the old key with it.
            let value = match tuple.get(index) {
                Some(Value::UnchangedToast) => old.and_then(|old| old.get(index)),
                value => value,
            };
            let Some(part) = value.and_then(Value::as_str) else {
                return Err(JobError::definite(format!(
                    "a change of {} came without its key; check the table's replica identity",
                    self.target.qualified()
                )));
            };
            parts.push(Box::from(part));
        }
        Ok(Key::new(parts))
    }

    fn source(&self, layout: &Layout, tuple: &TupleData<'_>) -> Source {
        match layout.source.and_then(|index| tuple.get(index)) {
            Some(Value::Null) => Source::Empty,
            Some(value @ Value::Text(_)) => Source::from_text(
                value
                    .as_str()
                    .map(|text| self.target.source.normalise(text)),
            ),
            Some(Value::UnchangedToast | Value::Binary(_)) | None => Source::Unread,
        }
    }

    /// Whether the row came with the fingerprint of its own text: then its vector came with it, or was there already.
    fn fits(&self, layout: &Layout, tuple: &TupleData<'_>, source: &Source) -> bool {
        let came = layout
            .fingerprint
            .and_then(|index| tuple.get(index)?.as_str()?.parse::<Uuid>().ok());
        match (&self.target.fingerprint, source, came) {
            (Some(fingerprint), Source::Text(text), Some(came)) => fingerprint.of(text) == came,
            _ => false,
        }
    }

    /// What was worked on before may be finished; with a fingerprint column the row itself can tell, so it is read instead of
    /// embedded at once.
    fn as_is_known(&self, transaction: &OpenTransaction, source: Source) -> Source {
        if transaction.replayed && self.target.fingerprint.is_some() {
            Source::Unread
        } else {
            source
        }
    }

    /// A Relation message comes before the first change of a table and after each of its alterations.
    fn learn(&mut self, relation: &RelationBody<'_>) -> Result<(), JobError> {
        if relation.id.0 != self.target.oid {
            return Ok(());
        }
        let target = &self.target;
        if (relation.namespace, relation.name) != (target.schema.as_str(), target.name.as_str()) {
            return Err(JobError::definite(format!(
                "the table {} is now called {}.{}; correct schema and \"table\" in the jobs table",
                target.qualified(),
                relation.namespace,
                relation.name
            )));
        }
        if relation.replica_identity == ReplicaIdentity::Nothing {
            return Err(JobError::Harmful(super::watchdog::lost_identity(target)));
        }
        let place = |name: &str| {
            relation
                .columns
                .iter()
                .position(|column| column.name == name)
        };
        let gone = |name: &str, role: &str| {
            JobError::definite(format!(
                "the column {} ({role}) of {} is gone; if it was renamed, correct the jobs table",
                crate::postgres::quote::identifier(name),
                target.qualified()
            ))
        };
        let key = target
            .key
            .iter()
            .map(|column| place(&column.name).ok_or_else(|| gone(&column.name, "part of the key")))
            .collect::<Result<Vec<_>, _>>()?;
        let source = match target.source.published {
            true => Some(
                place(&target.source.name)
                    .ok_or_else(|| gone(&target.source.name, "src_column"))?,
            ),
            false => None,
        };
        let fingerprint = target
            .fingerprint
            .as_ref()
            .and_then(|fingerprint| place(&fingerprint.name));
        self.layout = Some(Layout {
            key,
            source,
            fingerprint,
        });
        Ok(())
    }
}
