//! How a job cuts documents, and the passages that the judge expects of a text: cut by the library's `splitting`, with
//! a count of tokens of its own, and embedded by the formula behind the model.

use std::collections::HashMap;

use lantern::splitting::{Mode, Splitting, split};
use serde_json::{Map, Value, json};
use testkit::random::Random;
use testkit::tiny_model::TinyModel;

/// The options of a job about its documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cutting {
    tokens: usize,
    overlap: Overlap,
    mode: Mode,
    /// What is embedded of a passage, with the field `other` of its row.
    pub template: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overlap {
    Default,
    Percent(usize),
    Tokens(usize),
}

/// Templates of jobs.
const TEMPLATES: [&str; 3] = [
    "{other}\n{chunk}",
    "{chunk} {other}",
    "w1 {other} w2 {body} {other}",
];

/// What a row holds that its passages are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// The text of the document.
    pub body: String,
    /// The field of the template.
    pub other: Option<String>,
}

/// A passage as it stands in its table.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// The first character.
    pub start: i32,
    /// The character behind the last one.
    pub end: i32,
    pub chunk: String,
    pub vector: Option<Vec<f32>>,
}

impl Cutting {
    pub fn random(random: &mut Random) -> Self {
        Cutting {
            tokens: *random.pick(&[8, 12, 20, 40]),
            overlap: overlap(random),
            mode: *random.pick(&[Mode::Text, Mode::Text, Mode::Markdown]),
            template: template(random),
        }
    }

    /// Another one: of other passages, or with another template.
    pub fn changed(&self, random: &mut Random) -> Self {
        let mut changed = self.clone();
        match random.below(3) {
            0 => changed.tokens = self.tokens * 2,
            1 => changed.tokens = self.tokens.saturating_sub(3).max(9),
            _ => {
                let others = TEMPLATES.map(|template| Some(template.to_owned()));
                let mut others = others.into_iter().chain([None]);
                changed.template = others
                    .find(|other| *other != self.template)
                    .unwrap_or_default();
            }
        }
        changed
    }

    /// `runtime_params` of the job, as an object.
    pub fn params(&self) -> Value {
        let mut params = Map::new();
        params.insert("chunk_tokens".into(), json!(self.tokens));
        match self.overlap {
            Overlap::Default => {}
            Overlap::Percent(percent) => {
                params.insert("chunk_overlap".into(), json!(format!("{percent}%")));
            }
            Overlap::Tokens(tokens) => {
                params.insert("chunk_overlap".into(), json!(tokens));
            }
        }
        if self.mode != Mode::Text {
            params.insert("chunk_mode".into(), json!(self.mode.to_string()));
        }
        if let Some(template) = &self.template {
            params.insert("template".into(), json!(template));
        }
        Value::Object(params)
    }

    fn splitting(&self) -> Splitting {
        let overlap = match self.overlap {
            Overlap::Default => self.tokens / 10,
            Overlap::Percent(percent) => self.tokens * percent / 100,
            Overlap::Tokens(tokens) => tokens.min(self.tokens / 2),
        };
        Splitting {
            mode: self.mode,
            max_tokens: self.tokens,
            overlap,
        }
    }

    /// The passages of a text, without vectors.
    fn cut(&self, text: &str) -> Vec<Passage> {
        // The tokenizer of the tiny models: a token a word.
        let words = |text: &str| text.split_whitespace().count();
        let position = |characters| i32::try_from(characters).expect("a text of a test is short");
        let passages = split(text, &self.splitting(), &words);
        let passage = |passage: lantern::splitting::Passage| Passage {
            start: position(passage.chars.start),
            end: position(passage.chars.end),
            chunk: text[passage.bytes].to_owned(),
            vector: None,
        };
        passages.into_iter().map(passage).collect()
    }

    /// What is embedded of a passage.
    pub fn embedded(&self, chunk: &str, other: Option<&str>) -> String {
        match &self.template {
            Some(template) => template
                .replace("{other}", other.unwrap_or_default())
                .replace("{chunk}", chunk)
                .replace("{body}", chunk),
            None => chunk.to_owned(),
        }
    }
}

fn overlap(random: &mut Random) -> Overlap {
    match random.below(4) {
        0 => Overlap::Tokens(0),
        1 => Overlap::Percent(25),
        2 => Overlap::Tokens(3),
        _ => Overlap::Default,
    }
}

fn template(random: &mut Random) -> Option<String> {
    let has_template = random.percent(50);
    let template = *random.pick(&TEMPLATES);
    has_template.then(|| template.to_owned())
}

/// The passages of contents, each of which is cut once.
pub struct Judge {
    cutting: Cutting,
    model: TinyModel,
    known: HashMap<Content, Vec<Passage>>,
}

impl Judge {
    pub fn new(cutting: &Cutting, model: TinyModel) -> Self {
        Judge {
            cutting: cutting.clone(),
            model,
            known: HashMap::new(),
        }
    }

    /// The passages that a row with this content must have.
    pub fn passages(&mut self, content: &Content) -> &[Passage] {
        if !self.known.contains_key(content) {
            let mut passages = self.cutting.cut(&content.body);
            for passage in &mut passages {
                let text = self
                    .cutting
                    .embedded(&passage.chunk, content.other.as_deref());
                passage.vector = Some(self.model.vector(&text));
            }
            self.known.insert(content.clone(), passages);
        }
        &self.known[content]
    }

    /// Whether these are the passages of this content.
    pub fn accepts(&mut self, content: &Content, found: &[Passage]) -> bool {
        // The last passage ends where the text does, which is quicker to tell than where it is cut.
        let end = content.body.trim_end().chars().count();
        if found.last().map(|last| last.end) != i32::try_from(end).ok() {
            return false;
        }
        let expected = self.passages(content);
        expected.len() == found.len() && expected.iter().zip(found).all(|(a, b)| same(a, b))
    }
}

/// Whether a passage is the expected one.
pub fn same(expected: &Passage, found: &Passage) -> bool {
    (expected.start, expected.end, &expected.chunk) == (found.start, found.end, &found.chunk)
        && crate::checks::same_vector(expected.vector.as_deref(), found.vector.as_deref())
}
