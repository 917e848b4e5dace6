//! A real model that is small enough to be written here: each word of a short vocabulary has a vector of its own, and
//! the vector of a text is their mean, normalized.
//!
//! The product runs it as any other model, with ONNX Runtime, tokenizer and pooling. [`TinyModel::vector`] computes the
//! same vectors from the formula behind the file, without any of that.

use std::fs;
use std::path::Path;

use crate::random::Random;

/// Dimensions of the vectors.
pub const DIMENSIONS: usize = 8;
/// Words of the vocabulary; token 0 stands for every other word.
const WORDS: u64 = 400;
/// The model's window: further words of a text do not count.
const WINDOW: usize = 96;

/// Two models, whose vectors of the same text have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TinyModel {
    /// `chaos/one`
    One,
    /// `chaos/two`
    Two,
}

impl TinyModel {
    /// Both.
    pub const ALL: [TinyModel; 2] = [TinyModel::One, TinyModel::Two];

    /// The name that jobs call it by.
    pub fn name(self) -> &'static str {
        match self {
            TinyModel::One => "chaos/one",
            TinyModel::Two => "chaos/two",
        }
    }

    /// The vector that a row with this text must have.
    pub fn vector(self, text: &str) -> Vec<f32> {
        let tokens: Vec<u64> = text.split_whitespace().take(WINDOW).map(token).collect();
        let mut mean = [0f64; DIMENSIONS];
        for &token in &tokens {
            for (sum, value) in mean.iter_mut().zip(self.word_vector(token)) {
                *sum += f64::from(value);
            }
        }
        let norm = mean.iter().map(|value| value * value).sum::<f64>().sqrt();
        mean.iter().map(|value| (value / norm) as f32).collect()
    }

    fn word_vector(self, token: u64) -> [f32; DIMENSIONS] {
        let mut random = Random::new(token * 2 + u64::from(self == TinyModel::Two));
        std::array::from_fn(|_| random.below(2001) as f32 / 1000.0 - 1.0)
    }

    /// Writes the model into the folder `models` in the layout of sentence-transformers.
    ///
    /// # Errors
    ///
    /// Where a file cannot be written.
    pub fn write_to(self, models: &Path) -> std::io::Result<()> {
        let folder = models.join(self.name());
        fs::create_dir_all(folder.join("1_Pooling"))?;
        fs::write(folder.join("model.onnx"), self.graph())?;
        fs::write(folder.join("tokenizer.json"), tokenizer())?;
        fs::write(
            folder.join("config.json"),
            format!(r#"{{"model_type":"bert","hidden_size":{DIMENSIONS}}}"#),
        )?;
        fs::write(
            folder.join("sentence_bert_config.json"),
            format!(r#"{{"max_seq_length":{WINDOW}}}"#),
        )?;
        fs::write(
            folder.join("1_Pooling/config.json"),
            format!(
                r#"{{"word_embedding_dimension":{DIMENSIONS},"pooling_mode_mean_tokens":true}}"#
            ),
        )?;
        let module = |index, path, kind| {
            format!(
                r#"{{"idx":{index},"path":"{path}","type":"sentence_transformers.models.{kind}"}}"#
            )
        };
        let modules = [
            module(0, "", "Transformer"),
            module(1, "1_Pooling", "Pooling"),
            module(2, "2_Normalize", "Normalize"),
        ];
        fs::write(
            folder.join("modules.json"),
            format!("[{}]", modules.join(",")),
        )
    }

    /// `last_hidden_state = Gather(words, input_ids)`, as an ONNX `ModelProto`; field numbers are those of
    /// `onnx.proto`.
    fn graph(self) -> Vec<u8> {
        let weights: Vec<u8> = (0..=WORDS)
            .flat_map(|token| self.word_vector(token))
            .flat_map(f32::to_le_bytes)
            .collect();
        let words = [
            integer(1, WORDS + 1),
            integer(1, DIMENSIONS as u64),
            integer(2, FLOAT),
            bytes(8, b"words"),
            bytes(9, &weights),
        ]
        .concat();
        let node = [
            bytes(1, b"words"),
            bytes(1, b"input_ids"),
            bytes(2, b"last_hidden_state"),
            bytes(4, b"Gather"),
        ]
        .concat();
        let rows_and_width = [named_dimension("rows"), named_dimension("width")].concat();
        let hidden = bytes(1, &integer(1, DIMENSIONS as u64));
        let graph = [
            bytes(1, &node),
            bytes(2, b"words"),
            bytes(5, &words),
            bytes(11, &tensor("input_ids", INT64, &rows_and_width)),
            bytes(11, &tensor("attention_mask", INT64, &rows_and_width)),
            bytes(
                12,
                &tensor(
                    "last_hidden_state",
                    FLOAT,
                    &[rows_and_width.clone(), hidden].concat(),
                ),
            ),
        ]
        .concat();
        let operators = integer(2, 13);
        [integer(1, 8), bytes(7, &graph), bytes(8, &operators)].concat()
    }
}

/// `TensorProto.DataType`.
const FLOAT: u64 = 1;
const INT64: u64 = 7;

/// A `ValueInfoProto` of a tensor.
fn tensor(name: &str, element: u64, dimensions: &[u8]) -> Vec<u8> {
    let kind = [integer(1, element), bytes(2, dimensions)].concat();
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &kind))].concat()
}

fn named_dimension(name: &str) -> Vec<u8> {
    bytes(1, &bytes(2, name.as_bytes()))
}

/// A field of wire type 0 (Protocol Buffers encoding).
fn integer(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field of wire type 2: strings, bytes and messages.
fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [
        varint(field << 3 | 2),
        varint(content.len() as u64),
        content.to_vec(),
    ]
    .concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut encoded = Vec::new();
    while value >= 0x80 {
        encoded.push(value as u8 | 0x80);
        value >>= 7;
    }
    encoded.push(value as u8);
    encoded
}

/// The number of a word. All words outside the vocabulary share 0.
fn token(word: &str) -> u64 {
    let number = word
        .strip_prefix('w')
        .and_then(|digits| digits.parse().ok());
    number
        .filter(|number| (1..=WORDS).contains(number))
        .unwrap_or(0)
}

fn tokenizer() -> String {
    let words: Vec<String> = (1..=WORDS).map(|n| format!(r#""w{n}":{n}"#)).collect();
    format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{{"type":"WhitespaceSplit"}},"post_processor":null,"decoder":null,
        "model":{{"type":"WordLevel","vocab":{{"[UNK]":0,{}}},"unk_token":"[UNK]"}}}}"#,
        words.join(",")
    )
}

/// A short text, now and then with words outside the vocabulary.
pub fn short_text(random: &mut Random) -> String {
    text(random, 1..9)
}

/// A text that is stored out of line where the column's storage is EXTERNAL, and is longer than the model's window.
pub fn long_text(random: &mut Random) -> String {
    text(random, 700..1800)
}

fn text(random: &mut Random, length: std::ops::Range<u64>) -> String {
    let words = random.within(length);
    let word = |_| match random.below(20) {
        0 => "Mondschein-月".to_owned(),
        _ => format!("w{}", random.within(1..WORDS + 1)),
    };
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}
