//! What holds of the passages of every text.

use std::collections::HashSet;
use std::ops::Range;

use proptest::prelude::*;

use super::{Language, Mode, Passage, Splitting, split};

/// About like the tokenizer of a model: a word has a token for each of its first letters or so, and each other character
/// is one.
fn tokens(text: &str) -> usize {
    text.split_whitespace()
        .map(|word| match word.is_ascii() {
            true => word.len().div_ceil(5),
            false => word.chars().count(),
        })
        .sum()
}

/// A counter for which parts have more tokens than the whole, and white space counts.
fn rough(text: &str) -> usize {
    text.len().div_ceil(4) + 2
}

/// A counter for which the whole has more tokens than its parts.
fn growing(text: &str) -> usize {
    tokens(text) * tokens(text) / 10
}

fn texts<'a>(text: &'a str, passages: &[Passage]) -> Vec<&'a str> {
    passages.iter().map(|it| &text[it.bytes.clone()]).collect()
}

fn check(text: &str, splitting: &Splitting, counter: &dyn Fn(&str) -> usize) {
    let passages = split(text, splitting, &|part: &str| counter(part));
    assert_eq!(
        passages,
        split(text, splitting, &|part: &str| counter(part))
    );
    if text.trim().is_empty() {
        let all: Vec<Range<usize>> = passages.iter().map(|it| it.bytes.clone()).collect();
        let expected = if text.is_empty() {
            vec![]
        } else {
            std::iter::once(0..text.len()).collect::<Vec<_>>()
        };
        assert_eq!(all, expected);
        return;
    }
    let whole = text.trim();
    if counter(whole) <= splitting.max_tokens && whole.len() <= 64 * splitting.max_tokens {
        assert_eq!(texts(text, &passages), [whole]);
    }
    let mut covered = 0;
    let mut begin = None;
    for passage in &passages {
        let Range { start, end } = passage.bytes.clone();
        let part = &text[start..end];
        assert!(!part.is_empty() && part.trim() == part, "{part:?}");
        assert!(begin < Some(start), "{passages:?}");
        begin = Some(start);
        if start > covered {
            assert_eq!(text[covered..start].trim(), "", "not covered");
        }
        covered = covered.max(end);
        assert!(
            counter(part) <= splitting.max_tokens || part.chars().count() == 1,
            "{} tokens: {part:?}",
            counter(part)
        );
        assert_eq!(passage.chars.start, text[..start].chars().count());
        assert_eq!(passage.chars.len(), part.chars().count());
    }
    assert_eq!(text[covered..].trim(), "", "not covered");
}

fn modes() -> impl Strategy<Value = Mode> {
    let code = [Language::Rust, Language::Python, Language::TypeScript].map(Mode::Code);
    prop::sample::select([vec![Mode::Text, Mode::Markdown], code.to_vec()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_text_is_covered_by_passages_that_fit(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "word", "A sentence ends.", " ", "\n", "\n\n", "\r\n", "\t", "# Heading\n", "```\n", "- item", "fn f() {\n",
                "}\n", "変更を送る。", "é", "e\u{301}", "👩‍👩‍👧", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "\u{3000}", "ꙮ", "/// doc\n", "(\"x\")", "class A:\n    def f(self):\n        pass\n", "===\n",
                "                                                                                                     ",
            ]),
            0..120,
        ),
        max_tokens in 1_usize..60,
        share in 0_usize..60,
        mode in modes(),
        counter in 0_usize..3,
    ) {
        let splitting = Splitting { mode, max_tokens, overlap: max_tokens * share / 100 };
        let counters: [&dyn Fn(&str) -> usize; 3] = [&tokens, &rough, &growing];
        check(&parts.concat(), &splitting, counters[counter]);
        check(&parts.join(" "), &splitting, counters[counter]);
    }
}

/// Paragraphs of sentences, the same for the same seed.
fn paragraphs(random: &mut fastrand::Rng, count: usize) -> Vec<String> {
    let word = |random: &mut fastrand::Rng| {
        let length = random.usize(1..5) + random.usize(1..5);
        (0..length).map(|_| random.lowercase()).collect::<String>()
    };
    let sentence = |random: &mut fastrand::Rng| {
        let words: Vec<String> = (0..random.usize(4..22)).map(|_| word(random)).collect();
        format!("{}{}.", random.uppercase(), words.join(" "))
    };
    let mut paragraph = || {
        let sentences: Vec<String> = (0..random.usize(1..8)).map(|_| sentence(random)).collect();
        sentences.join(" ")
    };
    (0..count).map(|_| paragraph()).collect()
}

