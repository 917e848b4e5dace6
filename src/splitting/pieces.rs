//! A document as pieces between places that may become cuts, each with the number of its tokens.

use std::collections::VecDeque;

use super::boundaries::{Boundaries, Boundary};
use super::level::Level;
use super::mode::Mode;
use super::token_count::TokenCount;

/// Bytes that stand for a token in any case. A tokenizer may make nothing of white space, or one token of an endless
/// word; a passage of such a text has an end all the same. As many as a model looks at for each token of its window.
pub(super) const MAX_BYTES_PER_TOKEN: usize = 64;

/// A part of the text that begins at a place of this level. It ends where the next one begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub start: usize,
    pub end: usize,
    pub level: Level,
    /// What it takes of a passage: its tokens, or more where it has few for its length.
    pub tokens: usize,
}

/// The pieces of a document, in order. Only a part of them is held: those around the passage that is cut.
pub(super) struct Pieces<'a> {
    text: &'a str,
    counter: &'a dyn TokenCount,
    boundaries: Boundaries<'a>,
    /// The place that was seen, and is not yet in a piece.
    ahead: Option<Boundary>,
    start: usize,
    level: Level,
    max_bytes: usize,
    held: VecDeque<Piece>,
}

impl<'a> Pieces<'a> {
    /// Those of a document for passages with so many tokens: smaller passages need smaller pieces.
    pub(super) fn new(text: &'a str, mode: Mode, room: usize, counter: &'a dyn TokenCount) -> Self {
        let mut boundaries = Boundaries::new(text, mode);
        let start = text.len() - text.trim_start().len();
        let mut ahead = boundaries.next();
        while ahead.is_some_and(|place| place.at <= start) {
            ahead = boundaries.next();
        }
        Self {
            text,
            counter,
            ahead,
            boundaries,
            start,
            level: Level::Section,
            max_bytes: room.saturating_mul(2).clamp(16, 256),
            held: VecDeque::new(),
        }
    }

    /// Forgets the pieces that end at this place or before.
    pub(super) fn forget(&mut self, at: usize) {
        while self.held.front().is_some_and(|piece| piece.end <= at) {
            self.held.pop_front();
        }
    }

    /// The piece with this number, among those that are held; `None` behind the end of the text.
    pub(super) fn get(&mut self, index: usize) -> Option<Piece> {
        while self.held.len() <= index {
            let piece = self.read()?;
            self.held.push_back(piece);
        }
        self.held.get(index).copied()
    }

    /// Cuts the piece in which this place is, so that one begins there.
    pub(super) fn divide(&mut self, at: usize) {
        if self.start < at {
            self.skip(at);
        }
        let found = self
            .held
            .iter()
            .position(|piece| piece.start < at && at < piece.end);
        let Some(index) = found else { return };
        let whole = self.held[index];
        let part = |start, end, level| Piece {
            start,
            end,
            level,
            tokens: self.cost(start, end),
        };
        let (first, second) = (
            part(whole.start, at, whole.level),
            part(at, whole.end, Level::Never),
        );
        self.held[index] = first;
        self.held.insert(index + 1, second);
    }

    /// Goes on at a place that is not reached yet, without counting what is before it.
    fn skip(&mut self, at: usize) {
        self.held.clear();
        (self.start, self.level) = (at, Level::Never);
        while self.ahead.is_some_and(|place| place.at <= at) {
            self.ahead = self.boundaries.next();
        }
    }

    fn read(&mut self) -> Option<Piece> {
        if self.start >= self.text.len() {
            return None;
        }
        let (end, level) = self.end();
        let piece = Piece {
            start: self.start,
            end,
            level: self.level,
            tokens: self.cost(self.start, end),
        };
        (self.start, self.level) = (end, level);
        Some(piece)
    }

    /// Where the next piece ends: before something that is more than a word, or else where it is long enough.
    fn end(&mut self) -> (usize, Level) {
        let limit = self.start + self.max_bytes;
        let mut last_word = None;
        loop {
            match self.ahead {
                Some(place) if place.at <= limit => {
                    self.ahead = self.boundaries.next();
                    if place.level < Level::Word {
                        return (place.at, place.level);
                    }
                    last_word = Some(place);
                    if place.at + self.max_bytes / 4 > limit {
                        break;
                    }
                }
                _ => break,
            }
        }
        if let Some(place) = last_word {
            return (place.at, place.level);
        }
        if self.text.len() <= limit {
            return (self.text.len(), Level::Never);
        }
        // In the middle of a long word, or of white space.
        let mut end = self.text.floor_char_boundary(limit);
        if end <= self.start {
            end = self.text.ceil_char_boundary(self.start + 1);
        }
        match self.ahead {
            // Not far before the next place, which would leave next to nothing.
            Some(place) if place.at <= end => {
                self.ahead = self.boundaries.next();
                (place.at, place.level)
            }
            _ => (end, Level::Never),
        }
    }

    fn cost(&self, start: usize, end: usize) -> usize {
        let bytes = (end - start) / MAX_BYTES_PER_TOKEN;
        self.counter.count(&self.text[start..end]).max(bytes)
    }
}
