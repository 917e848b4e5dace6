//! Where a text may be divided so that its tokens are those of its parts: what is known of the stages of a tokenizer.
//!
//! A tokenizer normalizes a text, divides it into words, and divides each word into tokens. Its model sees one word at a
//! time. So the tokens of two parts are those of the whole where no normalizer and no division into words looks across
//! the place between them. Each rule here says of which places that is known, for the stages that models have.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer as _, Tokenizer};

/// The expressions that models split texts by, besides that of GPT-2, which the library has. None has a match that goes
/// on behind the end of a word, or looks behind it, where a single space follows.
pub(super) const EXPRESSIONS: [&str; 3] = [
    // Llama 3.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // Qwen 2 and 3.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // GPT-2, written out.
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];

/// The parts of a `tokenizer.json` that work on a text. The vocabulary, which is large, is not read.
#[derive(Deserialize)]
struct Stages {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    model: ModelKind,
}

#[derive(Deserialize)]
struct ModelKind {
    /// Of a BPE model that chooses among ways to divide a word by chance.
    dropout: Option<f32>,
}

/// A text that is a token wherever it stands.
#[derive(Deserialize)]
struct AddedToken {
    content: String,
    single_word: bool,
    rstrip: bool,
    /// Whether it is looked for in the normalized text.
    normalized: bool,
}

/// Where a text may be divided, so that its tokens are those of the parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WordRule {
    /// BERT's: at white space, which has no tokens, and around each ideograph where that is a word.
    WhiteSpace {
        /// Whether an ideograph is a word.
        ideographs: bool,
        /// A word of ASCII is divided around each sign of punctuation, too, unless the text has one of these, in lower
        /// case. `None` where it never is.
        whole: Option<Vec<String>>,
    },
    /// Byte-level BPE: before a single space, which is a part of the word behind it.
    BeforeSpace,
    /// SentencePiece: the same, but only between characters of ASCII. Others may be normalized together with what is
    /// around them.
    BeforeSpaceInAscii,
}

impl WordRule {
    /// That of a `tokenizer.json`; `None` where none is known.
    pub fn of(file: &[u8], tokenizer: &Tokenizer) -> Option<WordRule> {
        let stages: Stages = serde_json::from_slice(file).ok()?;
        let rule = rule(&stages)?;
        let is_known = stages.model.dropout.is_none()
            && stages.added_tokens.iter().all(|token| rule.allows(token))
            && (rule != WordRule::BeforeSpaceInAscii || keeps_spaces(tokenizer));
        is_known.then_some(rule)
    }

    /// Calls `add` with each part of a text; some are empty.
    pub fn divide<E>(
        &self,
        text: &str,
        add: &mut impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            WordRule::WhiteSpace { ideographs, whole } => {
                let lower = text.to_ascii_lowercase();
                let divides = whole
                    .as_ref()
                    .is_some_and(|whole| whole.iter().all(|token| !lower.contains(token.as_str())));
                by_white_space(
                    text,
                    *ideographs,
                    &mut |word: &str| match divides && word.is_ascii() {
                        true => by_punctuation(word, add),
                        false => add(word),
                    },
                )
            }
            WordRule::BeforeSpace => {
                let is_of_word = |c: char| c.is_ascii_graphic() || c.is_alphanumeric();
                by_spaces(text, is_of_word, add)
            }
            WordRule::BeforeSpaceInAscii => by_spaces(text, |c| c.is_ascii_graphic(), add),
        }
    }

    /// Whether a token of its own is found in the same way in the parts of a text.
    fn allows(&self, token: &AddedToken) -> bool {
        let content = token.content.as_str();
        match self {
            WordRule::WhiteSpace { .. } => {
                !token.single_word
                    && !content.contains(|c: char| c.is_whitespace() || is_ideograph(c))
            }
            WordRule::BeforeSpace | WordRule::BeforeSpaceInAscii => {
                // Some models have tokens for indents.
                let is_indent = content.len() > 1 && content.chars().all(char::is_whitespace);
                !token.single_word
                    && !token.rstrip
                    && (is_indent || !content.contains(char::is_whitespace))
            }
        }
    }
}

fn rule(stages: &Stages) -> Option<WordRule> {
    let kind = |stage: &Value| stage["type"].as_str().map(str::to_owned);
    let (normalizer, pre_tokenizer) = (&stages.normalizer, &stages.pre_tokenizer);
    if is_sentence_piece(normalizer, pre_tokenizer) {
        return Some(WordRule::BeforeSpaceInAscii);
    }
    match (kind(normalizer).as_deref(), kind(pre_tokenizer).as_deref()) {
        (Some("BertNormalizer"), Some("BertPreTokenizer")) => {
            let tokens = &stages.added_tokens;
            let are_raw = tokens.iter().all(|token| !token.normalized);
            let lower = |token: &AddedToken| token.content.to_ascii_lowercase();
            Some(WordRule::WhiteSpace {
                ideographs: normalizer["handle_chinese_chars"].as_bool()?,
                whole: are_raw.then(|| tokens.iter().map(lower).collect()),
            })
        }
        (None | Some("NFC"), Some("ByteLevel")) => {
            let by_expression = pre_tokenizer["use_regex"].as_bool().unwrap_or(true);
            by_expression.then_some(WordRule::BeforeSpace)
        }
        (None | Some("NFC"), Some("Sequence")) => {
            let [split, bytes] = pre_tokenizer["pretokenizers"].as_array()?.as_slice() else {
                return None;
            };
            let expression = split["pattern"]["Regex"].as_str()?;
            let is_known = kind(split).as_deref() == Some("Split")
                && split["behavior"] == "Isolated"
                && split["invert"] == false
                && EXPRESSIONS.contains(&expression)
                && kind(bytes).as_deref() == Some("ByteLevel")
                && bytes["use_regex"] == false
                && bytes["add_prefix_space"] == false;
            is_known.then_some(WordRule::BeforeSpace)
        }
        _ => None,
    }
}

