//! What waits in one flow.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::entry::{Entry, Stage};
use super::pool::{Place, PoolKey};
use super::request::{EntryId, FlowLimits, ModelKey, Priority};

pub(super) struct Flow {
    pub model: ModelKey,
    pub limits: FlowLimits,
    pub live: Backlog,
    pub backfill: Backlog,
    /// The entry of each text that was asked for, by its number.
    pub requests: HashMap<u64, EntryId>,
}

/// The texts of a flow with one priority, the oldest first.
#[derive(Default)]
pub(super) struct Backlog {
    pub pending: BTreeSet<Place>,
    /// With their lengths. The texts themselves are in the pool.
    pub tokenized: BTreeMap<Place, usize>,
}

impl Backlog {
    pub(super) fn has_work(&self) -> bool {
        !self.pending.is_empty() || !self.tokenized.is_empty()
    }

    pub(super) fn needs_tokenizing(&self, limits: FlowLimits) -> bool {
        !self.pending.is_empty() && self.tokenized.len() < limits.tokenized_texts
    }

    pub(super) fn oldest(&self) -> Option<PoolKey> {
        let (&place, &length) = self.tokenized.first_key_value()?;
        Some(PoolKey { length, place })
    }
}

impl Flow {
    pub(super) fn backlog(&self, priority: Priority) -> &Backlog {
        match priority {
            Priority::Live => &self.live,
            Priority::Backfill => &self.backfill,
        }
    }

    pub(super) fn backlog_mut(&mut self, priority: Priority) -> &mut Backlog {
        match priority {
            Priority::Live => &mut self.live,
            Priority::Backfill => &mut self.backfill,
        }
    }

    pub(super) fn needs_tokenizing(&self, priority: Priority) -> bool {
        self.backlog(priority).needs_tokenizing(self.limits)
    }

    /// Adds an entry to the backlog, as far as it waits.
    pub(super) fn link<R, P>(&mut self, id: EntryId, entry: &Entry<R, P>) {
        let place = entry.place(id);
        let backlog = self.backlog_mut(entry.priority);
        match entry.stage {
            Stage::Pending(_) => {
                backlog.pending.insert(place);
            }
            Stage::Tokenized { length } => {
                backlog.tokenized.insert(place, length);
            }
            Stage::Tokenizing | Stage::Running => {}
        }
    }

    pub(super) fn unlink<R, P>(&mut self, id: EntryId, entry: &Entry<R, P>) {
        let place = entry.place(id);
        let backlog = self.backlog_mut(entry.priority);
        backlog.pending.remove(&place);
        backlog.tokenized.remove(&place);
    }
}
