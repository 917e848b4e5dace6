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
//! backfill. Under a lasting flood of live texts, one batch in [`MAX_LIVE_STREAK`] still goes to the backfill of flows
//! that have no live texts.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// How urgent a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Someone waits for it: a row that has just changed, or a search.
    Live,
    /// A row that existed before the job.
    Backfill,
}

/// Maximum number of tokenized texts that a flow keeps under backlog. It bounds memory and decides how well batches can
/// be cut: measured padding efficiency is 98 % for 512 texts, 99 % for 1024 and 99.3 % for all at once.
const MAX_TOKENIZED_TEXTS: usize = 1024;

/// Maximum number of texts that one worker tokenizes at a time, so that other workers can join in and a live text does
/// not wait long.
const MAX_TOKENIZE_TEXTS: usize = 128;

/// Maximum padding, in tokens, that a text may add to a batch. A batch of its own would cost about as much.
const MAX_PADDING: usize = 16;

/// Padded tokens that a batch may always have, even when idle workers could share the work.
const MIN_SHARE: usize = 64;

/// Maximum number of consecutive batches of live texts before backfill gets one.
const MAX_LIVE_STREAK: u32 = 8;

/// Identifies an open flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FlowId(u64);

/// Identifies a model. Flows with equal keys share batches.
pub(crate) type ModelKey = usize;

/// Identifies a text with its role and its model: what has equal keys has one vector.
pub(crate) type TextKey = u128;

/// Identifies an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryId(u64);

/// Who asks for a text: the flow, and the flow's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub flow: FlowId,
    pub id: u64,
}

/// What a worker has to do next, for pending texts `P` and tokenized texts `T`.
#[derive(Debug)]
pub(crate) enum WorkItem<P, T> {
    /// Tokenize these texts and return them with [`Queue::push_tokenized`].
    Tokenize { texts: Vec<(EntryId, P)> },
    /// Run these texts as one batch, and take their requests with [`Queue::finish`].
    RunBatch { texts: Vec<(EntryId, T)> },
}

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

struct Flow {
    model: ModelKey,
    live: Backlog,
    backfill: Backlog,
    /// The entry of each text that was asked for, by its number.
    requests: HashMap<u64, EntryId>,
}

/// The texts of a flow with one priority, the oldest first.
#[derive(Default)]
struct Backlog {
    pending: BTreeSet<Place>,
    /// With their lengths. The texts themselves are in the pool.
    tokenized: BTreeMap<Place, usize>,
}

/// Orders texts by age. A text that takes the place of another one has its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    age: u64,
    entry: EntryId,
}

/// A text that is computed once.
struct Entry<R, P> {
    model: ModelKey,
    text: TextKey,
    priority: Priority,
    age: u64,
    stage: Stage<P>,
    requests: Vec<(Request, R)>,
}

enum Stage<P> {
    Pending(P),
    Tokenizing,
    Tokenized { length: usize },
    Running,
}

/// How much of the pending texts is taken at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// The most texts.
    pub texts: usize,
    /// The most tokens. A first text is taken however long it is.
    pub tokens: usize,
}

/// Tokenized texts, shortest first.
struct LengthPool<T> {
    texts: BTreeMap<PoolKey, T>,
    /// The sum of the lengths.
    tokens: usize,
}

/// Orders a pool: by length, then by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PoolKey {
    length: usize,
    place: Place,
}

impl Backlog {
    fn has_work(&self) -> bool {
        !self.pending.is_empty() || !self.tokenized.is_empty()
    }

    fn needs_tokenizing(&self) -> bool {
        !self.pending.is_empty() && self.tokenized.len() < MAX_TOKENIZED_TEXTS
    }

    fn oldest(&self) -> Option<PoolKey> {
        let (&place, &length) = self.tokenized.first_key_value()?;
        Some(PoolKey { length, place })
    }
}

impl Flow {
    fn backlog(&self, priority: Priority) -> &Backlog {
        match priority {
            Priority::Live => &self.live,
            Priority::Backfill => &self.backfill,
        }
    }

    fn backlog_mut(&mut self, priority: Priority) -> &mut Backlog {
        match priority {
            Priority::Live => &mut self.live,
            Priority::Backfill => &mut self.backfill,
        }
    }

    /// Adds an entry to the backlog, as far as it waits.
    fn link<R, P>(&mut self, id: EntryId, entry: &Entry<R, P>) {
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

    fn unlink<R, P>(&mut self, id: EntryId, entry: &Entry<R, P>) {
        let place = entry.place(id);
        let backlog = self.backlog_mut(entry.priority);
        backlog.pending.remove(&place);
        backlog.tokenized.remove(&place);
    }
}

impl<R, P> Entry<R, P> {
    fn place(&self, id: EntryId) -> Place {
        Place {
            age: self.age,
            entry: id,
        }
    }

    fn pending(&self) -> Option<&P> {
        match &self.stage {
            Stage::Pending(text) => Some(text),
            _ => None,
        }
    }

