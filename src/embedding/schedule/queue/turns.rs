//! Whose turn it is, and what a worker takes then.

use std::collections::VecDeque;

use super::Queue;
use super::entry::{Entry, Stage};
use super::flow::Flow;
use super::pool::{Place, PoolKey};
use super::request::{DeviceRoom, EntryId, FlowId, ModelKey, Priority, Room, WorkItem};

/// Maximum number of texts that one worker tokenizes at a time, so that other workers can join in and a live text does
/// not wait long.
const MAX_TOKENIZE_TEXTS: usize = 128;

/// Padded tokens that a batch may always have, even when idle workers could share the work.
const MIN_SHARE: usize = 64;

/// Maximum number of consecutive batches of live texts before backfill gets one.
pub(super) const MAX_LIVE_STREAK: u32 = 8;

impl<R, P, T> Queue<R, P, T> {
    /// The next unit of work for a thread that computes on the processor, or `None` if there is none. `idle` is the number of
    /// other workers without work, `budget` the most padded tokens of a batch around a text, or `None` if no batch is wanted
    /// now.
    pub(crate) fn next_work(
        &mut self,
        idle: usize,
        budget: Option<&dyn Fn(&T) -> usize>,
    ) -> Option<WorkItem<P, T>> {
        let (id, priority) = self.choose(|_, flow, priority| {
            !flow.limits.on_device || flow.needs_tokenizing(priority)
        })?;
        let flow = &self.flows[&id];
        // Tokenizing comes first: it is cheap, and the more lengths are known, the better the next batch.
        if flow.needs_tokenizing(priority) {
            let room = Room {
                texts: MAX_TOKENIZE_TEXTS,
                tokens: usize::MAX,
            };
            let texts = self.take_pending(id, priority, room, |_| 0, || Stage::Tokenizing);
            return Some(WorkItem::Tokenize { texts });
        }
        let oldest = flow.backlog(priority).oldest()?;
        let model = flow.model;
        let texts = self.take_batch(model, priority, oldest, idle, budget?);
        self.end_turn(id, priority);
        Some(WorkItem::RunBatch { texts })
    }

    /// The next batch for a device, or `None` if there is none now. `idle` is the number of other threads that could run one,
    /// `room` tells which device of a text's model may take it, if any may.
    pub(crate) fn next_run(
        &mut self,
        idle: usize,
        room: impl Fn(&T) -> Option<DeviceRoom>,
    ) -> Option<(DeviceRoom, Vec<(EntryId, T)>)> {
        let place = |queue: &Self, flow: &Flow, priority| {
            let oldest = flow.backlog(priority).oldest()?;
            let pool = queue.pools.get(&(flow.model, priority))?;
            Some((oldest, room(pool.texts.get(&oldest)?)?))
        };
        let (id, priority) = self.choose(|queue, flow, priority| {
            flow.limits.on_device && place(queue, flow, priority).is_some()
        })?;
        let flow = &self.flows[&id];
        let (oldest, room) = place(self, flow, priority)?;
        let (model, idle) = (flow.model, idle.min(room.others));
        let texts = self.take_batch(model, priority, oldest, idle, &|_| room.budget);
        self.end_turn(id, priority);
        Some((room, texts))
    }

    /// The flow whose turn it is among those for which something can be done, and the priority of its next text.
    fn choose(
        &self,
        can_do: impl Fn(&Self, &Flow, Priority) -> bool,
    ) -> Option<(FlowId, Priority)> {
        let find = |wanted: &dyn Fn(&Flow) -> bool| {
            self.turns
                .iter()
                .copied()
                .find(|id| wanted(&self.flows[id]))
        };
        let has_live = |flow: &Flow| flow.live.has_work() && can_do(self, flow, Priority::Live);
        let backfill = || {
            find(&|flow| {
                let has_backfill =
                    flow.backfill.has_work() && can_do(self, flow, Priority::Backfill);
                has_backfill && !has_live(flow)
            })
        };
        if self.live_streak >= MAX_LIVE_STREAK
            && let Some(id) = backfill()
        {
            return Some((id, Priority::Backfill));
        }
        let live = find(&has_live).map(|id| (id, Priority::Live));
        live.or_else(|| backfill().map(|id| (id, Priority::Backfill)))
    }