const USUAL: Splitting = Splitting {
    mode: Mode::Text,
    max_tokens: 254,
    overlap: 25,
};

/// A document of blocks that are divided by empty lines, with something of everything that its mode knows.
fn blocks(random: &mut fastrand::Rng, mode: Mode, count: usize) -> Vec<String> {
    let prose = paragraphs(random, count);
    let block = |(number, prose): (usize, String)| match (mode, random.usize(0..8)) {
        (Mode::Text, _) => prose,
        (Mode::Markdown, 0) => format!("## Part {number}\n\n{prose}"),
        (Mode::Markdown, 1) => format!("### Part {number}\n\n{prose}"),
        (Mode::Markdown, 2) => format!("- {}", prose.replace(". ", ".\n- ")),
        (Mode::Markdown, 3) => format!("```sh\n{}\n```", prose.replace(". ", "\n")),
        (Mode::Markdown, _) => prose,
        (Mode::Code(_), kind) => {
            let body = prose
                .to_lowercase()
                .replace(". ", ";\n    ")
                .replace(' ', "_");
            let body = body.trim_end_matches('.');
            match kind {
                0 => format!("/// Says {number}.\nstruct S{number} {{\n    {body}: u32,\n}}"),
                1 => format!("impl S{number} {{\n    fn f() {{\n    {body};\n    }}\n}}"),
                _ => format!("/// Does {number}.\nfn f_{number}() {{\n    {body};\n}}"),
            }
        }
    };
    (0..count).zip(prose).map(block).collect()
}

/// How many passages of the text after an edit are new. They are near the edit.
fn new_passages(before: &HashSet<String>, after: &str, splitting: &Splitting, at: usize) -> usize {
    let passages = split(after, splitting, &tokens);
    let is_new = |passage: &&Passage| !before.contains(&after[passage.bytes.clone()]);
    let new: Vec<&Passage> = passages.iter().filter(is_new).collect();
    for passage in &new {
        assert!(passage.bytes.end + 4_000 > at, "far before the edit");
        assert!(passage.bytes.start < at + 12_000, "far behind the edit");
    }
    new.len()
}

#[test]
fn an_edit_changes_only_passages_near_it() {
    for mode in [Mode::Text, Mode::Markdown, Mode::Code(Language::Rust)] {
        let splitting = Splitting { mode, ..USUAL };
        for place in [3, 150, 296] {
            let mut changed = Vec::new();
            for seed in 0..30 {
                let random = &mut fastrand::Rng::with_seed(seed);
                let blocks = blocks(random, mode, 300);
                let other = self::blocks(random, mode, 1).remove(0);
                let text = blocks.join("\n\n");
                let passages = split(&text, &splitting, &tokens);
                let known = texts(&text, &passages)
                    .into_iter()
                    .map(str::to_owned)
                    .collect();
                let mut rewritten = blocks.clone();
                rewritten[place] = other.clone();
                let mut inserted = blocks.clone();
                inserted.insert(place, other);
                let mut deleted = blocks.clone();
                deleted.remove(place);
                let at: usize = blocks[..place].iter().map(|it| it.len() + 2).sum();
                for edited in [rewritten, inserted, deleted] {
                    changed.push(new_passages(&known, &edited.join("\n\n"), &splitting, at));
                }
            }
            changed.sort_unstable();
            let mean = changed.iter().sum::<usize>() as f64 / changed.len() as f64;
            assert!(mean <= 2.5, "{mode} at {place}: {mean}");
            assert!(
                changed[changed.len() * 95 / 100] <= 3,
                "{mode} at {place}: {changed:?}"
            );
        }
    }
}

