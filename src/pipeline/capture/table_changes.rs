//! What one member makes of the changes of its table: the layout of its tuples, the texts that it has seen last, and which
//! updates are news.

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use uuid::Uuid;

use crate::pipeline::capture::recent_texts::RecentTexts;
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{Key, Row, SourceText, SubscriberId};
use crate::pipeline::table::target::TargetTable;
use crate::replication::Lsn;
use crate::replication::Ticket;
use crate::replication::pgoutput::{RelationBody, ReplicaIdentity, TupleData, Value};

pub(super) struct OpenTransaction {
    pub ticket: Ticket,
    pub xid: u32,
    /// Where it was committed.
    pub commit: Lsn,
    /// It began with our marker: its rows are write-backs.
    pub own: bool,
    /// It may have been worked on before.
    pub replayed: bool,
}

/// Keys whose last text is remembered, at about 64 bytes each.
const RECENT_KEYS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// The view that one member has of its table.
pub(super) struct Table {
    target: Arc<TargetTable>,
    /// See [`Member::since`](crate::pipeline::feed::Member).
    since: Arc<OnceLock<Lsn>>,
    recent: RecentTexts,
    /// Or why the relation is none that the member can work on.
    layout: Option<Result<Layout, String>>,
}

/// Where the columns that matter stand in the tuples of the relation.
pub(super) struct Layout {
    key: Vec<usize>,
    /// `None` for a source that is not published.
    source: Option<usize>,
    /// `None` without a fingerprint column, or with a publication that leaves it out.
    fingerprint: Option<usize>,
}

/// An Update message. `old` is the old key, or under REPLICA IDENTITY FULL the whole old row.
#[derive(Clone, Copy)]
pub(super) struct Update<'a> {
    pub old: Option<TupleData<'a>>,
    pub old_is_whole: bool,
    pub new: TupleData<'a>,
}

impl Table {
    pub(super) fn new(target: Arc<TargetTable>, since: Arc<OnceLock<Lsn>>) -> Self {
        Table {
            target,
            since,
            recent: RecentTexts::new(RECENT_KEYS),
            layout: None,
        }
    }

    /// Whether the member has been taken in.
    pub(super) fn is_admitted(&self) -> bool {
        self.since.get().is_some()
    }

    /// Forgets what it has seen: the stream is about to repeat some of it.
    pub(super) fn forget(&mut self) {
        *self = Table::new(self.target.clone(), self.since.clone());
    }

    pub(super) fn insert(
        &mut self,
        transaction: &OpenTransaction,
        seat: SubscriberId,
        new: &TupleData<'_>,
    ) -> Result<Option<Row>, JobError> {
        let Some(layout) = self.check(transaction)? else {
            return Ok(None);
        };
        let key = self.key(layout, new, None)?;
        let source = self.source(layout, new);
        let fits = self.fits(layout, new, &source);
        let source = self.as_is_known(transaction, source);
        // The text may be a known one and the row still new: deleted in between, or moved from another partition.
        self.recent.note(&key, &source);
        Ok((!fits).then(|| Row::live(key, source, transaction.xid, transaction.ticket, seat)))
    }

    pub(super) fn update(
        &mut self,
        transaction: &OpenTransaction,
        seat: SubscriberId,
        update: Update<'_>,
    ) -> Result<Option<Row>, JobError> {
        let Some(layout) = self.check(transaction)? else {
            return Ok(None);
        };
        let Update {
            old,
            old_is_whole,
            new,
        } = update;
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
        Ok(Some(Row::live(
            key,
            source,
            transaction.xid,
            transaction.ticket,
            seat,
        )))
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
                return Err(JobError::permanent(format!(
                    "a change of {} came without its key; check the table's replica identity",
                    self.target.qualified()
                )));
            };
            parts.push(Box::from(part));
        }
        Ok(Key::new(parts))
    }

    fn source(&self, layout: &Layout, tuple: &TupleData<'_>) -> SourceText {
        match layout.source.and_then(|index| tuple.get(index)) {
            Some(Value::Null) => SourceText::Empty,
            Some(value @ Value::Text(_)) => SourceText::from_column(
                value
                    .as_str()
                    .map(|text| self.target.source.normalize(text)),
            ),
            Some(Value::UnchangedToast | Value::Binary(_)) | None => SourceText::Unread,
        }
    }

    /// Whether the row came with the fingerprint of its own text: then its vector came with it, or was there already.
    fn fits(&self, layout: &Layout, tuple: &TupleData<'_>, source: &SourceText) -> bool {
        let came = layout
            .fingerprint
            .and_then(|index| tuple.get(index)?.as_str()?.parse::<Uuid>().ok());
        match (&self.target.fingerprint, source, came) {
            (Some(fingerprint), SourceText::Text(text), Some(came)) => {
                fingerprint.compute(text) == came
            }
            _ => false,
        }
    }

    /// What was worked on before may be finished; with a fingerprint column the row itself can tell, so it is read instead of
    /// embedded at once.
    fn as_is_known(&self, transaction: &OpenTransaction, source: SourceText) -> SourceText {
        if transaction.replayed && self.target.fingerprint.is_some() {
            SourceText::Unread
        } else {
            source
        }
    }

    /// The layout for the changes of this transaction; `None` where they do not concern the member.
    ///
    /// # Errors
    /// Where they do, and the relation has become one that it cannot work on.
    pub(super) fn check(&self, transaction: &OpenTransaction) -> Result<Option<&Layout>, JobError> {
        match (self.since.get(), &self.layout) {
            (Some(since), _) if transaction.commit < *since => Ok(None),
            (_, Some(Ok(layout))) => Ok(Some(layout)),
            (Some(_), Some(Err(reason))) => Err(JobError::permanent(reason)),
            (None, Some(Err(_))) | (_, None) => Ok(None),
        }
    }

    /// A Relation message comes before the first change of a table and after each of its alterations.
    pub(super) fn learn(&mut self, relation: &RelationBody<'_>) {
        self.layout = Some(layout(&self.target, relation));
    }
}

/// Where the columns are that the member needs, or why it cannot work on the relation.
fn layout(target: &TargetTable, relation: &RelationBody<'_>) -> Result<Layout, String> {
    if (relation.namespace, relation.name) != (target.schema.as_str(), target.name.as_str()) {
        return Err(format!(
            "the table {} is now called {}.{}; correct schema and \"table\" in the jobs table",
            target.qualified(),
            relation.namespace,
            relation.name
        ));
    }
    if relation.replica_identity == ReplicaIdentity::Nothing {
        return Err(target.lost_identity());
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
            crate::postgres::quote::identifier(name),
            target.qualified()
        )
    };
    let key = target
        .key
        .iter()
        .map(|column| place(&column.name).ok_or_else(|| gone(&column.name, "part of the key")))
        .collect::<Result<Vec<_>, _>>()?;
    let source = match target.source.published {
        true => Some(
            place(&target.source.name).ok_or_else(|| gone(&target.source.name, "src_column"))?,
        ),
        false => None,
    };
    let fingerprint = target
        .fingerprint
        .as_ref()
        .and_then(|fingerprint| place(&fingerprint.name));
    Ok(Layout {
        key,
        source,
        fingerprint,
    })
}
