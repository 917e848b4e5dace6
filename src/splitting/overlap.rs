//! How much of the text before a cut a passage repeats.

use super::cuts::{Cut, word_starts};
use super::level::Level;
use super::pieces::Piece;
use super::token_count::TokenCount;

/// Where the passage begins that follows a cut: at most `overlap` tokens before it, and not before `after`. It depends
/// on the text right before the cut alone.
///
/// It begins with a sentence if one fills at least half of the overlap, or else with a word. A section begins with its
/// heading: what is before that is about something else.
pub(super) fn start(
    text: &str,
    cut: Cut,
    before: &[Piece],
    after: usize,
    overlap: usize,
    counter: &dyn TokenCount,
) -> usize {
    if overlap == 0 || matches!(cut.level, Level::Section | Level::Subsection) {
        return cut.at;
    }
    let (mut tokens, mut sentence) = (0, cut.at);
    let mut filled = 0;
    for piece in before.iter().rev().filter(|piece| piece.end <= cut.at) {
        if piece.start <= after || tokens + piece.tokens > overlap {
            break;
        }
        tokens += piece.tokens;
        if piece.level < Level::Word {
            (sentence, filled) = (piece.start, tokens);
        }
    }
    if filled * 2 >= overlap {
        return sentence;
    }
    word(text, cut.at, after, overlap, counter).min(sentence)
}

/// The first word from which at most `overlap` tokens lead to a cut, or one of the next.
fn word(text: &str, cut: usize, after: usize, overlap: usize, counter: &dyn TokenCount) -> usize {
    // Words of natural languages have fewer bytes for each token than this.
    let reach = overlap.saturating_mul(8);
    let from = text.ceil_char_boundary(cut.saturating_sub(reach).max(after));
    let starts = word_starts(&text[from..cut]).map(|start| from + start);
    let mut starts: Vec<usize> = starts.filter(|start| *start > after).collect();
    // Each count leaves the words that it finds to be too many, as if words were equally long.
    while let Some(first) = starts.first().copied() {
        let tokens = counter.count(text[first..cut].trim_end());
        if tokens <= overlap {
            return first;
        }
        let beyond = (starts.len() * (tokens - overlap)).div_ceil(tokens);
        starts.drain(..beyond);
    }
    cut
}