    /// Where a tokenized text is in its pool.
    fn pool_key(&self, id: EntryId) -> Option<PoolKey> {
        match self.stage {
            Stage::Tokenized { length } => Some(PoolKey {
                length,
                place: self.place(id),
            }),
            _ => None,
        }
    }
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

    pub(crate) fn open_flow(&mut self, model: ModelKey) -> FlowId {
        let id = FlowId(self.next_flow);
        self.next_flow += 1;
        let flow = Flow {
            model,
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

    /// The tokens of all texts that are ready to run.
    pub(crate) fn tokens(&self) -> usize {
        self.pools.values().map(|pool| pool.tokens).sum()
    }

    /// The next unit of work, or `None` if there is none. `idle` is the number of other workers without work, `budget` the
    /// most padded tokens of a batch, or `None` if no batch is wanted now.
    pub(crate) fn next_work(
        &mut self,
        idle: usize,
        budget: Option<usize>,
    ) -> Option<WorkItem<P, T>> {
        let (id, priority) = self.choose()?;
        let flow = &self.flows[&id];
        // Tokenizing comes first: it is cheap, and the more lengths are known, the better the next batch.
        if flow.backlog(priority).needs_tokenizing() {
            let room = Room {
                texts: MAX_TOKENIZE_TEXTS,
                tokens: usize::MAX,
            };
            let texts = self.take_pending(id, priority, room, |_| 0, || Stage::Tokenizing);
            return Some(WorkItem::Tokenize { texts });
        }
        let oldest = flow.backlog(priority).oldest()?;
        let texts = self.take_batch(flow.model, priority, oldest, idle, budget?);
        self.end_turn(id, priority);
        Some(WorkItem::RunBatch { texts })
    }

    /// The flow whose turn it is, and the priority of its next text.
    fn choose(&self) -> Option<(FlowId, Priority)> {
        let find = |wanted: &dyn Fn(&Flow) -> bool| {
            self.turns
                .iter()
                .copied()
                .find(|id| wanted(&self.flows[id]))
        };
        let backfill = || find(&|flow| flow.backfill.has_work() && !flow.live.has_work());
        if self.live_streak >= MAX_LIVE_STREAK
            && let Some(id) = backfill()
        {
            return Some((id, Priority::Backfill));
        }
        let live = find(&|flow| flow.live.has_work()).map(|id| (id, Priority::Live));
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

    /// The next pending texts as a batch, for a model that takes texts rather than tokens; `None` if there are none. `room` says
    /// how much the model of a text takes at a time, `tokens` about how many a text has.
    pub(crate) fn next_texts(
        &mut self,
        room: impl Fn(&P) -> Room,
        tokens: impl Fn(&P) -> usize,
    ) -> Option<Vec<(EntryId, P)>> {
        let (id, priority) = self.choose()?;
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
            if !backlog.needs_tokenizing() {
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
        budget: usize,
    ) -> Vec<(EntryId, T)> {
        let Some(pool) = self.pools.get(&(model, priority)) else {
            return Vec::new();
        };
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

    fn add_to_pool(&mut self, model: ModelKey, priority: Priority, key: PoolKey, text: T) {
        let pool = self
            .pools
            .entry((model, priority))
            .or_insert_with(LengthPool::new);
        pool.texts.insert(key, text);
        pool.tokens += key.length;
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

impl<T> LengthPool<T> {
    fn new() -> Self {
        Self {
            texts: BTreeMap::new(),
            tokens: 0,
        }
    }

    fn remove(&mut self, key: PoolKey) -> Option<T> {
        let text = self.texts.remove(&key)?;
        self.tokens -= key.length;
        Some(text)
    }

    /// Selects a batch around `seed` that fits into `budget` padded tokens: repeatedly the next shorter or the next
    /// longer text, whichever adds less padding. The seed itself is always selected, however long it is.
    ///
    /// A batch is a rectangle of `rows * width` tokens, where `width` is the length of its longest text. A shorter text
    /// adds one row with `width - length` padding; a longer one widens all rows before it.
    fn neighbors(&self, seed: PoolKey, budget: usize) -> Vec<PoolKey> {
        let mut shorter = self
            .texts
            .range(..seed)
            .rev()
            .map(|(key, _)| *key)
            .peekable();
        let mut longer = self
            .texts
            .range(seed..)
            .skip(1)
            .map(|(key, _)| *key)
            .peekable();
        let mut keys = vec![seed];
        let mut width = seed.length;
        loop {
            let rows = keys.len();
            let fits = |padded: usize, padding: usize| {
                (padded <= budget && padding <= MAX_PADDING).then_some(padding)
            };
            let down = shorter
                .peek()
                .and_then(|key| fits((rows + 1) * width, width - key.length));
            let up = longer
                .peek()
                .and_then(|key| fits((rows + 1) * key.length, rows * (key.length - width)));
            let next = match (down, up) {
                (None, None) => return keys,
                (Some(down), Some(up)) if down <= up => shorter.next(),
                (Some(_), None) => shorter.next(),
                _ => longer.next(),
            };
            let Some(key) = next else { return keys };
            width = width.max(key.length);
            keys.push(key);
        }
    }
}

#[cfg(test)]
mod tests;
