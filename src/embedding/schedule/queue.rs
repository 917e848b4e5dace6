//! Which texts are worked on next: a plain data structure behind the scheduler's lock, without threads or models.
//!
//! ```text
//!           push                 push_tokenized                     RunBatch
//!  flow A ───────▶ pending ─┐                   ┌─ length pool ─┐
//!  flow B ───────▶ pending ─┼─ WorkItem::Tokenize ─▶  3 5 9 9 12  │──▶ texts of similar length ──▶ finish
//!  flow C ───────▶ pending ─┘                   └───────────────┘
//! ```
//!
//! A text passes two stages. It is *pending* in the backlog of its flow until a worker takes some texts to tokenize.
//! Then it is *tokenized* and its length is known. The tokenized texts of one model and priority form a pool sorted by
//! length. Batches are cut from it: texts of similar length, as many as the budget of padded tokens allows, because the
//! model computes every padding token like a real one. A deep pool gives batches with hardly any padding; a shallow
//! pool gives what is there immediately.
//!
//! **Each text once.** Equal texts of one model are one *entry*, with a *request* for each flow and number that asked for
//! it. A further request joins the entry, from the moment it is pending until its vector is there.
//!
//! **Fairness.** A *flow* is one source of texts, as in fair queuing (RFC 970): flows take turns. A batch is
//! cut around the oldest text of the flow whose turn it is and filled with its neighbors from any flow, so no text
//! waits longer than one round. An entry that several flows asked for is in the backlog of each. Live texts go before
//! backfill. Under a lasting flood of live texts, one batch in [`turns::MAX_LIVE_STREAK`] still goes to the backfill of
//! flows that have no live texts.

mod entry;
mod flow;
mod pool;
mod request;
mod turns;

use std::collections::{BTreeSet, HashMap, VecDeque};

use self::entry::{Entry, Stage};
use self::flow::{Backlog, Flow};
use self::pool::{LengthPool, PoolKey};
pub use self::request::Priority;
pub(crate) use self::request::{
    DeviceRoom, EntryId, FlowId, FlowLimits, ModelKey, Request, Room, TextKey, WorkItem,
};

/// The texts of all flows: pending ones `P` and tokenized ones `T`. `R` tells where the vector of a request goes.
pub(crate) struct Queue<R, P, T> {
    flows: HashMap<FlowId, Flow>,
    /// Round robin: the flow at the front is next.
    turns: VecDeque<FlowId>,
    entries: HashMap<EntryId, Entry<R, P>>,
    by_text: HashMap<(ModelKey, TextKey), EntryId>,
    pools: HashMap<(ModelKey, Priority), LengthPool<T>>,
    next_flow: u64,
    next_entry: u64,
    /// Consecutive batches of live texts so far.
    live_streak: u32,
}

impl<R, P, T> Queue<R, P, T> {
    /// An empty queue.
    pub(crate) fn new() -> Self {
        Self {
            flows: HashMap::new(),
            turns: VecDeque::new(),
            entries: HashMap::new(),
            by_text: HashMap::new(),
            pools: HashMap::new(),
            next_flow: 0,
            next_entry: 0,
            live_streak: 0,
        }
    }

    pub(crate) fn open_flow(&mut self, model: ModelKey, limits: FlowLimits) -> FlowId {
        let id = FlowId(self.next_flow);
        self.next_flow += 1;
        let flow = Flow {
            model,
            limits,
            live: Backlog::default(),
            backfill: Backlog::default(),
            requests: HashMap::new(),
        };
        self.flows.insert(id, flow);
        self.turns.push_back(id);
        id
    }

