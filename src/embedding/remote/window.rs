//! The tokenizer of a model elsewhere, where the job names a model of this machine that has the same one: texts are cut to
//! its window before they are sent, rather than after a server has refused them.

use std::sync::Arc;

use crate::embedding::error::EmbeddingError;
use crate::embedding::files::model_files::ModelFiles;
use crate::embedding::local::tokenizer::TextTokenizer;
use crate::embedding::name::ModelName;

/// The window of a model elsewhere.
pub(crate) struct Window(TextTokenizer);

impl Window {
    /// That of the model in this folder. Blocks while the tokenizer is read.
    ///
    /// # Errors
    /// A file of the model cannot be used.
    pub(crate) fn load(folder: &std::path::Path, name: &ModelName) -> Result<Self, EmbeddingError> {
        let files = ModelFiles::read(folder, name)?;
        let tokenizer = TextTokenizer::load(&files.tokenizer, files.max_tokens, files.lower_case)?;
        Ok(Window(tokenizer))
    }

    pub(super) fn tokenizer(&self) -> &TextTokenizer {
        &self.0
    }

    /// The text, or as much of its beginning as the model reads, and whether it is less. A text that the tokenizer cannot
    /// read is left to the server.
    pub(super) fn fit(&self, text: &Arc<str>) -> (Arc<str>, bool) {
        match self.0.head(text) {
            Ok(Some(head)) if !head.is_empty() => (head.into(), true),
            _ => (text.clone(), false),
        }
    }
}
