//! One vector of an answer: an array of numbers, or base64 over little-endian 32-bit floats.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// The numbers of a vector as they came; NaN stands for `null`, which some servers write for it.
pub(in super::super) struct Embedding(pub Vec<f32>);

impl<'de> Deserialize<'de> for Embedding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EmbeddingVisitor)
    }
}

struct EmbeddingVisitor;

impl<'de> Visitor<'de> for EmbeddingVisitor {
    type Value = Embedding;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers, or base64")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Embedding, E> {
        let bytes = STANDARD
            .decode(text)
            .map_err(|error| E::custom(format!("the base64 of a vector is damaged: {error}")))?;
        let (numbers, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(E::custom("the base64 of a vector ends within a number"));
        }
        let numbers = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes));
        Ok(Embedding(numbers.collect()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Embedding, A::Error> {
        let mut numbers = Vec::with_capacity(sequence.size_hint().unwrap_or(1024));
        while let Some(number) = sequence.next_element::<Option<f32>>()? {
            numbers.push(number.unwrap_or(f32::NAN));
        }
        Ok(Embedding(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<f32>, String> {
        let embedding = serde_json::from_str::<Embedding>(json);
        embedding
            .map(|Embedding(numbers)| numbers)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn both_encodings_give_the_same_numbers() {
        assert_eq!(read("[1.0, -2, 0.5]").unwrap(), [1.0, -2.0, 0.5]);
        // Written by `struct.pack('<3f', 1, -2, .5)` of Python.
        assert_eq!(read("\"AACAPwAAAMAAAAA/\"").unwrap(), [1.0, -2.0, 0.5]);
    }

    #[test]
    fn damaged_numbers_are_an_error() {
        for json in [
            "\"AACAPw\"",
            "\"AACA\"",
            "\"?\"",
            "[\"1\"]",
            "{}",
            "[1e400]",
            "7",
        ] {
            assert!(read(json).is_err(), "{json}");
        }
        assert!(read("[null]").unwrap()[0].is_nan());
    }
}
