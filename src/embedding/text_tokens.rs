//! How many tokens a text has for a model, and how many it may have: what those need who cut texts.

use super::local::tokenizer::TextTokenizer;
use super::model::{Computed, Model};
use super::remote;
use super::role::TextRole;

/// Counts the tokens of texts as a model does. Clones share the vocabulary.
#[derive(Clone)]
pub struct TextTokens(Option<TextTokenizer>);

impl TextTokens {
    /// Tokens of the text alone, without special tokens and prompt. A long text is counted in parts.
    ///
    /// It is an estimate for a model of a server whose tokenizer is not known, and for a text that the tokenizer cannot
    /// read, which no model embeds.
    #[must_use]
    pub fn count(&self, text: &str) -> usize {
        let counted = self.0.as_ref().and_then(|it| it.count(text).ok());
        // The estimate has two tokens for what is around a text.
        counted.unwrap_or_else(|| remote::estimate_tokens(text) - remote::estimate_tokens(""))
    }

    /// Whether texts are counted by the model's own tokenizer.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.0.is_some()
    }
}

impl Model {
    /// A counter of tokens: the model's own tokenizer, or of a model of a server that of the local model that the option
    /// `tokenizer` names, or else an estimate.
    #[must_use]
    pub fn text_tokens(&self) -> TextTokens {
        TextTokens(self.text_tokenizer().cloned())
    }

    /// How many tokens of a document are read in one window, beside special tokens and the prompt of documents. `None`
    /// for a model of a server whose tokenizer is not known, and for a prompt that cannot be read.
    #[must_use]
    pub fn room_for_text(&self) -> Option<usize> {
        let prompt = match self.computed() {
            Computed::Here(model) => &model.settings.document.prompt,
            Computed::Elsewhere(model) => model.options().prompt(TextRole::Document),
        };
        self.text_tokenizer()?.room_behind(prompt).ok()
    }

    fn text_tokenizer(&self) -> Option<&TextTokenizer> {
        match self.computed() {
            Computed::Here(model) => Some(&model.settings.tokenizer),
            Computed::Elsewhere(model) => model.tokenizer(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_tokenizer_the_count_is_an_estimate_and_nothing_has_no_tokens() {
        let tokens = TextTokens(None);
        assert!(!tokens.is_exact());
        assert_eq!(tokens.count(""), 0);
        assert_eq!(tokens.count("four"), 1);
        assert_eq!(tokens.count(&"word ".repeat(400)), 500);
    }
}