/// SentencePiece's way: white space becomes single spaces, and a word begins with the sign of one.
fn is_sentence_piece(normalizer: &Value, pre_tokenizer: &Value) -> bool {
    let normalizers = parts(normalizer, "normalizers");
    let is_usual = |stage: &Value| match stage["type"].as_str() {
        Some("Precompiled" | "NFC" | "NFKC" | "Nmt" | "Strip" | "Lowercase") => true,
        Some("Replace") => {
            stage["pattern"]["Regex"] == " {2,}"
                && (stage["content"] == " " || stage["content"] == "▁")
        }
        _ => false,
    };
    let (first, last) = match parts(pre_tokenizer, "pretokenizers") {
        [last] => (None, last),
        [first, last] => (first["type"].as_str(), last),
        _ => return false,
    };
    let begins_words = match last["prepend_scheme"].as_str() {
        Some(scheme) => scheme == "always",
        None => last["add_prefix_space"] != false,
    };
    normalizers.iter().all(is_usual)
        && matches!(first, None | Some("WhitespaceSplit"))
        && last["type"] == "Metaspace"
        && last["split"] != false
        && begins_words
}

/// The stages of which a stage consists.
fn parts<'a>(stage: &'a Value, name: &str) -> &'a [Value] {
    match stage["type"].as_str() {
        Some("Sequence") => stage[name].as_array().map_or(&[], Vec::as_slice),
        Some(_) => std::slice::from_ref(stage),
        None => &[],
    }
}

/// Whether a single space between characters of ASCII stays one when a text is normalized.
fn keeps_spaces(tokenizer: &Tokenizer) -> bool {
    let normalized = |text: &str| {
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = tokenizer.get_normalizer() {
            normalizer.normalize(&mut normalized).ok()?;
        }
        Some(normalized.get().to_owned())
    };
    ('!'..='~').all(|c| {
        let Some(alone) = normalized(&c.to_string()) else {
            return false;
        };
        !alone.contains(char::is_whitespace)
            && normalized(&format!("{c} {c}")) == Some(format!("{alone} {alone}"))
    })
}

/// White space that BERT's normalizer keeps. Other white space it may remove, which joins the words around it.
const fn is_kept_space(c: char) -> bool {
    matches!(c, ' ' | '\n' | '\r' | '\t')
}

/// What BERT's normalizer puts spaces around (`is_chinese_char` of `tokenizers`).
const fn is_ideograph(c: char) -> bool {
    matches!(
        c,
        '\u{4e00}'..='\u{9fff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{20000}'..='\u{2a6df}'
            | '\u{2a700}'..='\u{2b73f}'
            | '\u{2b740}'..='\u{2b81f}'
            | '\u{2b920}'..='\u{2ceaf}'
            | '\u{f900}'..='\u{faff}'
            | '\u{2f800}'..='\u{2fa1f}'
    )
}

fn by_white_space<E>(
    text: &str,
    ideographs: bool,
    add: &mut impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    let mut start = 0;
    for (at, c) in text.char_indices() {
        let is_word = ideographs && !c.is_ascii() && is_ideograph(c);
        if is_word || is_kept_space(c) {
            add(&text[start..at])?;
            start = at + c.len_utf8();
        }
        if is_word {
            add(&text[at..start])?;
        }
    }
    add(&text[start..])
}

/// BERT's signs of punctuation are words, and nothing in ASCII changes what they are.
fn by_punctuation<E>(word: &str, add: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
    let mut start = 0;
    for (at, byte) in word.bytes().enumerate() {
        if byte.is_ascii_punctuation() {
            add(&word[start..at])?;
            add(&word[at..=at])?;
            start = at + 1;
        }
    }
    add(&word[start..])
}

fn by_spaces<E>(
    text: &str,
    is_of_word: impl Fn(char) -> bool,
    add: &mut impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    let mut start = 0;
    for at in memchr::memchr_iter(b' ', text.as_bytes()) {
        let before = text[start..at].chars().next_back();
        let after = text[at + 1..].chars().next();
        if before.is_some_and(&is_of_word) && after.is_some_and(&is_of_word) {
            add(&text[start..at])?;
            start = at;
        }
    }
    add(&text[start..])
}
