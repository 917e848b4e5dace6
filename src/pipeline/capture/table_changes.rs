//! What one subscriber makes of the changes of its table: the layout of its tuples, the texts that it has seen last, and
//! which updates need work.
//!
//! | change | work |
//! | --- | --- |
//! | the row has the fingerprint of its text | none |
//! | INSERT | yes: the row may have no vector, even if the text was seen before |
//! | UPDATE, other text or other key | yes |
//! | UPDATE, same text as last time, or as in the old row | none |
//! | UPDATE, source is unchanged TOAST | none, unless the key changed |
//! | UPDATE, a column that the template names has another value | yes |
//! | the job wrote the row itself, for the text that it holds | none |
//! | the job wrote the row itself, and a trigger changed its text meanwhile | yes |
//! | another job of the table wrote the row | only if its text is known to be another one |
//! | DELETE, the old key of an UPDATE, TRUNCATE | only of a job with passages, which go with their row |
//!
//! What else happens in the transaction of a write-back was done by triggers, and is a change like any other.
//!
//! The text is read by key where the stream does not carry it: an unpublished source (a generated column), or unchanged
//! TOAST under a new key. So is every text that a template makes, and every document that is cut: what the stream shows of
//! their columns decides only whether the row is read ([`ShownTexts`]). With a fingerprint column that also holds for
//! changes that the stream may repeat after a restart: the row itself then tells whether it is done.

use std::sync::Arc;

use uuid::Uuid;

use super::shown_texts::{RecentRows, ShownTexts, TextPlaces};
use crate::pipeline::error::JobError;
use crate::pipeline::table::recent_texts::Seen;
use crate::pipeline::table::row::{Key, Row, SourceText, SubscriberId, TextHash};
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::table::write_back_marker::{Author, Marker, WriteBack};
use crate::postgres::quote::identifier;
use crate::replication::pgoutput::{RelationBody, ReplicaIdentity, TupleData, Value};
use crate::replication::{Lsn, Ticket};

/// What a message means for one subscriber: a row that needs work, or that it cannot work on its table any more.
pub(super) type Delivery = (SubscriberId, Result<Row, JobError>);

/// The transaction between its Begin and its Commit.
#[derive(Debug)]
pub(super) struct OpenTransaction {
    pub ticket: Ticket,
    pub xid: u32,
    /// Where its commit record starts.
    pub commit: Lsn,
    /// Our marker, if it is a write-back.
    pub marker: Option<Marker>,
    /// An earlier connection may have worked on it.
    pub is_replayed: bool,
}

impl OpenTransaction {
    fn write_back(&self) -> Option<&WriteBack> {
        self.marker.as_ref()?.write_back()
    }
}

/// What the transaction of a change says about the work for it.
enum Verdict {
    /// Nothing: the change itself tells.
    Ordinary,
    /// There is none.
    Finished,
    /// None if the row, read by key, holds this text.
    FinishedFor(TextHash),
    /// None unless the row is known to have held another text before.
    FinishedUnlessChanged,
}

/// The view that one subscriber has of its table.
pub(super) struct TableChanges {
    target: Arc<TargetTable>,
    /// Transactions that committed before do not concern the subscriber. `None` until its table is published for it; what
    /// does not carry the columns that it needs was committed before that.
    since: Option<Lsn>,
    recent: RecentRows,
    /// From the last Relation message, or why the subscriber cannot work on the table.
    layout: Option<Result<Layout, String>>,
}

/// The places of the columns that matter in the tuples of the relation.
pub(super) struct Layout {
    key: Vec<usize>,
    texts: TextPlaces,
    /// `None` without a fingerprint column, or where the publication does not carry it.
    fingerprint: Option<usize>,
}

/// An Update message. `old` is the old key, or under REPLICA IDENTITY FULL the whole old row.
#[derive(Clone, Copy)]
pub(super) struct RowUpdate<'a> {
    pub old: Option<TupleData<'a>>,
    pub old_is_whole: bool,
    pub new: TupleData<'a>,
}

