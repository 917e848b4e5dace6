//! Documents in passages: how full the passages are, what cutting costs, and how many passages an edit makes new. Beside
//! it text-splitter alone, which fills one passage after the other.
//!
//! Run: `cargo bench --bench splitting` (after `make setup`). `SEEDS=400` edits more documents than 100.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use lantern::embedding::TextTokenizer;
use lantern::splitting::{Language, Mode, Splitting, split};
use testkit::engine::MODEL;
use testkit::paths::runtime;
use text_splitter::{ChunkConfig, ChunkSizer, CodeSplitter, MarkdownSplitter, TextSplitter};

const MAX_TOKENS: usize = 254;
const OVERLAP: usize = 25;
/// Of the documents that are edited: about 200 passages.
const PARAGRAPHS: usize = 440;

/// A tokenizer that may know texts by heart: an edited document is mostly the one before.
struct Tokens {
    tokenizer: TextTokenizer,
    known: Option<RefCell<HashMap<String, usize>>>,
}

impl Tokens {
    fn count(&self, text: &str) -> usize {
        let Some(known) = &self.known else {
            return self.tokenizer.count(text).expect("tokens");
        };
        if let Some(count) = known.borrow().get(text) {
            return *count;
        }
        let count = self.tokenizer.count(text).expect("tokens");
        known.borrow_mut().insert(text.to_owned(), count);
        count
    }
}

impl ChunkSizer for &Tokens {
    fn size(&self, chunk: &str) -> usize {
        self.count(chunk)
    }
}

/// Seconds that this thread had a processor, as Linux counts them: other work on the machine does not matter.
fn cpu_seconds() -> f64 {
    let counted = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = counted
        .split(' ')
        .next()
        .and_then(|it| it.parse::<f64>().ok());
    nanoseconds.expect("a number") / 1e9
}

/// A way to cut texts.
#[derive(Clone, Copy)]
enum Way {
    Ours,
    Greedy,
}

fn passages(way: Way, text: &str, mode: Mode, tokens: &Tokens) -> Vec<String> {
    let count = |text: &str| tokens.count(text);
    let config = || {
        let config = ChunkConfig::new(MAX_TOKENS).with_sizer(tokens);
        config.with_overlap(OVERLAP).expect("a valid overlap")
    };
    let owned = |part: &str| part.to_owned();
    match (way, mode) {
        (Way::Ours, _) => {
            let splitting = Splitting {
                mode,
                max_tokens: MAX_TOKENS,
                overlap: OVERLAP,
            };
            let passages = split(text, &splitting, &count);
            passages
                .iter()
                .map(|it| owned(&text[it.bytes.clone()]))
                .collect()
        }
        (Way::Greedy, Mode::Text) => TextSplitter::new(config())
            .chunks(text)
            .map(owned)
            .collect(),
        (Way::Greedy, Mode::Markdown) => MarkdownSplitter::new(config())
            .chunks(text)
            .map(owned)
            .collect(),
        (Way::Greedy, Mode::Code(_)) => {
            let splitter =
                CodeSplitter::new(tree_sitter_rust::LANGUAGE, config()).expect("a grammar");
            splitter.chunks(text).map(owned).collect()
        }
    }
}

/// Text that is made up: words as long and as common as in English, sentences of 4 to 30 words, paragraphs of 1 to 9.
struct Prose {
    random: fastrand::Rng,
    words: Vec<String>,
}

impl Prose {
    fn new(seed: u64) -> Self {
        let common = "the of and to a in that is was he for it with as his on be at by had not are but from or have an \
            they which one you were all her she there would their we him been has when who will no more if out so up \
            said what its about than into them can only other time new some could these two may first then do any like \
            my now over such our man me even most made after also did many off before must well back through years much \
            where your way down should because long each just state people those too mr how little good world make very \
            year still see own work men day get here old life both between being under three never know same last \
            another while us might great go come since against right came take used himself few house American use place \
            during high without again home around small however found database vector transaction passage document \
            language model replication server embedding paragraph change write read table index query";
        let words = common.split_whitespace().map(str::to_owned).collect();
        Self {
            random: fastrand::Rng::with_seed(seed),
            words,
        }
    }

