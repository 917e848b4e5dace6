//! What a program may ask of a model beside a job's options: token ids in place of a text, a shorter vector, and
//! a prompt by its name.

use super::error::EmbeddingError;
use super::local::loaded::LoadedModel;
use super::local::matryoshka;
use super::model::Model;
use super::pooling::normalize;
use super::remote;
use super::role::TextRole;

/// Why token ids cannot be embedded, as a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignTokens {
    /// The model's tokenizer puts nothing around a text that would tell its ids from those of another tokenizer.
    #[error(
        "the tokenizer of this model marks no text, so its token ids cannot be told from those of others"
    )]
    Unmarked,
    /// The model is at a server, which alone has its tokenizer.
    #[error("this model is at another server, to which only texts are sent")]
    Elsewhere,
    /// They are those of another tokenizer, or without special tokens, or more than the model reads.
    #[error(
        "they are not the token ids that the model's own tokenizer makes of a text, special tokens included, at most \
         {0} of them"
    )]
    Other(usize),
}

impl Model {
    /// Number of tokens that the model reads of a text in this role, special ones and those of the prompt included; an
    /// estimate for a model of a server.
    ///
    /// # Errors
    ///
    /// If the text has no tokens.
    pub fn count_tokens(&self, role: TextRole, text: &str) -> Result<usize, EmbeddingError> {
        match self.here() {
            Some(model) => Ok(model.tokenize(role, text)?.len()),
            None => Ok(remote::estimate_tokens(text)),
        }
    }

    /// The text of which these are the token ids. They must be exactly those that the model's own tokenizer makes of it,
    /// special tokens included: ids of other tokenizers are numbers of the same kind, and would give vectors of another
    /// text.
    ///
    /// # Errors
    ///
    /// If they are not.
    pub fn text_of_tokens(&self, ids: &[u32]) -> Result<String, ForeignTokens> {
        let settings = &self.here().ok_or(ForeignTokens::Elsewhere)?.settings;
        let tokenizer = &settings.tokenizer;
        if !tokenizer.has_special_tokens() {
            return Err(ForeignTokens::Unmarked);
        }
        let text = tokenizer.text_of(ids);
        text.ok_or(ForeignTokens::Other(settings.max_tokens))
    }

    /// Whether every vector is known to have length 1.
    #[must_use]
    pub fn is_normalized(&self) -> bool {
        self.here().is_some_and(|model| model.is_normalized)
    }

    /// Checks that vectors may be cut to this length, as the option `dimensions` does it.
    ///
    /// # Errors
    ///
    /// If they are shorter, or the model is not known to be trained for it.
    pub fn check_dimensions(&self, dimensions: usize) -> Result<(), String> {
        let whole = self.dimensions();
        if dimensions > whole || dimensions == 0 {
            return Err(format!("the vectors of this model have {whole} dimensions"));
        }
        let unknown = || {
            format!(
                "this model is not known to be trained for shorter vectors than its {whole} dimensions; leave dimensions \
                 out"
            )
        };
        if dimensions == whole {
            return Ok(());
        }
        let model = self.here().ok_or_else(unknown)?;
        if model.settings.cut.is_some() || model.base.files.may_be_cut {
            return Ok(());
        }
        matryoshka::check(self.name()).map_err(|_| unknown())
    }

    /// Cuts a vector of this model to this length, and normalizes it again where the model normalizes.
    pub fn cut(&self, vector: &mut Vec<f32>, dimensions: usize) {
        if dimensions < vector.len() {
            vector.truncate(dimensions);
            if self.is_normalized() {
                normalize(vector);
            }
        }
    }

    /// The role whose prompt or task has this name in the model's files. `query` and `document` always name their roles.
    #[must_use]
    pub fn role_of_prompt(&self, name: &str) -> Option<TextRole> {
        match name {
            "query" => return Some(TextRole::Query),
            "document" => return Some(TextRole::Document),
            _ => {}
        }
        let LoadedModel { settings, base, .. } = &**self.here()?;
        let task = base.files.tasks.number(name);
        if let Some(task) = task.filter(|_| base.session().takes_task()) {
            let mut roles = [TextRole::Query, TextRole::Document].into_iter();
            return roles.find(|role| settings.of(*role).task == Some(task));
        }
        let prompt = base.files.prompts.named.get(name)?;
        if *prompt == settings.query.prompt {
            Some(TextRole::Query)
        } else if *prompt == settings.document.prompt {
            Some(TextRole::Document)
        } else {
            None
        }
    }
}
