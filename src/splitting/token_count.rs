//! What the splitter asks of a model.

/// Counts the tokens of a text.
pub trait TokenCount {
    /// Tokens of the text alone, without special tokens. Texts of a bounded size are asked for, not whole documents.
    fn count(&self, text: &str) -> usize;
}

impl<F: Fn(&str) -> usize> TokenCount for F {
    fn count(&self, text: &str) -> usize {
        self(text)
    }
}
