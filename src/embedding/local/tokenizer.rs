//! From a text to token ids, exactly as the model was trained to read it, at a cost that is bounded by the model's
//! window, whatever the text is and however long.
//!
//! Only a part of a long text is tokenized: its first few KiB, or its last ones where the beginning is cut off. Most
//! texts fill the window with less. A text of one endless word (base64, `aaaa…`) or of characters that the tokenizer
//! drops never does, so no more than [`MAX_BYTES_PER_TOKEN`] bytes for each token of the window are looked at.
//!
//! The `tokenizer.json` of many models still has the padding and truncation settings of its last training run (128 for
//! MiniLM, whose window is 256). So both are switched off and done here: truncation at the model's own window, on the
//! side that its files state, padding by the batch.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use tokenizers::{Tokenizer, TruncationDirection};

use super::patterns::Patterns;
use super::word_counts::WordCounts;
use crate::embedding::error::EmbeddingError;

/// Maximum number of tokens in which a word that was cut in the middle can differ from the whole word. BERT's WordPiece
/// replaces words of more than 100 characters by `[UNK]` (`max_input_chars_per_word`) and needs at most one token for
/// each character of shorter ones.
const MAX_UNSETTLED_TOKENS: usize = 128;

/// Bytes that are looked at for each token of the window, at most. A word of a natural language has about four
/// characters a token, of at most four bytes each.
const MAX_BYTES_PER_TOKEN: usize = 64;

/// Bytes that are looked at in any case, for models with a small window.
const MIN_BYTE_LIMIT: usize = 64 * 1024;

/// How far before the cut white space is searched.
const MAX_GAP_DISTANCE: usize = 256;

/// Which end of a text is cut off where it is longer than the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TruncationSide {
    /// The beginning.
    Left,
    /// The end.
    Right,
}

/// A part of a long text: the windows that are embedded of it overlap by an eighth, so that a sentence on a border is
/// whole in one of them.
const OVERLAP: usize = 8;

/// The most windows of a long text.
const MAX_WINDOWS: usize = 32;

/// The most tokens of a long text, unless one window has more. About 130 kB of English.
const MAX_LONG_TEXT: usize = 32_768;

/// A model's tokenizer with truncation at the model's window. Clones share the vocabulary.
#[derive(Clone)]
pub struct TextTokenizer {
    tokenizer: Arc<Tokenizer>,
    patterns: Arc<Patterns>,
    word_counts: Arc<Option<WordCounts>>,
    /// Special tokens before every text, `[CLS]` in BERT.
    before: Vec<u32>,
    /// Special tokens after every text, `[SEP]` in BERT.
    after: Vec<u32>,
    /// Maximum number of tokens between them.
    room: usize,
    lower_case: bool,
    truncation_side: TruncationSide,
    /// The token of words that the vocabulary does not have.
    unknown: Option<u32>,
    /// Whether that token is left out.
    drops_unknown: bool,
}

/// `tokenizer.json`, as far as it names the token of unknown words: by its text, or by its number.
#[derive(Deserialize)]
struct Vocabulary {
    model: UnknownWords,
}

#[derive(Deserialize)]
struct UnknownWords {
    unk_token: Option<String>,
    unk_id: Option<u32>,
}

/// A text as windows of tokens.
#[derive(Debug)]
pub(crate) struct Windows {
    /// Token ids of each, with special tokens.
    pub ids: Vec<Vec<u32>>,
    /// Tokens of each that are none of the text: special ones, and those of the prompt.
    pub overhead: usize,
    /// A part of the text is in none of them.
    pub is_truncated: bool,
}

/// The tokens of a part of a text.
struct Body {
    ids: Vec<u32>,
    /// The length of that part.
    bytes: usize,
}