    /// Sends a flow to the end of the round.
    fn end_turn(&mut self, id: FlowId, priority: Priority) {
        self.turns.retain(|turn| *turn != id);
        self.turns.push_back(id);
        self.live_streak = match priority {
            Priority::Live => self.live_streak.saturating_add(1),
            Priority::Backfill => 0,
        };
    }

    /// The next pending texts as a batch, for a model that takes texts rather than tokens; `None` if there are none. `room`
    /// says how much the model of a text takes at a time, `tokens` about how many a text has.
    pub(crate) fn next_texts(
        &mut self,
        room: impl Fn(&P) -> Room,
        tokens: impl Fn(&P) -> usize,
    ) -> Option<Vec<(EntryId, P)>> {
        let (id, priority) = self.choose(|_, _, _| true)?;
        let backlog = self.flows[&id].backlog(priority);
        let &Place { entry, .. } = backlog.pending.first()?;
        let room = room(self.entries.get(&entry)?.pending()?);
        let texts = self.take_pending(id, priority, room, tokens, || Stage::Running);
        self.end_turn(id, priority);
        Some(texts)
    }

    /// Takes pending texts from all flows of the model in turn, one each, the chosen flow first.
    fn take_pending(
        &mut self,
        first: FlowId,
        priority: Priority,
        mut room: Room,
        tokens: impl Fn(&P) -> usize,
        stage: impl Fn() -> Stage<P>,
    ) -> Vec<(EntryId, P)> {
        let model = self.flows[&first].model;
        let others = self.turns.iter().copied().filter(|id| *id != first);
        let mut round: VecDeque<FlowId> = std::iter::once(first).chain(others).collect();
        let mut texts = Vec::new();
        while let Some(id) = round.pop_front()
            && room.texts > 0
        {
            let Some(flow) = self.flows.get(&id).filter(|flow| flow.model == model) else {
                continue;
            };
            let backlog = flow.backlog(priority);
            if !flow.needs_tokenizing(priority) {
                continue;
            }
            let Some(&Place { entry, .. }) = backlog.pending.first() else {
                continue;
            };
            let pending = self.entries.get(&entry).and_then(Entry::pending);
            let size = pending.map_or(0, &tokens);
            if size > room.tokens && !texts.is_empty() {
                break;
            }
            texts.extend(self.begin(entry, stage()));
            room.texts -= 1;
            room.tokens = room.tokens.saturating_sub(size);
            round.push_back(id);
        }
        texts
    }

    /// Takes the text of a pending entry, which is at this stage then.
    fn begin(&mut self, id: EntryId, stage: Stage<P>) -> Option<(EntryId, P)> {
        self.unlink(id);
        let entry = self.entries.get_mut(&id)?;
        match std::mem::replace(&mut entry.stage, stage) {
            Stage::Pending(text) => Some((id, text)),
            _ => None,
        }
    }

    /// Takes a batch out of a pool: the text at `seed` and its neighbors.
    fn take_batch(
        &mut self,
        model: ModelKey,
        priority: Priority,
        seed: PoolKey,
        idle: usize,
        budget: &dyn Fn(&T) -> usize,
    ) -> Vec<(EntryId, T)> {
        let Some(pool) = self.pools.get(&(model, priority)) else {
            return Vec::new();
        };
        let budget = pool.texts.get(&seed).map_or(0, budget);
        // A small burst is shared among the idle workers rather than run by one of them.
        let share = pool.tokens.div_ceil(idle + 1).max(MIN_SHARE);
        let keys = pool.neighbors(seed, budget.min(share));
        let mut texts = Vec::with_capacity(keys.len());
        for key in keys {
            let id = key.place.entry;
            self.unlink(id);
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.stage = Stage::Running;
            }
            let text = self.take_from_pool(model, priority, key);
            texts.extend(text.map(|text| (id, text)));
        }
        texts
    }
}
