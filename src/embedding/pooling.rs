//! From token states to one vector: the pooling modes of sentence-transformers, and normalization.
//!
//! The formulas are those of `sentence_transformers/models/Pooling.py`. There, an attention mask excludes the padding
//! tokens; here, the caller passes the states of the real tokens only.

use std::fmt;

/// One way to reduce `[tokens, hidden]` to `[hidden]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolingMode {
    /// The state of the first token.
    Cls,
    /// The largest value in each dimension.
    Max,
    /// The mean over the tokens.
    Mean,
    /// The sum over the tokens divided by the square root of their number.
    MeanSqrtLen,
    /// The mean weighted by position: the first token counts once, the second twice.
    WeightedMean,
    /// The state of the last token.
    LastToken,
}

impl PoolingMode {
    const ALL: [Self; 6] = [
        Self::Cls,
        Self::Max,
        Self::Mean,
        Self::MeanSqrtLen,
        Self::WeightedMean,
        Self::LastToken,
    ];

    /// The names of all modes.
    pub(crate) const NAMES: [&str; 6] = {
        let mut names = [""; 6];
        let mut place = 0;
        while place < names.len() {
            names[place] = Self::ALL[place].name();
            place += 1;
        }
        names
    };

    /// The mode of this name, as sentence-transformers writes it.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "mean_sqrt_len_tokens" => Some(Self::MeanSqrtLen),
            _ => Self::ALL.into_iter().find(|mode| mode.name() == name),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::MeanSqrtLen => "mean_sqrt_len",
            Self::WeightedMean => "weightedmean",
            Self::LastToken => "lasttoken",
        }
    }
}

impl fmt::Display for PoolingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a model pools: one mode, or several whose vectors are concatenated in order.
///
/// Without any mode, the graph itself pools (its output is a `sentence_embedding`).
///
/// ```
/// use lantern::embedding::{Pooling, PoolingMode};
///
/// // Two tokens with three values each.
/// let states = [1.0, 2.0, 3.0, 3.0, 4.0, 5.0];
/// assert_eq!(Pooling::new(vec![PoolingMode::Mean]).apply(&states, 3), [2.0, 3.0, 4.0]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    modes: Vec<PoolingMode>,
}

impl Pooling {
    /// Pools by each of these modes and concatenates their vectors.
    #[must_use]
    pub fn new(modes: Vec<PoolingMode>) -> Self {
        Self { modes }
    }

    /// No mode: the graph pools.
    pub(crate) fn in_graph() -> Self {
        Self { modes: Vec::new() }
    }

    /// The modes in the order of concatenation; empty if the graph pools.
    #[must_use]
    pub fn modes(&self) -> &[PoolingMode] {
        &self.modes
    }

    /// What each of `tokens` tokens counts in the vector of each mode, where a vector is such a weighted sum: everywhere but
    /// with [`PoolingMode::Max`]. The first `unpooled` tokens are left out.
    pub(crate) fn shares(&self, unpooled: usize, tokens: usize) -> Option<Vec<Vec<f32>>> {
        let mode = |mode: &PoolingMode| shares(*mode, unpooled, tokens - unpooled);
        self.modes.iter().map(mode).collect()
    }

    /// Pools `states`, the row-major `[tokens, hidden]` states of one text without its padding. Returns a vector of
    /// `hidden` values for each mode.
    ///
    /// # Panics
    ///
    /// If `hidden` is 0, or if there is no token and the mode needs one.
    #[must_use]
    pub fn apply(&self, states: &[f32], hidden: usize) -> Vec<f32> {
        self.apply_behind(0, states, hidden)
    }

    /// As [`Pooling::apply`], without the first tokens, those of a prompt. The others keep their positions, by which
    /// [`PoolingMode::WeightedMean`] weights them.
    pub(crate) fn apply_behind(&self, unpooled: usize, states: &[f32], hidden: usize) -> Vec<f32> {
        let states = &states[unpooled * hidden..];
        let mut vector = Vec::with_capacity(hidden * self.modes.len());
        for mode in &self.modes {
            pool(*mode, unpooled, states, hidden, &mut vector);
        }
        vector
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.modes.is_empty() {
            return f.write_str("in the graph");
        }
        for (index, mode) in self.modes.iter().enumerate() {
            let separator = if index == 0 { "" } else { "+" };
            write!(f, "{separator}{mode}")?;
        }
        Ok(())
    }
}