impl TextTokenizer {
    /// Reads a `tokenizer.json`. `max_tokens` counts the special tokens.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is malformed, or leaves no room for a text.
    pub fn load(path: &Path, max_tokens: usize, lower_case: bool) -> Result<Self, EmbeddingError> {
        let bytes = std::fs::read(path).map_err(|error| EmbeddingError::io(path, error))?;
        let mut tokenizer =
            Tokenizer::from_bytes(&bytes).map_err(|error| EmbeddingError::unusable(path, error))?;
        // As in transformers, the direction counts although the length does not.
        let truncation = tokenizer.get_truncation();
        let is_left = truncation.is_some_and(|it| it.direction == TruncationDirection::Left);
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| EmbeddingError::unusable(path, error))?;

        let (before, after) =
            special_tokens(&tokenizer).map_err(|reason| EmbeddingError::unusable(path, reason))?;
        let unknown = serde_json::from_slice::<Vocabulary>(&bytes).ok();
        let unknown = unknown.and_then(|read| {
            let named = read.model.unk_token;
            let by_name = named.and_then(|token| tokenizer.token_to_id(&token));
            by_name.or(read.model.unk_id)
        });
        let whole = Self {
            unknown,
            drops_unknown: false,
            patterns: Arc::new(Patterns::of(&bytes)),
            word_counts: Arc::new(WordCounts::of(&bytes, &tokenizer)),
            tokenizer: Arc::new(tokenizer),
            before,
            after,
            room: 0,
            lower_case,
            truncation_side: match is_left {
                true => TruncationSide::Left,
                false => TruncationSide::Right,
            },
        };
        whole
            .with_window(max_tokens)
            .map_err(|reason| EmbeddingError::unusable(path, reason))
    }

    /// The same tokenizer for another window, special tokens included.
    ///
    /// # Errors
    ///
    /// If the window leaves no room for a text.
    pub(crate) fn with_window(self, max_tokens: usize) -> Result<Self, String> {
        let room = max_tokens.saturating_sub(self.before.len() + self.after.len());
        if room == 0 {
            return Err(format!(
                "its special tokens leave no room for a text in a window of {max_tokens} tokens"
            ));
        }
        Ok(Self { room, ..self })
    }

    /// Cuts texts on this side, if `tokenizer_config.json` states one; it goes before `tokenizer.json`.
    pub(crate) fn truncating(self, stated: Option<TruncationSide>) -> Self {
        Self {
            truncation_side: stated.unwrap_or(self.truncation_side),
            ..self
        }
    }

    /// Without special tokens, and without that of unknown words, which takes its place in the window nevertheless: as model2vec
    /// reads a text for a static model. (It also cuts texts by their characters first, which saves time and hardly ever counts.)
    pub(crate) fn of_known_words(self) -> Self {
        Self {
            room: self.room + self.before.len() + self.after.len(),
            before: Vec::new(),
            after: Vec::new(),
            drops_unknown: true,
            ..self
        }
    }

    /// Which end of a text is cut off.
    pub(crate) fn truncation_side(&self) -> TruncationSide {
        self.truncation_side
    }

    /// The id of a token in the vocabulary.
    pub(crate) fn id_of(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Number of tokens that a prompt takes at the start of a text, the leading special tokens included.
    pub(crate) fn prompt_tokens(&self, prompt: &str) -> Result<usize, tokenizers::Error> {
        if prompt.is_empty() {
            return Ok(0);
        }
        Ok(
            (self.before.len() + self.body(prompt, self.room)?.ids.len())
                .min(self.before.len() + self.room),
        )
    }

    /// Token ids with special tokens, at most as many as the window has. They are the ones that tokenizing the whole
    /// text and truncating afterwards would yield, unless the window is not full after the first 64 bytes for each of
    /// its tokens, and at least 64 KiB. The rest of such a text does not count. (Where `truncation_side` is left, its
    /// beginning does not.)
    ///
    /// White space around a text is left to the tokenizer, as in sentence-transformers 6, except around longer texts.
    /// (Older versions of it remove white space.)
    ///
    /// # Errors
    ///
    /// The tokenizer's own error.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, tokenizers::Error> {
        Ok(self.window_of("", text)?.0)
    }

    /// As [`TextTokenizer::ids`], for a text behind a prompt, with whether a part of it does not count.
    pub(crate) fn window_of(
        &self,
        prompt: &str,
        text: &str,
    ) -> Result<(Vec<u32>, bool), tokenizers::Error> {
        let (kept, is_truncated) = self.kept(prompt, text, self.room)?;
        Ok((self.framed(&[&kept]), is_truncated))
    }

    /// As [`TextTokenizer::window_of`], with as many overlapping windows as the text takes, for up to
    /// [`TextTokenizer::room_of_windows`] tokens. Each begins with the prompt, so that each is what the model knows
    /// as a text; but not with one that fills more than half of the window.
    pub(crate) fn windows_of(
        &self,
        prompt: &str,
        text: &str,
    ) -> Result<Windows, tokenizers::Error> {
        let (kept, is_truncated) = self.kept(prompt, text, self.room_of_windows())?;
        let prompt_is_cut = is_truncated && self.truncation_side == TruncationSide::Left;
        let prompt = match self
            .prompt_tokens(prompt)?
            .saturating_sub(self.before.len())
        {
            length if prompt_is_cut || length > self.room / 2 => 0,
            length => length.min(kept.len()),
        };
        let overhead = self.before.len() + prompt + self.after.len();
        if kept.len() <= self.room {
            let ids = vec![self.framed(&[&kept])];
            return Ok(Windows {
                ids,
                overhead,
                is_truncated,
            });
        }
        let (prompt, text) = kept.split_at(prompt);
        let width = self.room - prompt.len();
        let stride = width - width / OVERLAP;
        // The last one is the first that reaches the end.
        let count = 1 + (text.len() - width).div_ceil(stride);
        let windows = (0..count).map(|number| {
            let start = number * stride;
            let end = text.len().min(start + width);
            self.framed(&[prompt, &text[start..end]])
        });
        let ids = windows.collect();
        Ok(Windows {
            ids,
            overhead,
            is_truncated,
        })
    }

    /// The most tokens of a text, without special ones, whose windows are averaged.
    pub(crate) fn room_of_windows(&self) -> usize {
        let most = self.room.saturating_mul(MAX_WINDOWS);
        most.min(MAX_LONG_TEXT).max(self.room)
    }

    /// The text of which these are the token ids, special tokens included; `None` where they are not exactly those that
    /// the text has.
    pub(crate) fn text_of(&self, ids: &[u32]) -> Option<String> {
        let body = ids
            .strip_prefix(&self.before[..])?
            .strip_suffix(&self.after[..])?;
        let text = self.tokenizer.decode(body, false).ok()?;
        let (again, is_truncated) = self.window_of("", &text).ok()?;
        (again == ids && !is_truncated).then_some(text)
    }

    /// The beginning of a text that fills the window, if the text has more tokens than that; `None` for a text that fits.
    ///
    /// # Errors
    ///
    /// The tokenizer's own error.
    pub(crate) fn head<'a>(&self, text: &'a str) -> Result<Option<&'a str>, tokenizers::Error> {
        let part = cut(text, byte_limit(self.room));
        let in_case = self.cased(part);
        self.patterns.check(&in_case)?;
        // Unlike the ids alone, the places of tokens take a slower method.
        let encoding = self.tokenizer.encode(in_case, false)?;
        let Some((end, _)) = encoding.get_offsets().get(self.room) else {
            return Ok((part.len() < text.len()).then_some(part));
        };
        // A letter may have another length in lower case; then this is a few letters off.
        let head = &part[..part.floor_char_boundary(*end)];
        Ok(Some(head.trim_end()))
    }

    /// Number of tokens of a text alone, without special tokens. Words that were counted before are known, where the
    /// tokenizer decides each word by itself.
    ///
    /// # Errors
    ///
    /// The tokenizer's own error.
    pub fn count(&self, text: &str) -> Result<usize, tokenizers::Error> {
        match self.word_counts.as_ref() {
            Some(words) => words.count(text, |word| self.count_by_tokenizing(word)),
            None => self.count_by_tokenizing(text),
        }
    }

    /// As [`TextTokenizer::count`], by the tokenizer alone. A long text is tokenized in parts.
    fn count_by_tokenizing(&self, text: &str) -> Result<usize, tokenizers::Error> {
        let (mut rest, mut count) = (text, 0);
        while !rest.is_empty() {
            let part = cut(rest, MIN_BYTE_LIMIT);
            let in_case = self.cased(part);
            self.patterns.check(&in_case)?;
            count += self.tokenizer.encode_fast(in_case, false)?.len();
            rest = &rest[part.len()..];
        }
        Ok(count)
    }

    /// How many tokens of a text have a place in the window behind a prompt.
    ///
    /// # Errors
    ///
    /// The tokenizer's own error.
    pub(crate) fn room_behind(&self, prompt: &str) -> Result<usize, tokenizers::Error> {
        let taken = self.count(prompt)?;
        Ok(self.room.saturating_sub(taken))
    }

    /// Whether every text begins or ends with a token that tells the ids of this tokenizer from those of others.
    pub(crate) fn has_special_tokens(&self) -> bool {
        !self.before.is_empty() || !self.after.is_empty()
    }

    /// Between the special tokens.
    fn framed(&self, parts: &[&[u32]]) -> Vec<u32> {
        [&self.before[..], &parts.concat(), &self.after[..]].concat()
    }

    /// At most `room` tokens of prompt and text, without special tokens, and whether others are missing.
    fn kept(
        &self,
        prompt: &str,
        text: &str,
        room: usize,
    ) -> Result<(Vec<u32>, bool), tokenizers::Error> {
        // White space alone must not fill what is looked at.
        let text = if text.len() > byte_limit(room) {
            text.trim()
        } else {
            text
        };
        let (text, is_cut) = self.behind(prompt, text, room);
        let mut body = self.body(&text, room)?;
        let beyond = body.ids.len().saturating_sub(room);
        match self.truncation_side {
            TruncationSide::Right => body.ids.truncate(room),
            TruncationSide::Left => drop(body.ids.drain(..beyond)),
        }
        if self.drops_unknown {
            body.ids.retain(|id| Some(*id) != self.unknown);
        }
        let is_truncated = is_cut || beyond > 0 || body.bytes < text.len();
        Ok((body.ids, is_truncated))
    }

    /// Prompt and text, and whether some of that is missing: no more is copied than is looked at, because a text may
    /// have a gigabyte.
    fn behind<'a>(&self, prompt: &str, text: &'a str, room: usize) -> (Cow<'a, str>, bool) {
        let limit = byte_limit(room);
        match self.truncation_side {
            _ if prompt.is_empty() => (Cow::Borrowed(text), false),
            _ if text.len() <= limit => (Cow::Owned(format!("{prompt}{text}")), false),
            TruncationSide::Right => {
                let start = &text[..text.floor_char_boundary(limit)];
                (Cow::Owned(format!("{prompt}{start}")), true)
            }
            // The prompt is a part of what is cut off.
            TruncationSide::Left => (Cow::Borrowed(text), true),
        }
    }

    /// Tokens of a part of the text that is long enough to settle the first `room` tokens, or the last ones: a prefix, or a suffix
    /// where the beginning is cut off.
    ///
    /// A tokenizer splits a text into words, at most at white space, and decides each word by itself. So the tokens of
    /// a prefix are those of the whole text except for the last few, and these lie outside the window. The first prefix
    /// allows eight bytes for each token; it is doubled until enough tokens are there, or the limit is reached.
    fn body(&self, text: &str, room: usize) -> Result<Body, tokenizers::Error> {
        let limit = byte_limit(room);
        let mut bytes = room.saturating_mul(8).clamp(2048, limit);
        loop {
            let part = match self.truncation_side {
                TruncationSide::Right => cut(text, bytes),
                TruncationSide::Left => cut_beginning(text, bytes),
            };
            let part_in_case = self.cased(part);
            self.patterns.check(&part_in_case)?;
            let encoding = self.tokenizer.encode_fast(part_in_case, false)?;
            let ids = encoding.get_ids();
            let is_settled = ids.len() >= room.saturating_add(MAX_UNSETTLED_TOKENS);
            if part.len() == text.len() || is_settled || bytes == limit {
                return Ok(Body {
                    ids: ids.to_vec(),
                    bytes: part.len(),
                });
            }
            bytes = bytes.saturating_mul(2).min(limit);
        }
    }

    fn cased<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.lower_case {
            Cow::Owned(text.to_lowercase())
        } else {
            Cow::Borrowed(text)
        }
    }
}