impl TableChanges {
    pub(super) fn new(target: Arc<TargetTable>, since: Option<Lsn>) -> Self {
        TableChanges {
            recent: RecentRows::for_target(&target),
            target,
            since,
            layout: None,
        }
    }

    /// The table is published for the subscriber from this position on.
    pub(super) fn admit(&mut self, since: Lsn) {
        self.since = Some(since);
    }

    /// Whether the table is published for the subscriber.
    pub(super) fn is_admitted(&self) -> bool {
        self.since.is_some()
    }

    /// Forgets the texts and the layout: the stream is about to repeat some of it.
    pub(super) fn forget(&mut self) {
        *self = TableChanges::new(self.target.clone(), self.since);
    }

    /// The server announces the table: before its first change, and after each alteration.
    pub(super) fn learn_layout(&mut self, relation: &RelationBody<'_>) {
        self.layout = Some(layout(&self.target, relation));
    }

    /// The layout for the changes of this transaction; `None` where they do not concern the subscriber.
    ///
    /// # Errors
    /// Permanent: they concern the subscriber, and it cannot work on the table as it is now.
    pub(super) fn layout_for(
        &self,
        transaction: &OpenTransaction,
    ) -> Result<Option<&Layout>, JobError> {
        match (self.since, &self.layout) {
            (Some(since), _) if transaction.commit < since => Ok(None),
            (_, Some(Ok(layout))) => Ok(Some(layout)),
            (Some(_), Some(Err(reason))) => Err(JobError::permanent(reason)),
            (None, Some(Err(_))) | (_, None) => Ok(None),
        }
    }

    /// The work that an insert asks for, if any.
    ///
    /// # Errors
    /// As [`layout_for`](Self::layout_for), or where the row came without its key.
    pub(super) fn insert(
        &mut self,
        transaction: &OpenTransaction,
        subscriber: SubscriberId,
        new: &TupleData<'_>,
    ) -> Result<Option<Row>, JobError> {
        let Some(layout) = self.layout_for(transaction)? else {
            return Ok(None);
        };
        let key = self.key(layout, new, None)?;
        let texts = self.texts(layout, new);
        let source = texts.source();
        let is_current = self.is_current(layout, new);
        let verdict = self.verdict(transaction, &key, || texts.hash(&source));
        let source = self.read_if_replayed(transaction, source);
        // A known text does not make the row known: it was deleted in between, or moved from another partition.
        let values = texts.values();
        self.recent.note_new(&key, &source, &values);
        let written_for = match verdict {
            Verdict::Finished => return Ok(None),
            Verdict::FinishedFor(text) => Some(text),
            Verdict::Ordinary | Verdict::FinishedUnlessChanged => None,
        };
        Ok((!is_current).then(|| Row {
            written_for,
            ..row(transaction, subscriber, key, source)
        }))
    }

