//! Texts of documents: paragraphs of sentences, from none to a few hundred passages.

use testkit::random::Random;

/// What is between paragraphs.
pub const BREAK: &str = "\n\n";

/// A document as users write them: most are short.
pub fn document(random: &mut Random) -> String {
    let paragraphs = match random.below(40) {
        0..24 => random.within(1..4),
        24..38 => random.within(4..16),
        38 => random.within(16..40),
        _ => random.within(60..160),
    };
    paragraphs_of(random, paragraphs)
}

/// A document of some hundred passages.
pub fn long_document(random: &mut Random) -> String {
    paragraphs_of(random, 200)
}

/// A paragraph, which may be one that others have, too.
pub fn paragraph(random: &mut Random) -> String {
    match random.below(20) {
        0 => "The same words, w7 w8 w9 in many documents.".to_owned(),
        1 => format!("# {}", words(random, 1..4)),
        2 => format!("- {}\n- {}", words(random, 2..6), words(random, 2..6)),
        3 => words(random, 30..70),
        _ => {
            let sentences = random.within(1..4);
            let sentence = |_| format!("{}.", words(random, 3..12));
            let sentences: Vec<String> = (0..sentences).map(sentence).collect();
            sentences.join(if sentences.len().is_multiple_of(2) {
                " "
            } else {
                "\n"
            })
        }
    }
}

/// The field of a template, as SQL.
pub fn field(random: &mut Random) -> String {
    match random.below(6) {
        0 => "NULL".to_owned(),
        1 => "''".to_owned(),
        _ => format!("'{}'", words(random, 1..4)),
    }
}

fn paragraphs_of(random: &mut Random, number: u64) -> String {
    let mut paragraphs: Vec<String> = Vec::new();
    for _ in 0..number {
        // The same passage may be in a document several times.
        let next = match random.below(12) {
            0 if !paragraphs.is_empty() => random.pick(&paragraphs).clone(),
            _ => paragraph(random),
        };
        paragraphs.push(next);
    }
    paragraphs.join(BREAK)
}

fn words(random: &mut Random, number: std::ops::Range<u64>) -> String {
    let number = random.within(number);
    let word = |_| match random.below(25) {
        0 => "Mondschein-月".to_owned(),
        1 => "naïve".to_owned(),
        _ => format!("w{}", random.within(1..400)),
    };
    (0..number).map(word).collect::<Vec<_>>().join(" ")
}
