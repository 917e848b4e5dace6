//! A batch of padded texts as a graph takes it.

/// A batch of padded texts. All tensors are row-major `[rows, width]`.
#[derive(Clone)]
pub(crate) struct Batch {
    /// Number of texts.
    pub rows: usize,
    /// Tokens in each row, padding included.
    pub width: usize,
    /// Token ids.
    pub ids: Vec<i64>,
    /// The attention mask: 1 for a real token, 0 for padding.
    pub mask: Vec<i64>,
    /// The position of each token in its text, from 0.
    pub positions: Vec<i64>,
    /// The number of the task of each text, for a graph that takes it.
    pub tasks: Vec<i64>,
    /// What each token counts in each vector of its text, `[rows, modes, width]`, where the graph pools.
    pub weights: Option<Vec<f32>>,
}