    /// Removes a flow with its requests, and the texts that no other flow has asked for. Returns what was dropped.
    pub(crate) fn close_flow(&mut self, id: FlowId) -> (Vec<R>, Vec<P>, Vec<T>) {
        let (mut requesters, mut pending, mut tokenized) = (Vec::new(), Vec::new(), Vec::new());
        let Some(flow) = self.flows.remove(&id) else {
            return (requesters, pending, tokenized);
        };
        self.turns.retain(|turn| *turn != id);
        let entries: BTreeSet<EntryId> = flow.requests.into_values().collect();
        for entry_id in entries {
            let Some(entry) = self.entries.get_mut(&entry_id) else {
                continue;
            };
            let dropped = entry
                .requests
                .extract_if(.., |(request, _)| request.flow == id);
            requesters.extend(dropped.map(|(_, requester)| requester));
            let (text, tokens) = self.drop_if_unwanted(entry_id);
            pending.extend(text);
            tokenized.extend(tokens);
        }
        (requesters, pending, tokenized)
    }

    /// Removes all texts and returns who asked for them. The flows stay open.
    pub(crate) fn drain(&mut self) -> Vec<(Request, R)> {
        for flow in self.flows.values_mut() {
            flow.live = Backlog::default();
            flow.backfill = Backlog::default();
            flow.requests.clear();
        }
        self.pools.clear();
        self.by_text.clear();
        let entries = std::mem::take(&mut self.entries);
        entries
            .into_values()
            .flat_map(|entry| entry.requests)
            .collect()
    }

    /// Asks for a text, by a number that the flow does not use for another one. `text` makes what a worker tokenizes, if
    /// the text is not here already. Does nothing if the flow is closed.
    pub(crate) fn push(
        &mut self,
        request: Request,
        requester: R,
        priority: Priority,
        key: TextKey,
        text: impl FnOnce() -> P,
    ) {
        let age = self.next_entry;
        self.push_aged(request, requester, priority, key, text, age);
    }

    /// As [`push`](Self::push), in the place of the text that the flow has asked for by the number `old`. That one is
    /// withdrawn: no vector of it will come. Returns whether it was here.
    pub(crate) fn replace(
        &mut self,
        old: u64,
        request: Request,
        requester: R,
        priority: Priority,
        key: TextKey,
        text: impl FnOnce() -> P,
    ) -> bool {
        let age = self.withdraw(Request { id: old, ..request });
        let place = age.unwrap_or(self.next_entry);
        self.push_aged(request, requester, priority, key, text, place);
        age.is_some()
    }

    /// Withdraws a request: no vector will come. Returns the age of its text, or `None` where the vector is there already.
    pub(crate) fn withdraw(&mut self, request: Request) -> Option<u64> {
        let flow = self.flows.get_mut(&request.flow)?;
        let id = flow.requests.remove(&request.id)?;
        let entry = self.entries.get_mut(&id)?;
        let age = entry.age;
        let place = entry.requests.iter().position(|(own, _)| *own == request)?;
        entry.requests.swap_remove(place);
        if !entry
            .requests
            .iter()
            .any(|(own, _)| own.flow == request.flow)
        {
            flow.unlink(id, entry);
        }
        self.drop_if_unwanted(id);
        Some(age)
    }

    fn push_aged(
        &mut self,
        request: Request,
        requester: R,
        priority: Priority,
        key: TextKey,
        text: impl FnOnce() -> P,
        age: u64,
    ) {
        let Some(model) = self.flows.get(&request.flow).map(|flow| flow.model) else {
            return;
        };
        let known = self.by_text.get(&(model, key)).copied();
        let id = known.unwrap_or(EntryId(self.next_entry));
        if known.is_none() {
            self.next_entry += 1;
            self.by_text.insert((model, key), id);
        } else if priority == Priority::Live {
            self.make_live(id);
        }
        let entry = self.entries.entry(id).or_insert_with(|| Entry {
            model,
            text: key,
            priority,
            age,
            stage: Stage::Pending(text()),
            requests: Vec::new(),
        });
        entry.requests.push((request, requester));
        if let Some(flow) = self.flows.get_mut(&request.flow) {
            flow.requests.insert(request.id, id);
            flow.link(id, entry);
        }
    }