    /// The n-th word comes about 1/n as often as the first.
    fn word(&mut self) -> String {
        let rank = (self.words.len() as f64).powf(self.random.f64()) as usize;
        self.words[rank.min(self.words.len() - 1)].clone()
    }

    fn sentence(&mut self) -> String {
        let length = 4 + self.random.usize(0..14) + self.random.usize(0..14);
        let words: Vec<String> = (0..length).map(|_| self.word()).collect();
        let mut sentence = words.join(" ");
        sentence[..1].make_ascii_uppercase();
        sentence + "."
    }

    fn paragraph(&mut self) -> String {
        let length = 1 + self.random.usize(0..5) + self.random.usize(0..5);
        let sentences: Vec<String> = (0..length).map(|_| self.sentence()).collect();
        sentences.join(" ")
    }
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .map(|it| it.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension() == Some(OsStr::new(ending)) {
            found.push(path);
        }
    }
}

fn read(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    files(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
        ending,
        &mut found,
    );
    found
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect()
}

/// The texts whose fill and time are measured.
fn texts() -> Vec<(&'static str, Mode, Vec<String>)> {
    let mut prose = Prose::new(1);
    let paragraphs: Vec<String> = (0..4_000).map(|_| prose.paragraph()).collect();
    let licenses = read(".runtime/lib", "txt");
    vec![
        ("prose", Mode::Text, vec![paragraphs.join("\n\n")]),
        ("licenses", Mode::Text, licenses),
        ("Markdown", Mode::Markdown, read("docs", "md")),
        ("Rust", Mode::Code(Language::Rust), read("src", "rs")),
    ]
}

fn fill(tokens: &Tokens) {
    println!(
        "| text | | passages | mean fill | median fill | CPU seconds for 1 MB |\n| --- | --- | --- | --- | --- | --- |"
    );
    for (name, mode, texts) in texts() {
        for (way, of) in [(Way::Ours, "lantern-cli"), (Way::Greedy, "text-splitter")] {
            let bytes: usize = texts.iter().map(String::len).sum();
            let start = cpu_seconds();
            let all: Vec<String> = texts
                .iter()
                .flat_map(|text| passages(way, text, mode, tokens))
                .collect();
            let seconds = (cpu_seconds() - start) / bytes as f64 * 1e6;
            let mut sizes: Vec<usize> = all.iter().map(|it| tokens.count(it)).collect();
            sizes.sort_unstable();
            let share = |tokens: f64| tokens / MAX_TOKENS as f64 * 100.0;
            let mean = share(sizes.iter().sum::<usize>() as f64 / sizes.len() as f64);
            let median = share(sizes[sizes.len() / 2] as f64);
            println!(
                "| {name}, {:.2} MB | {of} | {} | {mean:.0} % | {median:.0} % | {seconds:.2} |",
                bytes as f64 / 1e6,
                all.len()
            );
        }
    }
}

const EDITS: [&str; 5] = [
    "a word is replaced",
    "a paragraph is rewritten",
    "a paragraph is inserted",
    "a paragraph is deleted",
    "a sentence is inserted",
];

/// The document after an edit at a paragraph.
fn edited(edit: usize, paragraphs: &[String], place: usize, prose: &mut Prose) -> String {
    let mut edited = paragraphs.to_vec();
    match edit {
        0 => {
            let mut words: Vec<String> = edited[place].split(' ').map(str::to_owned).collect();
            let index = prose.random.usize(0..words.len());
            words[index] = "replacement".into();
            edited[place] = words.join(" ");
        }
        1 => edited[place] = prose.paragraph(),
        2 => edited.insert(place, prose.paragraph()),
        3 => drop(edited.remove(place)),
        _ => {
            let mut sentences: Vec<String> = edited[place]
                .split_inclusive(". ")
                .map(str::to_owned)
                .collect();
            let index = prose.random.usize(0..sentences.len());
            sentences.insert(index, prose.sentence() + " ");
            edited[place] = sentences.concat();
        }
    }
    edited.join("\n\n")
}