/// Appends the vector of one mode to `vector`. The first state has the position `first`.
fn pool(mode: PoolingMode, first: usize, states: &[f32], hidden: usize, vector: &mut Vec<f32>) {
    match mode {
        PoolingMode::Cls => vector.extend_from_slice(&states[..hidden]),
        PoolingMode::LastToken => vector.extend_from_slice(&states[states.len() - hidden..]),
        _ => match shares(mode, first, states.len() / hidden) {
            Some(shares) => fold(states, hidden, vector, 0.0, |sum, place, state| {
                sum + state * shares[place]
            }),
            None => fold(
                states,
                hidden,
                vector,
                f32::NEG_INFINITY,
                |best, _, state| best.max(state),
            ),
        },
    }
}

/// What each token counts in the vector of this mode; `None` where that is no weighted sum.
fn shares(mode: PoolingMode, first: usize, tokens: usize) -> Option<Vec<f32>> {
    let only = |place: usize| {
        let mut shares = vec![0.0; tokens];
        shares[place] = 1.0;
        shares
    };
    let count = tokens as f32;
    Some(match mode {
        PoolingMode::Cls => only(0),
        PoolingMode::LastToken => only(tokens - 1),
        PoolingMode::Max => return None,
        PoolingMode::Mean => vec![1.0 / count; tokens],
        PoolingMode::MeanSqrtLen => vec![1.0 / count.sqrt(); tokens],
        PoolingMode::WeightedMean => {
            let positions = first + 1..=first + tokens;
            let sum = positions.clone().sum::<usize>() as f32;
            positions.map(|position| position as f32 / sum).collect()
        }
    })
}

/// Folds the tokens, dimension by dimension, into `hidden` new values at the end of `vector`.
fn fold(
    states: &[f32],
    hidden: usize,
    vector: &mut Vec<f32>,
    start: f32,
    step: impl Fn(f32, usize, f32) -> f32,
) {
    let from = vector.len();
    vector.resize(from + hidden, start);
    for (place, token) in states.chunks_exact(hidden).enumerate() {
        for (value, state) in vector[from..].iter_mut().zip(token) {
            *value = step(*value, place, *state);
        }
    }
}

/// Scales to Euclidean length 1. A vector of zeros stays one: the length is at least 1e-12, as in
/// `torch.nn.functional.normalize`.
pub(crate) fn normalize(vector: &mut [f32]) {
    let length = vector
        .iter()
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        .sqrt();
    let scale = (1.0 / length.max(1e-12)) as f32;
    for value in vector {
        *value *= scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [f32; 6] = [1.0, -2.0, 3.0, 4.0, 5.0, 1.0];

    fn pooled(mode: PoolingMode) -> Vec<f32> {
        Pooling::new(vec![mode]).apply(&STATES, 2)
    }

    fn assert_close(left: &[f32], right: &[f32]) {
        assert_eq!(left.len(), right.len());
        assert!(
            left.iter().zip(right).all(|(a, b)| (a - b).abs() < 1e-6),
            "{left:?} is not {right:?}"
        );
    }

    #[test]
    fn every_mode_follows_its_formula() {
        assert_close(&pooled(PoolingMode::Cls), &[1.0, -2.0]);
        assert_close(&pooled(PoolingMode::LastToken), &[5.0, 1.0]);
        assert_close(&pooled(PoolingMode::Max), &[5.0, 4.0]);
        assert_close(&pooled(PoolingMode::Mean), &[3.0, 1.0]);
        assert_close(
            &pooled(PoolingMode::MeanSqrtLen),
            &[9.0 / 3f32.sqrt(), 3f32.sqrt()],
        );
        assert_close(&pooled(PoolingMode::WeightedMean), &[22.0 / 6.0, 9.0 / 6.0]);
    }

    #[test]
    fn several_modes_are_concatenated() {
        let pooling = Pooling::new(vec![PoolingMode::Cls, PoolingMode::Mean]);
        assert_close(&pooling.apply(&STATES, 2), &[1.0, -2.0, 3.0, 1.0]);
        assert_eq!(pooling.to_string(), "cls+mean");
    }

    #[test]
    fn normalizing_yields_length_one_and_keeps_zeros() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_close(&vector, &[0.6, 0.8]);
        let mut zeros = [0.0, 0.0];
        normalize(&mut zeros);
        assert_close(&zeros, &[0.0, 0.0]);
    }
}
