//! Which of the places where a passage may end is the one where it ends.

use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::xxh3_64;

use super::level::Level;
use super::pieces::{Piece, Pieces};

/// Bytes behind a place whose hash decides among places of one level. What is before a place does not count: an edit
/// there leaves the place what it was.
const HASHED_BYTES: usize = 64;

/// The least share of its room that a passage fills, by the level of the place where it ends. A small share makes more
/// passages, and a wide choice of places, which is what makes cuts stable (`benches/splitting.rs` shows both).
const fn min_share(level: Level) -> f64 {
    match level {
        Level::Section => 0.25,
        Level::Subsection | Level::Paragraph => 0.3,
        Level::Line => 0.45,
        Level::Sentence => 0.5,
        Level::Wrap => 0.55,
        Level::Word => 0.65,
        Level::Never => 0.8,
    }
}

/// The last passage of a text has at least this share of its room, where the text allows it.
const MIN_LAST_SHARE: f64 = 0.25;

/// A place that was chosen, and how good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub at: usize,
    pub level: Level,
}

/// Where the passage ends that begins with the first piece that is held and has room for so many tokens. `None` if it
/// is the last one.
pub(super) fn next_cut(text: &str, pieces: &mut Pieces, room: usize) -> Option<Cut> {
    let window = Window::read(pieces, room)?;
    // Places near the end of the text would leave it a tiny passage.
    [window.latest.min(room), room]
        .into_iter()
        .find_map(|most| best_piece(text, &window, most).or_else(|| best_word(text, &window, most)))
        .or_else(|| best_character(text, &window))
        .or_else(|| behind_gap(text, &window))
}

/// The pieces from the beginning of a passage to where it must end, with the tokens before each.
struct Window {
    pieces: Vec<(usize, Piece)>,
    room: usize,
    /// So many tokens after the beginning is the last place that leaves enough for the last passage.
    latest: usize,
}

impl Window {
    /// `None` if the rest of the text fits.
    fn read(pieces: &mut Pieces, room: usize) -> Option<Self> {
        let last = (room as f64 * MIN_LAST_SHARE) as usize;
        let (mut before, mut found) = (0_usize, Vec::new());
        let mut index = 0;
        let latest = loop {
            let Some(piece) = pieces.get(index) else {
                break before.saturating_sub(last);
            };
            if before <= room {
                found.push((before, piece));
            }
            before += piece.tokens;
            index += 1;
            if before > room + last {
                break room;
            }
        };
        (before > room).then_some(Self {
            pieces: found,
            room,
            latest,
        })
    }

    fn least(&self, level: Level) -> usize {
        ((self.room as f64 * min_share(level)) as usize).max(1)
    }
}

/// Less is better: the level, the hash of what follows, and the later place, which is where equals lead.
fn key(text: &str, at: usize, level: Level) -> (Level, u64, std::cmp::Reverse<usize>) {
    let end = text.len().min(at + HASHED_BYTES);
    let hash = xxh3_64(&text.as_bytes()[at..end]);
    (level, hash, std::cmp::Reverse(at))
}

/// The best place that is more than a word.
fn best_piece(text: &str, window: &Window, most: usize) -> Option<Cut> {
    let places = window.pieces[1..].iter().filter(|(before, piece)| {
        piece.level < Level::Word && *before <= most && *before >= window.least(piece.level)
    });
    let best = places.min_by_key(|(_, piece)| key(text, piece.start, piece.level))?;
    Some(Cut {
        at: best.1.start,
        level: best.1.level,
    })
}

/// The best place between two words.
fn best_word(text: &str, window: &Window, most: usize) -> Option<Cut> {
    let least = window.least(Level::Word);
    let mut best = None;
    for (index, (before, piece)) in window.pieces.iter().enumerate() {
        if before + piece.tokens < least {
            continue;
        }
        let part = &text[piece.start..piece.end];
        let begins_word = index > 0 && piece.level == Level::Word;
        let within = word_starts(part).map(|start| piece.start + start);
        for at in begins_word.then_some(piece.start).into_iter().chain(within) {
            let tokens = before + tokens_before(piece, at);
            if (least..=most).contains(&tokens) {
                let key = key(text, at, Level::Word);
                best = best.min(Some(key)).or(Some(key));
            }
        }
    }
    let (level, _, std::cmp::Reverse(at)) = best?;
    Some(Cut { at, level })
}

/// The best place in a long word; the last one that fits if there is none.
fn best_character(text: &str, window: &Window) -> Option<Cut> {
    let least = window.least(Level::Never);
    let start = window.pieces[0].1.start;
    let mut best = None;
    let mut last = None;
    for (before, piece) in &window.pieces {
        let part = &text[piece.start..piece.end];
        for (offset, character) in part.grapheme_indices(true) {
            let at = piece.start + offset;
            let tokens = before + tokens_before(piece, at);
            if at == start || character.trim_start().is_empty() {
                continue;
            }
            if tokens <= window.room || last.is_none() {
                last = Some(at);
            }
            if (least..=window.room).contains(&tokens) {
                let key = key(text, at, Level::Never);
                best = best.min(Some(key)).or(Some(key));
            }
        }
    }
    let at = best.map_or(last, |(_, _, std::cmp::Reverse(at))| Some(at))?;
    Some(Cut {
        at,
        level: Level::Never,
    })
}

/// The next word, where a character has nothing but white space behind it for as far as a passage reaches.
fn behind_gap(text: &str, window: &Window) -> Option<Cut> {
    let start = window.pieces[0].1.start;
    let rest = &text[text.ceil_char_boundary(start + 1)..];
    let end = rest.find(char::is_whitespace)?;
    let word = rest[end..].trim_start();
    (!word.is_empty()).then_some(Cut {
        at: text.len() - word.len(),
        level: Level::Never,
    })
}

/// Tokens of a piece before a place in it, as if they were equally long.
pub(super) fn tokens_before(piece: &Piece, at: usize) -> usize {
    (at - piece.start) * piece.tokens / (piece.end - piece.start).max(1)
}

/// Where words begin that have white space before them.
pub(super) fn word_starts(text: &str) -> impl Iterator<Item = usize> {
    let pairs = text.char_indices().zip(text.chars().skip(1));
    pairs
        .filter(|((_, before), c)| before.is_whitespace() && !c.is_whitespace())
        .map(|((at, before), _)| at + before.len_utf8())
}
