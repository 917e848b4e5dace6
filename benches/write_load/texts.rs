//! The texts: real ones where the machine has some.

use std::collections::BTreeSet;
use std::process::Command;

/// Where texts come from, and the texts, each once.
pub struct Texts {
    pub source: &'static str,
    pub texts: Vec<String>,
}

impl Texts {
    /// On a Debian machine the descriptions of its packages, tens of thousands of short texts; elsewhere made-up ones.
    pub fn load() -> Texts {
        let texts = descriptions();
        if texts.len() >= 10_000 {
            return Texts {
                source: "package descriptions of apt",
                texts,
            };
        }
        Texts {
            source: "generated",
            texts: generated(20_000),
        }
    }

    /// The text with this number; they repeat, with their round in front.
    pub fn text(&self, number: usize) -> String {
        let text = &self.texts[number % self.texts.len()];
        match number / self.texts.len() {
            0 => text.clone(),
            round => format!("{round}: {text}"),
        }
    }

    /// The first ones.
    pub fn first(&self, count: usize) -> Vec<String> {
        (0..count).map(|number| self.text(number)).collect()
    }

    /// The paragraph with this number: eight texts as its sentences.
    pub fn paragraph(&self, number: usize) -> String {
        let sentences = (8 * number..8 * (number + 1)).map(|number| self.text(number) + ".");
        sentences.collect::<Vec<_>>().join(" ")
    }

    /// Paragraphs of the document with this number, of so many.
    pub fn document(&self, number: usize, paragraphs: usize) -> Vec<String> {
        let numbers = number * paragraphs..(number + 1) * paragraphs;
        numbers.map(|number| self.paragraph(number)).collect()
    }

    /// Texts of this size in bytes, as many of the others as it takes, one behind the other.
    pub fn of_size(&self, bytes: usize, count: usize) -> Vec<String> {
        let mut next = 0;
        let mut long = || {
            let mut text = String::with_capacity(bytes + 100);
            while text.len() < bytes {
                text.push_str(&self.text(next));
                text.push_str(". ");
                next += 1;
            }
            text.truncate(text.floor_char_boundary(bytes));
            text
        };
        (0..count).map(|_| long()).collect()
    }
}

fn descriptions() -> Vec<String> {
    let Ok(output) = Command::new("apt-cache").arg("dumpavail").output() else {
        return Vec::new();
    };
    let output = String::from_utf8_lossy(&output.stdout);
    let mut texts = BTreeSet::new();
    let mut text: Option<String> = None;
    for line in output.lines() {
        match &mut text {
            // Further lines of a field begin with a blank; a lone dot stands for an empty one.
            Some(text) if line.starts_with(' ') => {
                text.push(' ');
                text.push_str(line.trim().trim_start_matches('.'));
            }
            _ => {
                texts.extend(text.take());
                let description = line
                    .strip_prefix("Description: ")
                    .or_else(|| line.strip_prefix("Description-en: "));
                text = description.map(str::to_owned);
            }
        }
    }
    texts.extend(text);
    // In an order that has nothing to do with what they say.
    let mut texts: Vec<String> = texts.into_iter().collect();
    fastrand::Rng::with_seed(1).shuffle(&mut texts);
    texts
}

/// Words without sense, in texts as long as people write: log-normal around 12 words, most of them below 60.
fn generated(count: usize) -> Vec<String> {
    const SYLLABLES: [&str; 16] = [
        "lan", "tern", "light", "sea", "mo", "ra", "ti", "on", "ber", "ket", "sol", "ind", "ver",
        "a", "qua", "rest",
    ];
    let mut random = fastrand::Rng::with_seed(1);
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        // The sum of twelve uniform numbers is close to normal.
        let normal = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        let words = (12.0 * (0.8 * normal).exp()).clamp(1.0, 400.0) as usize;
        let word = |random: &mut fastrand::Rng| -> String {
            (0..random.usize(1..4))
                .map(|_| *random.choice(SYLLABLES.iter()).expect("there are some"))
                .collect()
        };
        let words: Vec<String> = (0..words).map(|_| word(&mut random)).collect();
        texts.push(words.join(" "));
    }
    texts
}
