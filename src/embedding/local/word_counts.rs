//! Tokens of words that were counted before, for tokenizers that decide each word by itself.
//!
//! The tokens of a text are then those of its words, and a text has few words that are not in the texts before it. To
//! look one up takes a hundredth of the time that the tokenizer takes. The counts are exact: a tokenizer is taken for
//! one that decides each word by itself only where that is known of all its stages ([`WordRule`]).

use std::sync::OnceLock;

use quick_cache::sync::Cache;
use tokenizers::Tokenizer;

use super::word_rule::WordRule;

/// The words that are known at the same time. Common ones stay. They take about 2 MB.
const MAX_WORDS: usize = 1 << 15;

/// Longer words do not come again.
const MAX_WORD_BYTES: usize = 64;

/// The numbers of tokens of words.
pub(crate) struct WordCounts {
    rule: WordRule,
    known: OnceLock<Cache<Box<str>, usize>>,
}

impl WordCounts {
    /// Those of a `tokenizer.json`; `None` where it is not known that the tokenizer decides each word by itself.
    pub fn of(file: &[u8], tokenizer: &Tokenizer) -> Option<WordCounts> {
        Some(WordCounts {
            rule: WordRule::of(file, tokenizer)?,
            known: OnceLock::new(),
        })
    }

    /// The tokens of a text, which `count` counts of a part that is not known.
    pub fn count<E>(
        &self,
        text: &str,
        mut count: impl FnMut(&str) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let known = self.known.get_or_init(|| Cache::new(MAX_WORDS));
        let mut sum = 0;
        let mut add = |word: &str| -> Result<(), E> {
            if word.is_empty() {
                return Ok(());
            }
            if let Some(tokens) = known.get(word) {
                sum += tokens;
                return Ok(());
            }
            let tokens = count(word)?;
            if word.len() <= MAX_WORD_BYTES {
                known.insert(word.into(), tokens);
            }
            sum += tokens;
            Ok(())
        };
        self.rule.divide(text, &mut add)?;
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::embedding::local::word_rule::EXPRESSIONS;

    /// A `tokenizer.json` of the tests, with other values at some places.
    fn file(name: &str, changes: &[(&str, Value)]) -> Vec<u8> {
        let path = format!(
            "{}/tests/data/tiny/{name}/tokenizer.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let mut file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for (place, value) in changes {
            *file.pointer_mut(place).unwrap() = value.clone();
        }
        // The texts have tokens of their own in them.
        let tokens = file["added_tokens"].as_array_mut().unwrap();
        for token in tokens {
            token["lstrip"] = true.into();
        }
        file.to_string().into_bytes()
    }

    fn split_by(expression: &str) -> Value {
        let bytes = serde_json::json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
        });
        let split = serde_json::json!({
            "type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false,
        });
        serde_json::json!({"type": "Sequence", "pretokenizers": [split, bytes]})
    }

    /// A tokenizer of SentencePiece, with these stages.
    fn sentence_piece(normalizers: &Value, pre_tokenizers: &Value) -> Vec<u8> {
        let pieces = [
            "<unk>", "▁", "▁the", "▁word", "word", "▁a", "a", "th", "e", "r", "w", "o", "d", "1",
            ".", ",", "変", "İ",
        ];
        let vocabulary: Vec<(&str, f64)> = pieces
            .iter()
            .zip((0..).map(|rank| f64::from(-rank)))
            .map(|it| (*it.0, it.1))
            .collect();
        let mask = |id: u32, content: &str, lstrip: bool| {
            serde_json::json!({
                "id": id, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": false, "normalized": false,
                "special": true,
            })
        };
        let file = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "post_processor": null, "decoder": null,
            "added_tokens": [mask(0, "<unk>", false), mask(18, "[MASK]", true)],
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre_tokenizers},
            "model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary},
        });
        file.to_string().into_bytes()
    }

    /// The normalizers of usual models of SentencePiece; the first has a table, of which NFKC has most.
    fn usual_normalizers() -> [Value; 2] {
        let nfkc = serde_json::json!({"type": "NFKC"});
        let one_space =
            serde_json::json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "});
        let strip = serde_json::json!({"type": "Strip", "strip_left": true, "strip_right": true});
        let nmt = serde_json::json!({"type": "Nmt"});
        [
            serde_json::json!([nmt, nfkc, strip, one_space]),
            serde_json::json!([nmt, nfkc]),
        ]
    }

    fn metaspace(scheme: &str) -> Value {
        serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true})
    }

    /// The tokenizers of which the words are counted.
    fn known() -> Vec<(Tokenizer, WordCounts)> {
        let nfc = serde_json::json!({"type": "NFC"});
        let mut files = vec![
            file("bert", &[]),
            file(
                "bert",
                &[("/normalizer/handle_chinese_chars", false.into())],
            ),
            file("bert", &[("/normalizer/clean_text", false.into())]),
            file("bert", &[("/added_tokens/4/normalized", true.into())]),
            file(
                "bert",
                &[
                    ("/normalizer/lowercase", false.into()),
                    ("/normalizer/strip_accents", false.into()),
                ],
            ),
            file("gpt2", &[]),
            file("gpt2", &[("/pre_tokenizer/add_prefix_space", true.into())]),
            file("qwen3", &[("/normalizer", nfc)]),
        ];
        for expression in EXPRESSIONS {
            files.push(file("qwen3", &[("/pre_tokenizer", split_by(expression))]));
        }
        let by_white_space = serde_json::json!({"type": "WhitespaceSplit"});
        for normalizers in usual_normalizers() {
            let metaspace = metaspace("always");
            files.push(sentence_piece(
                &normalizers,
                &serde_json::json!([metaspace]),
            ));
            files.push(sentence_piece(
                &normalizers,
                &serde_json::json!([by_white_space, metaspace]),
            ));
        }
        let pair = |file: Vec<u8>| {
            let tokenizer = Tokenizer::from_bytes(&file).unwrap();
            let words = WordCounts::of(&file, &tokenizer).unwrap();
            (tokenizer, words)
        };
        files.into_iter().map(pair).collect()
    }

    fn tokens(tokenizer: &Tokenizer, text: &str) -> usize {
        tokenizer.encode_fast(text, false).unwrap().len()
    }

    #[test]
    fn words_have_as_many_tokens_as_their_text() {
        let known = known();
        let part = prop::sample::select(vec![
            "word",
            "Another",
            "it's",
            "x,",
            "(y)",
            "7",
            "1234",
            ".",
            "...",
            "é",
            "e\u{301}",
            "\u{301}",
            "ß",
            "İ",
            "ΟΔΟΣ",
            "変",
            "更を",
            "\u{f900}",
            "한국어",
            "👩\u{200d}👧",
            "\u{0}",
            "\u{fffd}",
            "\u{ad}",
            "\u{200b}",
            "[MASK]",
            "[mask]",
            "a.b(c)-d",
            "[UNK]",
            "<|endoftext|>",
            "<s>",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            " ",
            " ",
            " ",
            " ",
            " ",
            "  ",
            "\n",
            "\r\n",
            "\n\n",
            "\t",
            "\u{b}",
            "\u{c}",
            "\u{85}",
            "\u{a0}",
            "\u{3000}",
            "\u{2028}",
        ]);
        let texts = prop::collection::vec(prop_oneof![3 => part, 1 => Just(" the ")], 0..40);
        proptest!(ProptestConfig::with_cases(150), |(parts in texts)| {
            let text = parts.concat();
            for (tokenizer, words) in &known {
                let counted = words.count(&text, |word| Ok::<_, ()>(tokens(tokenizer, word)));
                prop_assert_eq!(counted, Ok(tokens(tokenizer, &text)), "{:?}: {:?}", words.rule, text);
            }
        });
        proptest!(ProptestConfig::with_cases(150), |(text in "\\PC{0,40}|[a-c \u{301}\n変.\u{85}]{0,40}")| {
            for (tokenizer, words) in &known {
                let counted = words.count(&text, |word| Ok::<_, ()>(tokens(tokenizer, word)));
                prop_assert_eq!(counted, Ok(tokens(tokenizer, &text)), "{:?}: {:?}", words.rule, text);
            }
        });
    }

    #[test]
    fn a_word_is_counted_once() {
        for (tokenizer, words) in known() {
            let mut asked = Vec::new();
            for _ in 0..2 {
                let counted = words.count("one two two two", |word| {
                    asked.push(word.trim().to_owned());
                    Ok::<_, ()>(tokens(&tokenizer, word))
                });
                counted.unwrap();
            }
            assert_eq!(asked, ["one", "two"]);
        }
    }

    #[test]
    fn other_tokenizers_are_asked_for_the_whole_text() {
        let prepend = serde_json::json!({"type": "Prepend", "prepend": "▁"});
        let other = [
            file(
                "bert",
                &[("/pre_tokenizer", serde_json::json!({"type": "Whitespace"}))],
            ),
            file("bert", &[("/normalizer", Value::Null)]),
            file("bert", &[("/added_tokens/0/content", "[A B]".into())]),
            file("bert", &[("/added_tokens/0/single_word", true.into())]),
            file("gpt2", &[("/added_tokens/0/rstrip", true.into())]),
            file("gpt2", &[("/model/dropout", serde_json::json!(0.1))]),
            file("gpt2", &[("/pre_tokenizer/use_regex", false.into())]),
            file("qwen3", &[("/pre_tokenizer", split_by(r"\s+"))]),
            file(
                "gpt2",
                &[("/normalizer", serde_json::json!({"type": "NFKC"}))],
            ),
            sentence_piece(
                &usual_normalizers()[0],
                &serde_json::json!([metaspace("first")]),
            ),
            sentence_piece(
                &serde_json::json!([prepend]),
                &serde_json::json!([metaspace("always")]),
            ),
        ];
        for file in other {
            let tokenizer = Tokenizer::from_bytes(&file).unwrap();
            assert!(
                WordCounts::of(&file, &tokenizer).is_none(),
                "{:?}",
                tokenizer.get_pre_tokenizer()
            );
        }
    }
}