    /// The work that an update asks for, if any.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub(super) fn update(
        &mut self,
        transaction: &OpenTransaction,
        subscriber: SubscriberId,
        update: RowUpdate<'_>,
    ) -> Result<Option<Row>, JobError> {
        let Some(layout) = self.layout_for(transaction)? else {
            return Ok(None);
        };
        let RowUpdate {
            old,
            old_is_whole,
            new,
        } = update;
        let key = self.key(layout, &new, old.as_ref())?;
        let moved_from = match &old {
            Some(old) => Some(self.key(layout, old, None)?).filter(|old| *old != key),
            None => None,
        };
        let key_changed = moved_from.is_some();
        let texts = self.texts(layout, &new);
        if !key_changed && texts.are_unchanged_toast() {
            return Ok(None);
        }
        let whole_old = old.filter(|_| old_is_whole);
        let same_as_before = whole_old.is_some_and(|old| texts.are_as_in(&old));
        let source = texts.source();
        let is_current = self.is_current(layout, &new);
        let verdict = self.verdict(transaction, &key, || texts.hash(&source));
        let source = self.read_if_replayed(transaction, source);
        let values = texts.values();
        let seen = match key_changed {
            true => self.recent.note_new(&key, &source, &values),
            false => self.recent.note_update(&key, &source, &values),
        };
        if is_current || !key_changed && (same_as_before || seen == Seen::Same) {
            return Ok(None);
        }
        let written_for = match verdict {
            Verdict::Finished => return Ok(None),
            Verdict::FinishedUnlessChanged if seen == Seen::Unknown => return Ok(None),
            Verdict::FinishedFor(text) => Some(text),
            Verdict::Ordinary | Verdict::FinishedUnlessChanged => None,
        };
        Ok(Some(Row {
            is_update: !key_changed,
            // A job with passages gets the old key as a row of its own.
            moved_from: moved_from.filter(|_| self.target.passages.is_none()),
            written_for,
            ..row(transaction, subscriber, key, source)
        }))
    }

    /// The work that is left under the old key of an update which has changed it: the passages of that key go.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub(super) fn leave_key(
        &mut self,
        transaction: &OpenTransaction,
        subscriber: SubscriberId,
        update: RowUpdate<'_>,
    ) -> Result<Option<Row>, JobError> {
        let Some((layout, old)) = self.layout_of_passages(transaction)?.zip(update.old) else {
            return Ok(None);
        };
        let key = self.key(layout, &update.new, Some(&old))?;
        let left = self.key(layout, &old, None)?;
        Ok((left != key).then(|| self.removed(transaction, subscriber, left)))
    }

    /// The work that a delete asks for, if any: the passages of the row go. `old` is the old key, or the whole old row.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub(super) fn delete(
        &mut self,
        transaction: &OpenTransaction,
        subscriber: SubscriberId,
        old: &TupleData<'_>,
    ) -> Result<Option<Row>, JobError> {
        let Some(layout) = self.layout_of_passages(transaction)? else {
            return Ok(None);
        };
        let key = self.key(layout, old, None)?;
        Ok(Some(self.removed(transaction, subscriber, key)))
    }

    /// The work that a truncate asks for, if any: all passages go.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub(super) fn truncate(
        &mut self,
        transaction: &OpenTransaction,
        subscriber: SubscriberId,
    ) -> Result<Option<Row>, JobError> {
        if self.layout_of_passages(transaction)?.is_none() {
            return Ok(None);
        }
        self.recent = RecentRows::for_target(&self.target);
        let (all, source) = (Key::of_all_rows(), SourceText::Truncated);
        Ok(Some(row(transaction, subscriber, all, source)))
    }

    /// [`layout_for`](Self::layout_for) for changes that only concern a job with passages.
    fn layout_of_passages(
        &self,
        transaction: &OpenTransaction,
    ) -> Result<Option<&Layout>, JobError> {
        match self.target.passages {
            Some(_) => self.layout_for(transaction),
            None => Ok(None),
        }
    }

    /// A row that is gone from this key. It is read by key all the same: another one may have taken the key since.
    fn removed(
        &mut self,
        transaction: &OpenTransaction,
        subscriber: SubscriberId,
        key: Key,
    ) -> Row {
        self.recent.forget(&key);
        row(transaction, subscriber, key, SourceText::Unread)
    }

    /// What the transaction tells about a row that now holds the text `shown`; `None` where the change does not show it.
    fn verdict(
        &self,
        transaction: &OpenTransaction,
        key: &Key,
        shown: impl FnOnce() -> Option<TextHash>,
    ) -> Verdict {
        let Some(write_back) = transaction.write_back() else {
            return Verdict::Ordinary;
        };
        match write_back.author(&self.target, key) {
            Author::Trigger => Verdict::Ordinary,
            Author::Own(written) => match shown() {
                Some(text) if text == written => Verdict::Finished,
                Some(_) if !self.target.reads_texts() => Verdict::Ordinary,
                Some(_) | None => Verdict::FinishedFor(written),
            },
            // It looks at the row, and writes nothing to the table that the other job would answer.
            Author::OtherJob if self.target.passages.is_some() => Verdict::Ordinary,
            // Where the text is not remembered, a trigger may have changed it unseen. To embed each row that another job
            // writes would be worse: two jobs could answer each other forever.
            Author::OtherJob => Verdict::FinishedUnlessChanged,
        }
    }

    fn key(
        &self,
        layout: &Layout,
        tuple: &TupleData<'_>,
        old: Option<&TupleData<'_>>,
    ) -> Result<Key, JobError> {
        let mut parts = Vec::with_capacity(layout.key.len());
        for &index in &layout.key {
            // A long key that did not change may be TOASTed; then the server sends the old key with it.
            let value = match tuple.get(index) {
                Some(Value::UnchangedToast) => old.and_then(|old| old.get(index)),
                value => value,
            };
            let Some(part) = value.and_then(Value::as_str) else {
                return Err(JobError::permanent(format!(
                    "a change of {} came without its key; check the table's replica identity",
                    self.target.qualified()
                )));
            };
            parts.push(Box::from(part));
        }
        Ok(Key::new(parts))
    }

    fn texts<'s, 'a>(&'s self, layout: &'s Layout, tuple: &TupleData<'a>) -> ShownTexts<'s, 'a> {
        ShownTexts::new(&self.target, &layout.texts, *tuple)
    }

    /// Whether the row carries the fingerprint of its own text: then its vector came with it, or was there before.
    fn is_current(&self, layout: &Layout, tuple: &TupleData<'_>) -> bool {
        let found = layout
            .fingerprint
            .and_then(|index| tuple.get(index)?.as_str()?.parse::<Uuid>().ok());
        let (Some(fingerprint), Some(found)) = (&self.target.fingerprint, found) else {
            return false;
        };
        let text = self.texts(layout, tuple).whole();
        let text = text.filter(|text| !text.is_empty());
        text.is_some_and(|text| fingerprint.compute(&text) == found)
    }

    /// A replayed change may be finished. With a fingerprint column the row itself can tell, so it is read by key instead of
    /// embedded at once.
    fn read_if_replayed(&self, transaction: &OpenTransaction, source: SourceText) -> SourceText {
        if transaction.is_replayed && self.target.fingerprint.is_some() {
            SourceText::Unread
        } else {
            source
        }
    }
}

