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

/// How the graph of a model was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// For any number of texts of any length.
    Ordinary,
    /// For exactly so many texts, and so many tokens of each, where a number is given.
    OfSize(Option<u64>, Option<u64>),
    /// It says that it takes any number of texts, and computes with one.
    OneTextInside,
    /// Its weights are in the file of this name beside it.
    WeightsIn(&'static str),
    /// Its only output has this name and type.
    Output(&'static str, Element),
    /// It takes token ids and masks as int32.
    NarrowInputs,
    /// It takes keys of earlier tokens too, of sizes that it does not say, and whether there are any.
    WithPast,
    /// In this version of ONNX's operators, with states in half precision.
    OfOperators(u64),
    /// Beside the token states it gives their mean, without regard to the mask, under this name.
    MeanBeside(&'static str),
}

/// The type of the elements of a tensor, by its number in `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Single precision.
    Float = 1,
    /// Half precision.
    Float16 = 10,
    /// The upper half of a float.
    Bfloat16 = 16,
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
        self.write_graph_to(&folder, Export::Ordinary)?;
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

    /// Writes the graph of the model, and its weights if they are in a file of their own, into the model's folder.
    ///
    /// # Errors
    ///
    /// Where a file cannot be written.
    pub fn write_graph_to(self, folder: &Path, export: Export) -> std::io::Result<()> {
        if let Export::WeightsIn(file) = export {
            fs::write(folder.join(file), self.weights())?;
        }
        fs::write(folder.join("model.onnx"), self.graph(export))
    }

    fn weights(self) -> Vec<u8> {
        (0..=WORDS)
            .flat_map(|token| self.word_vector(token))
            .flat_map(f32::to_le_bytes)
            .collect()
    }

    /// `last_hidden_state = Gather(words, input_ids)`, as an ONNX `ModelProto`; field numbers are those of
    /// `onnx.proto`.
    fn graph(self, export: Export) -> Vec<u8> {
        let weights = match export {
            Export::WeightsIn(file) => {
                let location = [bytes(1, b"location"), bytes(2, file.as_bytes())].concat();
                [bytes(13, &location), integer(14, 1)].concat()
            }
            _ => bytes(9, &self.weights()),
        };
        let words = [
            integer(1, WORDS + 1),
            integer(1, DIMENSIONS as u64),
            integer(2, FLOAT),
            bytes(8, b"words"),
            weights,
        ]
        .concat();
        let shape_of_one = [1_i64, -1].map(i64::to_le_bytes).concat();
        let one = [
            integer(1, 2),
            integer(2, INT64),
            bytes(8, b"one"),
            bytes(9, &shape_of_one),
        ]
        .concat();
        let (ids, reshaping) = match export {
            Export::OneTextInside => (
                "ids",
                [
                    bytes(1, &node("Reshape", &["input_ids", "one"], "ids")),
                    bytes(5, &one),
                ]
                .concat(),
            ),
            _ => ("input_ids", Vec::new()),
        };
        let (output, element) = match export {
            Export::Output(name, element) => (name, element),
            Export::OfOperators(_) => ("last_hidden_state", Element::Float16),
            _ => ("last_hidden_state", Element::Float),
        };
        let states = match element {
            Element::Float => output,
            _ => "states",
        };
        let gather = node("Gather", &["words", ids], states);
        let integers = match export {
            Export::NarrowInputs => INT32,
            _ => INT64,
        };
        let dimension = |size: Option<u64>, name: &str| match size {
            Some(size) => bytes(1, &integer(1, size)),
            None => named_dimension(name),
        };
        let (rows, width) = match export {
            Export::OfSize(rows, width) => (rows, width),
            _ => (None, None),
        };
        let rows_and_width = [dimension(rows, "rows"), dimension(width, "width")].concat();
        let hidden = bytes(1, &integer(1, DIMENSIONS as u64));
        let graph = [
            export.further_inputs(),
            reshaping,
            bytes(1, &gather),
            export.further_nodes(states),
            bytes(2, b"words"),
            bytes(5, &words),
            bytes(11, &tensor("input_ids", integers, &rows_and_width)),
            bytes(11, &tensor("attention_mask", integers, &rows_and_width)),
            bytes(
                12,
                &tensor(
                    output,
                    element as u64,
                    &[rows_and_width.clone(), hidden].concat(),
                ),
            ),
        ]
        .concat();
        let operators = match export {
            Export::OfOperators(version) => integer(2, version),
            _ => integer(2, 13),
        };
        [integer(1, 8), bytes(7, &graph), bytes(8, &operators)].concat()
    }
}

impl Export {
    /// Inputs besides ids and mask.
    fn further_inputs(self) -> Vec<u8> {
        if self != Export::WithPast {
            return Vec::new();
        }
        let names = ["rows", "heads", "earlier", "size"].map(named_dimension);
        let key = tensor("past_key_values.0.key", FLOAT, &names.concat());
        let branch = tensor("use_cache_branch", BOOL, &bytes(1, &integer(1, 1)));
        [bytes(11, &key), bytes(11, &branch)].concat()
    }

    /// What becomes of the token states.
    fn further_nodes(self, states: &str) -> Vec<u8> {
        match self {
            Export::OfOperators(_) => {
                Export::Output("last_hidden_state", Element::Float16).further_nodes(states)
            }
            Export::Output(name, element) if element != Element::Float => {
                let to = attribute("to", &integer(3, element as u64), INT);
                bytes(1, &[node("Cast", &[states], name), to].concat())
            }
            Export::MeanBeside(name) => {
                let axes = attribute("axes", &integer(8, 1), INTS);
                let flat = attribute("keepdims", &integer(3, 0), INT);
                let mean = [node("ReduceMean", &[states], name), axes, flat].concat();
                let hidden = bytes(1, &integer(1, DIMENSIONS as u64));
                let shape = [named_dimension("rows"), hidden].concat();
                [bytes(1, &mean), bytes(12, &tensor(name, FLOAT, &shape))].concat()
            }
            _ => Vec::new(),
        }
    }
}

/// `AttributeProto.AttributeType`.
const INT: u64 = 2;
const INTS: u64 = 7;

/// A field of a `NodeProto` with an attribute.
fn attribute(name: &str, value: &[u8], kind: u64) -> Vec<u8> {
    let attribute = [bytes(1, name.as_bytes()), value.to_vec(), integer(20, kind)].concat();
    bytes(5, &attribute)
}

/// `TensorProto.DataType`.
const FLOAT: u64 = 1;
const INT32: u64 = 6;
const INT64: u64 = 7;
const BOOL: u64 = 9;

/// A `ValueInfoProto` of a tensor.
fn tensor(name: &str, element: u64, dimensions: &[u8]) -> Vec<u8> {
    let kind = [integer(1, element), bytes(2, dimensions)].concat();
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &kind))].concat()
}

/// A `NodeProto`.
fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs: Vec<Vec<u8>> = inputs
        .iter()
        .map(|input| bytes(1, input.as_bytes()))
        .collect();
    [
        inputs.concat(),
        bytes(2, output.as_bytes()),
        bytes(4, operator.as_bytes()),
    ]
    .concat()
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
