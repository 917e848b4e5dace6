//! The engine against the loops of sentence-transformers and fastembed, in one run and in turns.
//!
//! Both run in a Python process of their own (`loops.py`), which waits while the engine computes. Each gets the same
//! texts and gives the vectors back, so that none is fast by computing something else.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use testkit::paths::{checkout, runtime};
use testkit::random::Random;
use testkit::statistics::median;

use super::WORDS;

const ROUNDS: usize = 3;
/// Before each turn: the threads of the others go on spinning for a while after theirs.
const REST: Duration = Duration::from_millis(500);
/// The program that embeds for the others.
const LOOPS: &str = "benches/embedder/loops.py";
/// As `loops.py` calls them.
const OTHERS: [&str; 2] = ["sentence-transformers", "fastembed"];
/// The largest difference of a value of a vector that counts as rounding.
const TOLERANCE: f32 = 1e-4;

/// The Python to compare with, if the arguments name one: `-- frameworks=PYTHON`.
pub fn python() -> Option<String> {
    std::env::args().find_map(|argument| argument.strip_prefix("frameworks=").map(str::to_owned))
}

/// Prints texts a second of the engine and the others, for several kinds of texts.
pub fn compare(python: &str, mut engine: impl FnMut(&[String]) -> Vec<Vec<f32>>) {
    let mut others = Loops::start(python);
    println!("texts/s, medians of {ROUNDS}; ratio of the engine to the loop");
    for (kind, count, words) in [
        ("titles", 800, 6..12),
        ("paragraphs", 160, 30..80),
        ("mix", 320, 4..160),
    ] {
        let texts = texts(count, words);
        let mut rates: [Vec<f64>; 3] = Default::default();
        for _ in 0..ROUNDS {
            thread::sleep(REST);
            let started = Instant::now();
            let vectors = engine(&texts);
            rates[0].push(count as f64 / started.elapsed().as_secs_f64());
            for (rates, name) in rates[1..].iter_mut().zip(OTHERS) {
                thread::sleep(REST);
                let (seconds, others) = others.embed(name, &texts);
                assert_near(name, &vectors, &others);
                rates.push(count as f64 / seconds);
            }
        }
        let [own, others @ ..] = rates.map(median);
        print!("{kind:<11} engine {own:7.1}");
        for (rate, name) in others.into_iter().zip(OTHERS) {
            print!("   {name} {rate:7.1} ({:.2})", own / rate);
        }
        println!();
    }
}

/// The Python process.
struct Loops {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Loops {
    fn start(python: &str) -> Self {
        let model = runtime().join("models").join(testkit::engine::MODEL);
        let mut child = Command::new(python)
            .arg(checkout().join(LOOPS))
            .arg(model)
            .env("HF_HUB_OFFLINE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Python that was named");
        Self {
            requests: child.stdin.take().expect("piped"),
            answers: BufReader::new(child.stdout.take().expect("piped")),
            child,
        }
    }

    /// How long a loop takes for these texts, and their vectors.
    fn embed(&mut self, name: &str, texts: &[String]) -> (f64, Vec<Vec<f32>>) {
        let request = serde_json::json!({"loop": name, "texts": texts});
        writeln!(self.requests, "{request}").expect("loops.py waits");
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .expect("loops.py answers");
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("loops.py has failed: {answer}"))
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn assert_near(name: &str, left: &[Vec<f32>], right: &[Vec<f32>]) {
    assert_eq!(left.len(), right.len(), "{name}");
    let pairs = left.iter().flatten().zip(right.iter().flatten());
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(
        worst < TOLERANCE,
        "{name} computes other vectors: {worst:e}"
    );
}

/// Texts of so many words, short ones more often than long ones.
fn texts(count: usize, words: std::ops::Range<u64>) -> Vec<String> {
    let vocabulary: Vec<&str> = WORDS.split_whitespace().collect();
    let mut random = Random::new(42);
    let text = |_| {
        let longest = random.within(words.start + 1..words.end + 1);
        let length = random.within(words.start..longest);
        let word = |_| vocabulary[random.below(vocabulary.len() as u64) as usize];
        (0..length).map(word).collect::<Vec<_>>().join(" ")
    };
    (0..count).map(text).collect()
}