fn row(
    transaction: &OpenTransaction,
    subscriber: SubscriberId,
    key: Key,
    source: SourceText,
) -> Row {
    let depth = transaction
        .write_back()
        .map_or(0, |write_back| write_back.depth.saturating_add(1));
    Row {
        cascade_depth: depth,
        ..Row::live(key, source, transaction.xid, transaction.ticket, subscriber)
    }
}

/// Where the columns are that the subscriber needs, or why it cannot work on the table.
///
/// The message has the table's name as it was at that position. That need not be its name now: the job watches that by
/// itself.
fn layout(target: &TargetTable, relation: &RelationBody<'_>) -> Result<Layout, String> {
    if relation.replica_identity == ReplicaIdentity::Nothing {
        return Err(target.identity_nothing());
    }
    let place = |name: &str| {
        relation
            .columns
            .iter()
            .position(|column| column.name == name)
    };
    let gone = |name: &str, role: &str| {
        format!(
            "the column {} ({role}) of {} is gone; if it was renamed, correct the jobs table",
            identifier(name),
            target.qualified()
        )
    };
    let key = target
        .key
        .iter()
        .map(|column| place(&column.name).ok_or_else(|| gone(&column.name, "part of the key")))
        .collect::<Result<Vec<_>, _>>()?;
    let texts = TextPlaces::find(&target.source, place).map_err(|(name, role)| gone(name, role))?;
    let fingerprint = target
        .fingerprint
        .as_ref()
        .and_then(|fingerprint| place(&fingerprint.name));
    Ok(Layout {
        key,
        texts,
        fingerprint,
    })
}
