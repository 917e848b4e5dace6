//! Compares the vectors of a provider with those of the CPU, before a model is used.

use crate::embedding::error::EmbeddingError;
use crate::embedding::local::base::{ModelBase, Row};
use crate::embedding::local::session::SharedSession;
use crate::embedding::local::signature::OutputKind;
use crate::embedding::role::TextRole;

/// The cosine to the CPU's vector that each vector must have. Half precision has 0.99999, wrong graphs much less: one
/// that truncated texts 0.54, one in bfloat16 0.218.
const MIN_COSINE: f64 = 0.999;

/// Tokens of the long text. A window of thousands of tokens would take the CPU minutes with a large model.
const MAX_TOKENS: usize = 1024;

const SHORT: &str = "probe";
const SENTENCE: &str =
    "A replication slot keeps the write-ahead log that its reader has not confirmed yet.";
const OTHER_SCRIPTS: &str =
    "Übergrößenträger, 北京的天气很好, 42 % от общего числа; {\"key\": [1, 2.5e-3]}";

/// What was compared, for a person.
const ALONE: &str = "a short text";
const LONG: &str = "a long text";
const MIXED: &str = "texts of different lengths together";

/// The vector that differs most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Worst {
    pub cosine: f64,
    pub of: &'static str,
}

/// Compares the vectors of this session with those of the model's own, which is the CPU's: of a short text, of one that
/// fills the window, and of texts that are padded to each other's length. Returns the one that differs most.
///
/// # Errors
///
/// That of a run of either.
pub(crate) fn compare(base: &ModelBase, tested: &SharedSession) -> Result<Worst, EmbeddingError> {
    let ids = |text: &str| {
        base.tokenizer
            .ids(text)
            .map_err(|error| EmbeddingError::unusable(&base.files.tokenizer, error))
    };
    let [short, sentence, other] = [ids(SHORT)?, ids(SENTENCE)?, ids(OTHER_SCRIPTS)?];
    let long = repeated(&sentence, base.max_tokens.min(MAX_TOKENS));
    // Of a model with tasks, two of them are compared.
    let batches: [(&str, TextRole, &[&[u32]]); 3] = [
        (ALONE, TextRole::Document, &[&short]),
        (LONG, TextRole::Query, &[&long]),
        (
            MIXED,
            TextRole::Document,
            &[&short, &long, &sentence, &other],
        ),
    ];
    let (kind, pooling) = (tested.kind(), &base.files.pooling);
    let mut worst = Worst {
        cosine: 1.0,
        of: ALONE,
    };
    for (of, role, texts) in batches {
        let ids = texts.iter().copied().filter(|ids| !ids.is_empty());
        let texts: Vec<Row> = ids.map(|ids| base.plain(ids, role)).collect();
        // What comes after pooling is not the provider's.
        let exact = base.pooled_here(base.session(), &texts, kind, pooling)?;
        let found = match kind == OutputKind::TokenStates && tested.pools(pooling) {
            true => base.pooled_in_graph(tested, &texts, pooling)?,
            false => base.pooled_here(tested, &texts, kind, pooling)?,
        };
        for (exact, found) in exact.iter().zip(&found) {
            let cosine = cosine(exact, found);
            if cosine < worst.cosine {
                worst = Worst { cosine, of };
            }
        }
    }
    Ok(worst)
}

impl Worst {
    /// Whether the vectors are as good as the CPU's.
    pub(crate) fn is_good(self) -> bool {
        self.cosine >= MIN_COSINE
    }
}

/// These tokens again and again, up to this number. The special tokens at both ends stay there.
pub(super) fn repeated(ids: &[u32], length: usize) -> Vec<u32> {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else {
        return Vec::new();
    };
    let inner = &ids[1.min(ids.len() - 1)..ids.len() - 1];
    if inner.is_empty() || length <= 2 {
        return ids[..ids.len().min(length.max(1))].to_vec();
    }
    let middle = inner.iter().cycle().take(length - 2);
    std::iter::once(first)
        .chain(middle)
        .chain([last])
        .copied()
        .collect()
}

/// The cosine of the angle between two vectors; that of a vector that is not finite, or has another length, is the
/// worst.
fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let cosine = product(one, other) / (product(one, one) * product(other, other)).sqrt();
    match cosine.is_finite() && one.len() == other.len() {
        true => cosine,
        false => -1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_that_is_not_finite_or_zero_is_as_bad_as_the_opposite() {
        assert!((cosine(&[1.0, 0.0], &[2.0, 0.0]) - 1.0).abs() < 1e-12);
        assert!(cosine(&[1.0, 0.0], &[0.0, 3.0]).abs() < 1e-12);
        for wrong in [&[f32::NAN, 1.0][..], &[0.0, 0.0], &[1.0]] {
            assert!(
                (cosine(&[1.0, 1.0], wrong) + 1.0).abs() < 1e-12,
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_long_text_fills_the_window_and_keeps_its_special_tokens() {
        assert_eq!(repeated(&[101, 7, 8, 102], 7), [101, 7, 8, 7, 8, 7, 102]);
        assert_eq!(repeated(&[101, 7, 8, 102], 3), [101, 7, 102]);
        assert_eq!(repeated(&[7], 5), [7]);
        assert_eq!(repeated(&[], 5), [0u32; 0]);
    }
}