/// The most bytes that are looked at for this number of tokens.
fn byte_limit(room: usize) -> usize {
    let by_window = room.saturating_mul(MAX_BYTES_PER_TOKEN);
    by_window.max(MIN_BYTE_LIMIT)
}

/// The longest prefix of at most `bytes` bytes that ends between two words or, if there is no white space nearby,
/// between two characters.
fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let prefix = &text[..text.floor_char_boundary(bytes)];
    let nearby = prefix.floor_char_boundary(prefix.len().saturating_sub(MAX_GAP_DISTANCE));
    match prefix[nearby..].rfind(char::is_whitespace) {
        Some(gap) if nearby + gap > 0 => &prefix[..nearby + gap],
        _ => prefix,
    }
}

/// The longest suffix of at most `bytes` bytes that begins between two words or, if there is no white space nearby,
/// between two characters. It begins with the white space, which some tokenizers count to the word behind it.
fn cut_beginning(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let suffix = &text[text.ceil_char_boundary(text.len() - bytes)..];
    let nearby = suffix.ceil_char_boundary(suffix.len().min(MAX_GAP_DISTANCE));
    match suffix[..nearby].find(char::is_whitespace) {
        Some(gap) => &suffix[gap..],
        None => suffix,
    }
}

/// Finds the special tokens around a text by tokenizing a probe with and without them, so that the post-processor need
/// not run over every text.
fn special_tokens(tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<u32>), String> {
    let encode = |special| {
        tokenizer
            .encode_fast("hello world", special)
            .map_err(|error| error.to_string())
    };
    let (bare, framed) = (encode(false)?, encode(true)?);
    // The engine sends 0 for every token type (session.rs).
    if framed.get_type_ids().iter().any(|type_id| *type_id != 0) {
        return Err(
            "its template gives a single text token types other than 0, which is not supported"
                .into(),
        );
    }
    let (bare, framed) = (bare.get_ids(), framed.get_ids());
    let start = (0..=framed.len().saturating_sub(bare.len()))
        .find(|start| framed[*start..].starts_with(bare))
        .ok_or("its template changes the tokens of a text, which is not supported")?;
    Ok((
        framed[..start].to_vec(),
        framed[start + bare.len()..].to_vec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_text_fills_the_window_and_a_text_that_fits_has_none() {
        let tokenizer = tokenizer(6);
        for text in ["", "hello", "hello world é."] {
            assert_eq!(tokenizer.head(text).unwrap(), None, "{text}");
        }
        for (text, head) in [
            ("hello world hello world hello", "hello world hello world"),
            ("hello worlding é変 slot", "hello worlding é"),
        ] {
            assert_eq!(tokenizer.head(text).unwrap(), Some(head));
            assert_eq!(tokenizer.ids(head).unwrap(), tokenizer.ids(text).unwrap());
        }
    }

    #[test]
    fn tokens_of_a_text_are_counted_without_the_special_ones_and_beyond_the_window() {
        let tokenizer = tokenizer(5);
        assert_eq!(tokenizer.count("").unwrap(), 0);
        assert_eq!(tokenizer.count("hello worlding. slot").unwrap(), 5);
        let long = "hello world ".repeat(20_000);
        assert_eq!(tokenizer.count(&long).unwrap(), 40_000);
        assert_eq!(tokenizer.room_behind("").unwrap(), 3);
        assert_eq!(tokenizer.room_behind("hello world ").unwrap(), 1);
        assert_eq!(tokenizer.room_behind(&long).unwrap(), 0);
    }

    /// A WordPiece tokenizer like BERT's, over single characters and a few longer pieces.
    fn tokenizer(max_tokens: usize) -> TextTokenizer {
        let mut pieces: Vec<String> = [
            "[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "world", "##ing", "##tion", "slot",
        ]
        .map(str::to_owned)
        .to_vec();
        for letter in ('a'..='z').chain(['é', '.', '変', '更']) {
            pieces.extend([letter.to_string(), format!("##{letter}")]);
        }
        let vocabulary: serde_json::Map<_, _> = pieces
            .into_iter()
            .enumerate()
            .map(|(id, piece)| (piece, id.into()))
            .collect();
        let json = serde_json::json!({
            "version": "1.0",
            "truncation": {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                "pad_type_id": 0, "pad_token": "[PAD]"},
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": false, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocabulary},
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json.to_string()).unwrap();
        TextTokenizer::load(file.path(), max_tokens, false).unwrap()
    }

    /// The ids as the library itself computes them: the whole text, then truncation, then special tokens.
    fn whole_ids(tokenizer: &TextTokenizer, text: &str) -> Vec<u32> {
        let mut whole = Tokenizer::clone(&tokenizer.tokenizer);
        let max_length = tokenizer.room + 2;
        let direction = match tokenizer.truncation_side {
            TruncationSide::Left => TruncationDirection::Left,
            TruncationSide::Right => TruncationDirection::Right,
        };
        let truncation = tokenizers::TruncationParams {
            max_length,
            direction,
            ..Default::default()
        };
        whole.with_truncation(Some(truncation)).unwrap();
        whole.encode_fast(text, true).unwrap().get_ids().to_vec()
    }

    #[test]
    fn padding_and_truncation_settings_of_the_file_are_ignored() {
        let ids = tokenizer(32)
            .ids("hello world hello world hello world hello world")
            .unwrap();
        assert_eq!(ids, [2, 4, 5, 4, 5, 4, 5, 4, 5, 3]);
        assert_eq!(
            tokenizer(5).ids("hello world hello world").unwrap(),
            [2, 4, 5, 4, 3]
        );
        assert_eq!(tokenizer(5).ids("").unwrap(), [2, 3]);
    }

    #[test]
    fn a_text_beyond_the_window_loses_the_end_that_the_files_name() {
        let cut = |text, side| {
            let tokenizer = tokenizer(5).truncating(side);
            tokenizer.window_of("", text).unwrap()
        };
        let (long, short) = ("hello world hello slot", "hello world slot");
        assert_eq!(cut(long, None), (vec![2, 4, 5, 4, 3], true));
        let left = Some(TruncationSide::Left);
        assert_eq!(cut(long, left), (vec![2, 5, 4, 8, 3], true));
        assert_eq!(cut(short, left), (vec![2, 4, 5, 8, 3], false));
        assert_eq!(cut(short, None), (vec![2, 4, 5, 8, 3], false));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
        #[test]
        fn the_ids_of_a_prefix_are_those_of_the_whole_text(
            words in proptest::collection::vec("[a-zé.]{1,12}|[変更]{1,40}|hello|[a-z]{80,120}|[a-z]{300,400}", 1..20),
            separator in "[ \t]|  |",
            repeats in 1usize..200,
            max_tokens in 8usize..300,
            left in proptest::bool::ANY,
        ) {
            let side = if left { TruncationSide::Left } else { TruncationSide::Right };
            let tokenizer = tokenizer(max_tokens).truncating(Some(side));
            let text = vec![words.join(&separator); repeats].join(&separator);
            let ids = tokenizer.ids(&text).unwrap();
            // A word of hundreds of letters is one token: a window that such words do not fill in time is allowed to differ.
            let is_exempt = text.len() > byte_limit(tokenizer.room) && ids.len() < max_tokens;
            proptest::prop_assume!(!is_exempt);
            assert_eq!(ids, whole_ids(&tokenizer, &text));
        }
    }

    /// Texts that fill no window: one word, or nothing that is a token.
    const ENDLESS: [&str; 12] = [
        "a",
        "A1b2C3d4+/",
        "\u{200b}",
        "\u{0}",
        "\u{301}",
        "e\u{301}\u{302}\u{323}",
        "👩\u{200d}👩\u{200d}👧\u{1f3fd}",
        "ภาษาไทย",
        "က္က",
        "ſ",
        "İ",
        "\u{fdfa}",
    ];

    /// The bytes that are looked at for a window of 256 tokens, two of them special.
    const LIMIT: usize = 64 * 1024;

    fn sides() -> [TextTokenizer; 2] {
        [TruncationSide::Left, TruncationSide::Right]
            .map(|side| tokenizer(256).truncating(Some(side)))
    }

    #[test]
    fn an_endless_text_costs_no_more_than_its_first_64_kib() {
        for tokenizer in sides() {
            assert_eq!(byte_limit(tokenizer.room), LIMIT);
            for unit in ENDLESS {
                let text = unit.repeat((8 << 20) / unit.len());
                let begin = std::time::Instant::now();
                let (ids, is_truncated) = tokenizer.window_of("query: ", &text).unwrap();
                let (looked_at, elapsed) = (
                    tokenizer.body(&text, tokenizer.room).unwrap().bytes,
                    begin.elapsed(),
                );
                assert!(ids.len() <= 256 && looked_at <= LIMIT, "{unit:?}");
                assert!(is_truncated, "{unit:?}");
                // The whole text takes a hundred times as long, or two minutes in a build without optimization.
                assert!(elapsed.as_secs() < 10, "{unit:?}: {elapsed:?}");
            }
        }
        assert_eq!(byte_limit(tokenizer(8192).room), 8190 * 64);
    }

    #[test]
    fn what_is_beyond_the_limit_does_not_count_and_a_text_up_to_it_does() {
        let right = &sides()[1];
        let word = "a".repeat(LIMIT - " hello".len());
        let at_limit = format!("{word} hello");
        assert_eq!(
            right.window_of("", &at_limit).unwrap(),
            (vec![2, 1, 4, 3], false)
        );
        let beyond = format!("a{word} hello");
        assert_eq!(right.window_of("", &beyond).unwrap(), (vec![2, 1, 3], true));
        let left = &sides()[0];
        let at_limit = format!("hello {word}");
        assert_eq!(
            left.window_of("", &at_limit).unwrap(),
            (vec![2, 4, 1, 3], false)
        );
        let beyond = format!("hello a{word}");
        assert_eq!(left.window_of("", &beyond).unwrap(), (vec![2, 1, 3], true));
    }

    #[test]
    fn a_prompt_goes_before_a_text_of_any_length() {
        let right = &sides()[1];
        let long = "hello ".repeat(1 << 20);
        let (ids, is_truncated) = right.window_of("slot world ", &long).unwrap();
        assert_eq!(
            (&ids[..4], ids.len(), is_truncated),
            (&[2, 8, 5, 4][..], 256, true)
        );
        let blank = " ".repeat(1 << 20);
        let padded = format!("{blank}hello{blank}");
        assert_eq!(
            right.window_of("", &padded).unwrap(),
            (vec![2, 4, 3], false)
        );
        let after = format!("hello{blank}");
        assert_eq!(
            right.window_of("slot ", &after).unwrap(),
            (vec![2, 8, 4, 3], false)
        );
    }

    /// Words of one token each, by their ids, as many as fit between `[CLS]` and `[SEP]`.
    fn words(count: usize) -> (String, Vec<u32>) {
        let known = [("hello", 4), ("world", 5), ("slot", 8)];
        let chosen = (0..count).map(|place| known[place * place % 7 % 3]);
        let (words, ids): (Vec<&str>, Vec<u32>) = chosen.unzip();
        (words.join(" "), ids)
    }

    #[test]
    fn windows_overlap_and_cover_a_text_without_a_gap() {
        // 16 tokens between the special ones, of which two are also in the window before.
        let tokenizer = tokenizer(18);
        for count in [1, 15, 16, 17, 30, 31, 100, 448] {
            let (text, ids) = words(count);
            let windows = tokenizer.windows_of("", &text).unwrap();
            assert_eq!((windows.overhead, windows.is_truncated), (2, false));
            let mut covered: Vec<u32> = Vec::new();
            for (number, window) in windows.ids.iter().enumerate() {
                assert!(window.len() <= 18 && window[0] == 2 && window.ends_with(&[3]));
                let own = &window[1..window.len() - 1];
                let repeated = if number == 0 { 0 } else { 2 };
                assert!(covered.ends_with(&own[..repeated]), "{count}: {windows:?}");
                assert!(
                    own.len() > repeated,
                    "{count}: a window has nothing of its own"
                );
                covered.extend(&own[repeated..]);
            }
            assert_eq!(covered, ids, "{count}");
        }
    }

    #[test]
    fn each_window_begins_with_the_prompt_unless_that_is_long() {
        let tokenizer = tokenizer(18);
        let (text, _) = words(40);
        let windows = tokenizer.windows_of("world world slot ", &text).unwrap();
        assert_eq!(windows.overhead, 5);
        assert!(windows.ids.len() > 3);
        assert!(windows.ids.iter().all(|window| window[1..4] == [5, 5, 8]));
        let (long, _) = words(9);
        let windows = tokenizer.windows_of(&format!("{long} "), &text).unwrap();
        assert_eq!(windows.overhead, 2);
    }

    #[test]
    fn what_is_beyond_the_last_window_does_not_count_on_the_side_that_is_cut() {
        let (text, ids) = words(1000);
        let most = 16 * MAX_WINDOWS;
        for (side, first, last) in [
            (TruncationSide::Right, ids[0], ids[most - 1]),
            (TruncationSide::Left, ids[1000 - most], ids[999]),
        ] {
            let windows = tokenizer(18)
                .truncating(Some(side))
                .windows_of("", &text)
                .unwrap();
            let (head, tail) = (&windows.ids[0], windows.ids.last().unwrap());
            assert!(windows.is_truncated);
            assert_eq!((head[1], tail[tail.len() - 2]), (first, last));
        }
        // A window that is larger than all of a long text is the only one.
        assert_eq!(tokenizer(50_002).room_of_windows(), 50_000);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
        /// Whatever a text is made of, its tokens are those of the part that is looked at, and that is all of it up to
        /// the limit.
        #[test]
        fn the_ids_of_any_text_are_those_of_the_part_that_is_looked_at(
            unit in "[a-z]{1,9}|\\PC{1,4}|[\u{200b}\u{0}\u{301}\u{feff}]{1,3}|[a-z]{300} hello |\\s{1,5}",
            tail in "( hello| slot|\\.){0,40}",
            bytes in 0usize..300_000,
            left in proptest::bool::ANY,
        ) {
            let side = if left { TruncationSide::Left } else { TruncationSide::Right };
            let tokenizer = tokenizer(16).truncating(Some(side));
            let body = unit.repeat(bytes / unit.len());
            let text = if left { tail + &body } else { body + &tail };
            let text = text.trim();
            let part = if left { cut_beginning(text, LIMIT) } else { cut(text, LIMIT) };
            let (ids, is_truncated) = tokenizer.window_of("", text).unwrap();
            assert_eq!(ids, whole_ids(&tokenizer, part));
            if text.len() <= LIMIT {
                assert_eq!(ids, whole_ids(&tokenizer, text));
            } else {
                assert!(is_truncated);
            }
        }
    }

    #[test]
    fn a_cut_is_between_words_or_at_least_between_characters() {
        assert_eq!(cut("one two three", 100), "one two three");
        assert_eq!(cut("one two three", 9), "one two");
        assert_eq!(cut("ääääää", 5), "ää");
        assert_eq!(cut(" aaaaaaaaa", 5), " aaaa");
        let far = format!("a {}", "x".repeat(1000));
        assert_eq!(cut(&far, 900).len(), 900);
        assert_eq!(cut_beginning("one two three", 100), "one two three");
        assert_eq!(cut_beginning("one two three", 8), " three");
        assert_eq!(cut_beginning("ääääää", 5), "ää");
    }
}