    /// Moves an entry that was asked for as backfill to the live texts.
    fn make_live(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        if entry.priority == Priority::Live {
            return;
        }
        let (model, key) = (entry.model, entry.pool_key(id));
        self.unlink(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.priority = Priority::Live;
        }
        self.link(id);
        if let Some(key) = key
            && let Some(text) = self.take_from_pool(model, Priority::Backfill, key)
        {
            self.add_to_pool(model, Priority::Live, key, text);
        }
    }

    /// Removes an entry that waits and has no request any more. One that is being worked on is removed when that is
    /// done.
    fn drop_if_unwanted(&mut self, id: EntryId) -> (Option<P>, Option<T>) {
        let Some(entry) = self.entries.get(&id) else {
            return (None, None);
        };
        let is_at_work = matches!(entry.stage, Stage::Tokenizing | Stage::Running);
        if is_at_work || !entry.requests.is_empty() {
            return (None, None);
        }
        let (model, priority, key) = (entry.model, entry.priority, entry.pool_key(id));
        let tokens = key.and_then(|key| self.take_from_pool(model, priority, key));
        let text = self.remove(id).and_then(|entry| match entry.stage {
            Stage::Pending(text) => Some(text),
            _ => None,
        });
        (text, tokens)
    }

    fn remove(&mut self, id: EntryId) -> Option<Entry<R, P>> {
        let entry = self.entries.remove(&id)?;
        self.by_text.remove(&(entry.model, entry.text));
        Some(entry)
    }

    /// Adds an entry to the backlogs of all who asked for it.
    fn link(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        for (request, _) in &entry.requests {
            if let Some(flow) = self.flows.get_mut(&request.flow) {
                flow.link(id, entry);
            }
        }
    }

    fn unlink(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        for (request, _) in &entry.requests {
            if let Some(flow) = self.flows.get_mut(&request.flow) {
                flow.unlink(id, entry);
            }
        }
    }

    /// Takes a tokenized text back, of `length` tokens; drops it if it has no request any more.
    pub(crate) fn push_tokenized(&mut self, id: EntryId, length: usize, text: T) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.requests.is_empty() {
            self.remove(id);
            return;
        }
        entry.stage = Stage::Tokenized { length };
        let (model, priority, place) = (entry.model, entry.priority, entry.place(id));
        self.add_to_pool(model, priority, PoolKey { length, place }, text);
        self.link(id);
    }

    /// Removes a text that was worked on; returns who asked for it.
    pub(crate) fn finish(&mut self, id: EntryId) -> Vec<(Request, R)> {
        let requests = self
            .remove(id)
            .map_or_else(Vec::new, |entry| entry.requests);
        for (request, _) in &requests {
            if let Some(flow) = self.flows.get_mut(&request.flow) {
                flow.requests.remove(&request.id);
            }
        }
        requests
    }

    pub(crate) fn has_work(&self) -> bool {
        self.flows
            .values()
            .any(|flow| flow.live.has_work() || flow.backfill.has_work())
    }

    /// Whether there are texts that should be tokenized now.
    pub(crate) fn needs_tokenizing(&self) -> bool {
        let both = [Priority::Live, Priority::Backfill];
        let needs = |flow: &Flow| both.into_iter().any(|of| flow.needs_tokenizing(of));
        self.flows.values().any(needs)
    }

    /// The tokens of all texts that are ready to run.
    pub(crate) fn tokens(&self) -> usize {
        self.pools.values().map(|pool| pool.tokens).sum()
    }

    fn add_to_pool(&mut self, model: ModelKey, priority: Priority, key: PoolKey, text: T) {
        let pool = self
            .pools
            .entry((model, priority))
            .or_insert_with(LengthPool::new);
        pool.insert(key, text);
    }

    fn take_from_pool(&mut self, model: ModelKey, priority: Priority, key: PoolKey) -> Option<T> {
        let pool = self.pools.get_mut(&(model, priority))?;
        let text = pool.remove(key);
        if pool.texts.is_empty() {
            self.pools.remove(&(model, priority));
        }
        text
    }
}

#[cfg(test)]
mod tests;
