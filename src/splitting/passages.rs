//! Passages of a document: what is between two cuts, with its overlap, without white space around it.

use std::ops::Range;

use super::cuts::{Cut, next_cut};
use super::level::Level;
use super::overlap;
use super::passage::{Passage, Splitting};
use super::pieces::{MAX_BYTES_PER_TOKEN, Piece, Pieces};
use super::token_count::TokenCount;

/// How often a passage that the counter finds too long is made shorter by what is too much, before it is halved.
const MAX_CORRECTIONS: usize = 4;

/// Cuts a text into passages.
///
/// - Every character that is no white space is in a passage, and no passage begins or ends with white space. A text of
///   white space alone is one passage; an empty text has none.
/// - No passage has more than `max_tokens` tokens, unless a single character has, or the text is white space.
/// - A text that has no more tokens than that is one passage.
/// - They are in the order of the text, and each begins behind the beginning of the one before.
/// - The same text has the same passages, and an edit changes those near it.
///
/// It takes about three times as long as counting the tokens of the text, and memory for the passages; with
/// [`Mode::Code`](super::Mode::Code) and up to 2 MiB of text also for its syntax tree.
///
/// ```
/// use lantern::splitting::{Mode, Splitting, split};
///
/// let splitting = Splitting { mode: Mode::Text, max_tokens: 4, overlap: 0 };
/// let words = |text: &str| text.split_whitespace().count();
/// let text = "One sentence. And another one.\n\nA paragraph.";
/// let passages: Vec<&str> = split(text, &splitting, &words).iter().map(|it| &text[it.bytes.clone()]).collect();
/// assert_eq!(passages, ["One sentence.", "And another one.", "A paragraph."]);
/// ```
pub fn split(text: &str, splitting: &Splitting, counter: &dyn TokenCount) -> Vec<Passage> {
    if text.trim().is_empty() {
        let all = Passage {
            bytes: 0..text.len(),
            chars: 0..text.chars().count(),
        };
        return if text.is_empty() {
            Vec::new()
        } else {
            vec![all]
        };
    }
    let max_tokens = splitting.max_tokens.max(1);
    let overlap = splitting.overlap.min(max_tokens / 2);
    let room = (max_tokens - overlap).max(1);
    let mut cutter = Cutter {
        text,
        pieces: Pieces::new(text, splitting.mode, room, counter),
        counter,
        max_tokens,
        overlap,
        room,
        passages: Vec::new(),
        counted: (0, 0),
    };
    cutter.run();
    cutter.passages
}

struct Cutter<'a> {
    text: &'a str,
    pieces: Pieces<'a>,
    counter: &'a dyn TokenCount,
    max_tokens: usize,
    overlap: usize,
    room: usize,
    passages: Vec<Passage>,
    /// A byte, and how many characters are before it.
    counted: (usize, usize),
}

impl Cutter<'_> {
    fn run(&mut self) {
        let begin = self.text.len() - self.text.trim_start().len();
        if self.is_whole() {
            self.push(begin, self.text.len());
            return;
        }
        let mut start = begin;
        let mut core = begin;
        while core < self.text.len() {
            let (start_used, cut) = self.passage(start, core);
            let end = cut.map_or(self.text.len(), |cut| cut.at);
            self.push(start_used, end);
            let Some(cut) = cut else { return };
            self.pieces.divide(cut.at);
            let before = self.pieces_before(cut.at);
            start = overlap::start(self.text, cut, &before, core, self.overlap, self.counter);
            self.pieces.forget(cut.at);
            core = cut.at;
        }
    }

    /// Whether the text is one passage: with nothing to repeat, it has more room than others.
    fn is_whole(&self) -> bool {
        let text = self.text.trim();
        text.len() / MAX_BYTES_PER_TOKEN <= self.max_tokens
            && self.tokens(0..self.text.len()) <= self.max_tokens
    }

    /// Where the passage begins whose own text begins at `core`, and the cut that ends it. The counter has the last word:
    /// tokens of pieces are not always those of the whole.
    fn passage(&mut self, start: usize, core: usize) -> (usize, Option<Cut>) {
        // What is repeated leaves the rest.
        let repeated = if start < core {
            self.tokens(start..core)
        } else {
            0
        };
        let mut room = self.max_tokens.saturating_sub(repeated).max(1);
        for _ in 0..MAX_CORRECTIONS {
            let cut = next_cut(self.text, &mut self.pieces, room);
            let end = cut.map_or(self.text.len(), |cut| cut.at);
            let tokens = self.tokens(start..end);
            if tokens <= self.max_tokens {
                return (start, cut);
            }
            room = room.saturating_sub(tokens - self.max_tokens);
            if room == 0 {
                break;
            }
        }
        self.forced(core)
    }

    /// As much as fits, without an overlap: at least one character.
    fn forced(&mut self, core: usize) -> (usize, Option<Cut>) {
        let reach = self.room.saturating_mul(MAX_BYTES_PER_TOKEN);
        let mut end = self
            .text
            .floor_char_boundary(self.text.len().min(core.saturating_add(reach)));
        let least = self.text.ceil_char_boundary(core + 1);
        while end > least && self.tokens(core..end) > self.max_tokens {
            end = self
                .text
                .floor_char_boundary(core + (end - core) / 2)
                .max(least);
        }
        // The next passage begins with a word.
        end += self.text[end..].len() - self.text[end..].trim_start().len();
        let cut = Cut {
            at: end,
            level: Level::Never,
        };
        (core, (end < self.text.len()).then_some(cut))
    }

    fn tokens(&self, range: Range<usize>) -> usize {
        self.counter.count(self.text[range].trim())
    }

    fn pieces_before(&mut self, at: usize) -> Vec<Piece> {
        let mut before = Vec::new();
        while let Some(piece) = self.pieces.get(before.len())
            && piece.end <= at
        {
            before.push(piece);
        }
        before
    }

    fn push(&mut self, start: usize, end: usize) {
        let end = start + self.text[start..end].trim_end().len();
        let first = self.chars_before(start);
        let length = self.text[start..end].chars().count();
        self.passages.push(Passage {
            bytes: start..end,
            chars: first..first + length,
        });
    }

    /// Characters before a byte. Starts of passages only grow, so that each part of the text is counted once.
    fn chars_before(&mut self, at: usize) -> usize {
        let (byte, chars) = self.counted;
        self.counted = (at, chars + self.text[byte..at].chars().count());
        self.counted.1
    }
}