fn edits(tokens: &Tokens) {
    let seeds: u64 = std::env::var("SEEDS").map_or(100, |it| it.parse().expect("a number"));
    println!(
        "\n| edit | where | lantern-cli: mean | 95 % | most | text-splitter: mean | 95 % | most |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let places = [
        ("beginning", 4),
        ("middle", PARAGRAPHS / 2),
        ("end", PARAGRAPHS - 8),
    ];
    let mut counts = vec![Vec::new(); EDITS.len() * places.len() * 2];
    let mut sizes = [0, 0];
    for seed in 0..seeds {
        let mut prose = Prose::new(100 + seed);
        let paragraphs: Vec<String> = (0..PARAGRAPHS).map(|_| prose.paragraph()).collect();
        let text = paragraphs.join("\n\n");
        let mut known = Vec::new();
        for way in [Way::Ours, Way::Greedy] {
            let passages: HashSet<String> = passages(way, &text, Mode::Text, tokens)
                .into_iter()
                .collect();
            sizes[way as usize] += passages.len();
            known.push(passages);
        }
        for edit in 0..EDITS.len() {
            for (index, (_, place)) in places.iter().enumerate() {
                let place = place + prose.random.usize(0..4);
                let text = edited(edit, &paragraphs, place, &mut prose);
                for way in [Way::Ours, Way::Greedy] {
                    let passages = passages(way, &text, Mode::Text, tokens);
                    let new = passages
                        .iter()
                        .filter(|it| !known[way as usize].contains(*it))
                        .count();
                    counts[(edit * places.len() + index) * 2 + way as usize].push(new);
                }
            }
        }
    }
    let row = |counts: &mut Vec<usize>| {
        counts.sort_unstable();
        let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
        format!(
            "{mean:.1} | {} | {}",
            counts[counts.len() * 95 / 100],
            counts[counts.len() - 1]
        )
    };
    for (index, pair) in counts.chunks_mut(2).enumerate() {
        let (edit, place) = (EDITS[index / places.len()], places[index % places.len()].0);
        let [ours, greedy] = pair else { continue };
        println!("| {edit} | {place} | {} | {} |", row(ours), row(greedy));
    }
    let [ours, greedy] = sizes.map(|sum| sum as u64 / seeds);
    println!("\n{seeds} documents of {ours} passages (text-splitter: {greedy})");
}

/// Texts that are made to be slow: 10 MB of each.
fn extremes(tokens: &Tokens) {
    const BYTES: usize = 10_000_000;
    println!("\n| 10 MB of | passages | CPU seconds |\n| --- | --- | --- |");
    let mut prose = Prose::new(2);
    let paragraphs: Vec<String> = std::iter::repeat_with(|| prose.paragraph())
        .take(BYTES / 380)
        .collect();
    for (name, text) in [
        ("prose", paragraphs.join("\n\n")),
        ("one word", "a".repeat(BYTES)),
        ("line feeds", "\n".repeat(BYTES)),
        (
            "line feeds between two words",
            format!("a{}b", "\n".repeat(BYTES)),
        ),
        ("lines of one letter", "a\n".repeat(BYTES / 2)),
        ("Chinese without punctuation", "变更".repeat(BYTES / 6)),
    ] {
        let start = cpu_seconds();
        let count = passages(Way::Ours, &text, Mode::Text, tokens).len();
        println!("| {name} | {count} | {:.1} |", cpu_seconds() - start);
    }
}

fn main() {
    let file = runtime().join("models").join(MODEL).join("tokenizer.json");
    let tokenizer = TextTokenizer::load(&file, 256, true).expect("run `make setup` first");
    let mut tokens = Tokens {
        tokenizer,
        known: None,
    };
    let is_all = std::env::var_os("EDITS_ALONE").is_none();
    if is_all {
        fill(&tokens);
        extremes(&tokens);
    }
    tokens.known = Some(RefCell::default());
    edits(&tokens);
}