#[test]
fn a_text_that_fits_is_one_passage_and_one_that_grows_is_cut() {
    let mut text = paragraphs(&mut fastrand::Rng::with_seed(5), 2).join("\n\n");
    while tokens(&text) < USUAL.max_tokens {
        text.push_str(" a");
    }
    for mode in [Mode::Text, Mode::Markdown, Mode::Code(Language::Rust)] {
        let splitting = Splitting { mode, ..USUAL };
        let padded = format!("\n  {text}\n");
        assert_eq!(
            texts(&padded, &split(&padded, &splitting, &tokens)),
            [&text]
        );
        let longer = format!("{text} a");
        assert_eq!(split(&longer, &splitting, &tokens).len(), 2);
    }
}

#[test]
fn passages_are_filled_and_none_is_tiny() {
    let text = paragraphs(&mut fastrand::Rng::with_seed(7), 2_000).join("\n\n");
    let passages = split(&text, &USUAL, &tokens);
    let sizes: Vec<usize> = texts(&text, &passages).into_iter().map(tokens).collect();
    let mean = sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
    assert!(mean > 0.6 * 254.0, "{mean}");
    assert!(
        sizes.iter().all(|size| *size >= 50),
        "{:?}",
        sizes.iter().min()
    );
}

#[test]
fn passages_begin_at_paragraphs_and_repeat_a_sentence() {
    let text = "One two three. Four five six.\n\nSeven eight nine ten. Eleven.\n\nTwelve thirteen.";
    let words = |text: &str| text.split_whitespace().count();
    let splitting = |max_tokens, overlap| Splitting {
        mode: Mode::Text,
        max_tokens,
        overlap,
    };
    let cut = |max_tokens, overlap| {
        let passages = split(text, &splitting(max_tokens, overlap), &words);
        texts(text, &passages)
    };
    assert_eq!(cut(20, 0), [text]);
    assert_eq!(
        cut(6, 0),
        [
            "One two three. Four five six.",
            "Seven eight nine ten. Eleven.",
            "Twelve thirteen."
        ]
    );
    assert_eq!(
        cut(9, 3),
        [
            "One two three. Four five six.",
            "Four five six.\n\nSeven eight nine ten. Eleven.",
            "nine ten. Eleven.\n\nTwelve thirteen."
        ]
    );
}

#[test]
fn a_heading_stays_with_its_section() {
    let section = |number: usize| {
        format!("## Section {number}\n\nA sentence of it. And one more that is longer.\n\n")
    };
    let text: String = (0..40).map(section).collect();
    let splitting = Splitting {
        mode: Mode::Markdown,
        max_tokens: 40,
        overlap: 4,
    };
    let passages = split(&text, &splitting, &tokens);
    assert!(passages.len() > 5);
    for passage in texts(&text, &passages) {
        assert!(passage.starts_with("## Section"), "{passage}");
        assert!(passage.ends_with("longer."), "{passage}");
    }
}

/// How many bytes the counter was given for each byte of the text, and the longest text it was given.
fn effort(text: &str) -> (f64, usize) {
    let (sum, most) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let counter = |part: &str| {
        sum.set(sum.get() + part.len());
        most.set(most.get().max(part.len()));
        tokens(part)
    };
    let passages = split(text, &USUAL, &counter);
    assert!(!passages.is_empty());
    (sum.get() as f64 / text.len() as f64, most.get())
}

#[test]
fn the_counter_is_given_little_more_than_the_text_in_small_parts() {
    let mib = 1 << 20;
    let prose = paragraphs(&mut fastrand::Rng::with_seed(3), 2_000).join("\n\n");
    for (name, text) in [
        ("prose", prose),
        ("a word", "a".repeat(mib)),
        (
            "white space between words",
            format!("a{}b", " ".repeat(mib)),
        ),
        ("short lines", "a\n".repeat(mib / 2)),
        ("wide characters", "変更".repeat(mib / 6)),
        ("open brackets", "(".repeat(mib)),
    ] {
        let (share, most) = effort(&text);
        assert!(share < 3.0, "{name}: {share}");
        assert!(most <= 64 * 254 * 2, "{name}: {most}");
    }
}

#[test]
fn white_space_alone_is_one_passage_and_an_empty_text_has_none() {
    for text in ["", " ", "\n\n", "\u{3000}\t"] {
        check(text, &USUAL, &tokens);
    }
}
