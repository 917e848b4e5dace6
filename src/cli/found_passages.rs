//! How `search` prints the passage of a document with its neighbours.
//!
//! ```text
//! similarity 0.731, id 17, passage 3 (characters 1201 to 1873)
//!   before   …and so the water of the bay comes and goes.
//!   passage  The tides follow the moon with a delay. The delay is that of the wave, which has to
//!            go around the coast, and …
//!   after    On the other side of the strait the wave arrives …
//! ```

use serde_json::{Value, json};
use unicode_segmentation::UnicodeSegmentation;

use crate::cli::table::{fit, fit_end, width};
use crate::pipeline::commands::search::found::{FoundPassage, FoundRow, Passage};

/// The names of what JSON has of a document, besides the similarity and the columns of its row.
pub const MEMBERS: [&str; 7] = [
    "distance",
    "chunk_seq",
    "chunk_start",
    "chunk_end",
    "chunk",
    "before",
    "after",
];

/// How wide a line of text is, in terminal columns.
const WIDTH: usize = 80;
/// How many of them a passage takes.
const LINES: usize = 4;
/// The widest value of a column of the row.
const VALUE_WIDTH: usize = 50;

/// The values of [`MEMBERS`].
pub fn members(row: &FoundRow, found: &FoundPassage) -> [Value; MEMBERS.len()] {
    let Passage {
        seq,
        start,
        end,
        chunk,
    } = &found.itself;
    let neighbor = |passage: &Passage| {
        json!({
            "chunk_seq": passage.seq,
            "chunk_start": passage.start,
            "chunk_end": passage.end,
            "chunk": passage.chunk,
        })
    };
    [
        row.distance.into(),
        (*seq).into(),
        (*start).into(),
        (*end).into(),
        chunk.as_str().into(),
        found.before.as_ref().map(neighbor).into(),
        found.after.as_ref().map(neighbor).into(),
    ]
}

/// The lines for people. `values` are the names and values of the figures, and of the columns of the row.
pub fn lines(values: &[(&str, &str)], found: &FoundPassage) -> Vec<String> {
    let passage = &found.itself;
    let value = |(name, value): &(&str, &str)| format!("{name} {}", fit(value, VALUE_WIDTH));
    let mut head: Vec<String> = values.iter().map(value).collect();
    head.push(match (passage.start, passage.end) {
        (Some(start), Some(end)) => {
            format!("passage {} (characters {start} to {end})", passage.seq)
        }
        _ => format!("passage {}", passage.seq),
    });
    let mut lines = vec![head.join(", ")];
    let before = found.before.as_ref().map(|it| text_before(it, passage));
    let after = found.after.as_ref().map(|it| text_after(it, passage));
    if let Some(text) = before.filter(|text| !text.is_empty()) {
        lines.push(format!("  before   {}", fit_end(&text, WIDTH)));
    }
    for (number, line) in wrapped(&on_one_line(&passage.chunk)).iter().enumerate() {
        let label = if number == 0 { "passage" } else { "" };
        lines.push(format!("  {label:7}  {line}"));
    }
    if let Some(text) = after.filter(|text| !text.is_empty()) {
        lines.push(format!("  after    {}", fit(&text, WIDTH)));
    }
    lines
}

/// The text of the passage before, as far as it is not in this one, too.
fn text_before(before: &Passage, passage: &Passage) -> String {
    let own = match (before.start, passage.start) {
        (Some(start), Some(end)) => usize::try_from(end - start).unwrap_or(0),
        _ => usize::MAX,
    };
    on_one_line(&before.chunk.chars().take(own).collect::<String>())
}

/// The text of the passage after, likewise.
fn text_after(after: &Passage, passage: &Passage) -> String {
    let shared = match (after.start, passage.end) {
        (Some(start), Some(end)) => usize::try_from(end - start).unwrap_or(0),
        _ => 0,
    };
    on_one_line(&after.chunk.chars().skip(shared).collect::<String>())
}

fn on_one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}

/// The text over about [`LINES`] lines, divided between words, and cut behind that.
fn wrapped(text: &str) -> Vec<String> {
    let text = fit(text, WIDTH * LINES);
    let mut lines = vec![String::new()];
    for word in text.split_word_bounds() {
        let line = lines.last_mut().expect("there is one from the start");
        if width(line) + width(word) <= WIDTH {
            line.push_str(word);
        } else {
            lines.push(fit(word.trim_start(), WIDTH));
        }
    }
    lines.iter().map(|line| line.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(seq: i32, start: i32, chunk: &str) -> Passage {
        Passage {
            seq,
            start: Some(start),
            end: Some(start + i32::try_from(chunk.chars().count()).unwrap()),
            chunk: chunk.into(),
        }
    }

    #[test]
    fn neighbors_are_shown_without_what_they_share_with_the_passage() {
        let found = FoundPassage {
            before: Some(passage(0, 0, "Ebb and\nflow. The moon")),
            itself: passage(1, 14, "The moon pulls. Über"),
            after: Some(passage(2, 30, "Über all.")),
        };
        assert_eq!(
            lines(&[("similarity", "0.5"), ("id", "a\nb")], &found),
            [
                "similarity 0.5, id a b, passage 1 (characters 14 to 34)",
                "  before   Ebb and flow.",
                "  passage  The moon pulls. Über",
                "  after    all.",
            ]
        );
        let alone = FoundPassage {
            before: None,
            after: None,
            ..found
        };
        assert_eq!(lines(&[], &alone).len(), 2);
    }

    #[test]
    fn a_long_passage_is_wrapped_between_words_and_cut() {
        let lines = wrapped(&"twelve words ".repeat(100));
        assert!((LINES..=LINES + 1).contains(&lines.len()), "{lines:?}");
        assert!(lines.iter().all(|line| width(line) <= WIDTH), "{lines:?}");
        assert!(lines[0].ends_with("words") || lines[0].ends_with("twelve"));
        assert!(lines.last().is_some_and(|line| line.ends_with('…')));
        // Ideographs have no blanks between them, and a link has none either.
        for text in ["論理複製".repeat(100), "x".repeat(1000)] {
            assert!(wrapped(&text).iter().all(|line| width(line) <= WIDTH));
        }
    }
}
