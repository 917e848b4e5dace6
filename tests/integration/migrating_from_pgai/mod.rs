//! docs/migrating-from-pgai.md and its scripts, on vectorizers as pgai makes them.

mod adopting;
mod document;
mod dropping;
mod pgai;
mod translating;

/// A text that fits into one chunk.
pub const SHORT: &str = "Tides follow the moon with a delay of some hours.";

/// A text of this many paragraphs, each of about 300 characters.
pub fn long_text(paragraphs: usize) -> String {
    let paragraph = |n| {
        let sentence = |m: usize| {
            format!(
                "Sentence {m} of part {n} names river {} and its delta. ",
                n * 31 + m * 7
            )
        };
        (0..6)
            .map(sentence)
            .collect::<String>()
            .trim_end()
            .to_owned()
    };
    let paragraphs: Vec<String> = (0..paragraphs).map(paragraph).collect();
    paragraphs.join("\n\n")
}
