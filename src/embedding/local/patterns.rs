//! The regular expressions of a tokenizer, run a second time to see whether they come to an end.
//!
//! A `tokenizer.json` may split or replace by expressions with look-around or backreferences. These are matched by
//! backtracking, of which `fancy-regex` allows a million steps. The library then stops without a word
//! (`utils/fancy.rs` of `tokenizers`), the rest of the text becomes one piece, and its vector is that of another text.
//! So a text whose expressions do not come to an end is an error. Most models have no expression, and pay nothing.

use fancy_regex::Regex;
use serde::Deserialize;
use serde_json::Value;

/// The parts of a `tokenizer.json` that work on a text. The vocabulary, which is large, is not read.
#[derive(Default, Deserialize)]
struct Stages {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
}

/// The expressions that a tokenizer runs over each text.
#[derive(Debug)]
pub(crate) struct Patterns(Vec<Regex>);

/// An expression needs too many steps for a text.
#[derive(Debug, thiserror::Error)]
#[error(
    "the expression {pattern:?} of the model's tokenizer.json does not come to an end at this text ({cause}): shorten \
     the text, or correct the expression"
)]
pub(crate) struct Endless {
    pattern: String,
    cause: fancy_regex::Error,
}

impl Patterns {
    /// Those of a `tokenizer.json`. What is wrong with the file is for the library to say.
    pub fn of(tokenizer: &[u8]) -> Patterns {
        let stages: Stages = serde_json::from_slice(tokenizer).unwrap_or_default();
        let mut patterns = Vec::new();
        for stage in [&stages.normalizer, &stages.pre_tokenizer] {
            collect(stage, &mut patterns);
        }
        let compiled = patterns
            .iter()
            .filter_map(|pattern| Regex::new(pattern).ok());
        Patterns(compiled.collect())
    }

    /// Runs all of them over a text. They run over what the stages before them make of it, which differs little.
    pub fn check(&self, text: &str) -> Result<(), Endless> {
        for regex in &self.0 {
            for found in regex.find_iter(text) {
                found.map_err(|cause| Endless {
                    pattern: regex.as_str().to_owned(),
                    cause,
                })?;
            }
        }
        Ok(())
    }
}

/// Each `{"Regex": "…"}` below a value.
fn collect(value: &Value, patterns: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(pattern)) = members.get("Regex") {
                patterns.push(pattern.clone());
            }
            members
                .values()
                .for_each(|member| collect(member, patterns));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, patterns)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(pattern: &str) -> Patterns {
        let split = serde_json::json!({"type": "Split", "pattern": {"Regex": pattern}});
        let all = serde_json::json!({"type": "Sequence", "pretokenizers": [split]});
        Patterns::of(
            serde_json::json!({"pre_tokenizer": all})
                .to_string()
                .as_bytes(),
        )
    }

    #[test]
    fn an_expression_without_an_end_is_named() {
        let patterns = patterns(r"(x+x+)+(?!x)y");
        patterns.check("a text like any other").unwrap();
        let error = patterns.check(&"x".repeat(5000)).unwrap_err().to_string();
        assert!(error.contains("(x+x+)+"), "{error}");
    }

    #[test]
    fn the_expressions_of_known_models_come_to_an_end() {
        for pattern in [
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ] {
            let patterns = patterns(pattern);
            assert_eq!(patterns.0.len(), 1);
            for text in ["x", " ", "1", "\n", ".", "a ", " \n\u{a0}", "'s"] {
                patterns.check(&text.repeat(60_000)).unwrap();
            }
        }
    }

    #[test]
    fn a_file_without_expressions_has_none() {
        for file in [
            "",
            "{}",
            "[",
            r#"{"pre_tokenizer": null, "decoder": {"Regex": "(a+)+"}}"#,
        ] {
            assert!(Patterns::of(file.as_bytes()).0.is_empty(), "{file}");
        }
    }
}
