//! From what is asked to vectors: which model, which texts, in which role, and how much of it is too much.

use std::time::Duration;

use super::body::beside;
use super::error::{ApiError, Problem};
use super::input::Input;
use super::limits::{GATHER_TIME, MAX_TEXTS, MAX_TOKENS};
use super::service::Api;
use crate::embedding::{Embedded, EmbeddingError, ForeignTokens, Model, TextRole};

/// Tokens of a text beside those of its bytes, at most: special ones, and a usual prompt.
const OVERHEAD_TOKENS: usize = 256;

/// Texts to be embedded.
pub(super) struct Wanted {
    pub model: Model,
    pub role: TextRole,
    pub texts: Vec<String>,
    /// The length of the vectors, if it is not the model's own.
    pub dimensions: Option<usize>,
    /// What the texts are called in the request.
    pub field: &'static str,
}

/// Their vectors, in their order.
pub(super) struct Vectors {
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that the model has read.
    pub tokens: usize,
    /// Texts whose ends did not count.
    pub truncated: usize,
}

impl Api {
    /// Embeds texts before any backfill. When the future is dropped, they leave the engine's queue.
    ///
    /// # Errors
    /// What is wrong with the texts, or with the model.
    pub(super) async fn embed(&self, wanted: Wanted) -> Result<Vectors, ApiError> {
        let wanted = check_tokens(check(wanted)?).await?;
        let Wanted {
            model,
            role,
            texts,
            dimensions,
            field,
        } = wanted;
        let gather = match self.admission.is_shared() {
            true => GATHER_TIME,
            false => Duration::ZERO,
        };
        let engine = self.engine();
        let embedded = engine.embed_gathered(&model, role, texts, gather).await;
        let embedded = embedded.map_err(|error| refused(&error, None, field))?;
        let mut all = Vectors {
            vectors: Vec::with_capacity(embedded.len()),
            tokens: 0,
            truncated: 0,
        };
        for (place, embedded) in embedded.into_iter().enumerate() {
            let Embedded {
                vector,
                is_truncated,
                tokens,
                ..
            } = embedded;
            let mut vector = vector.map_err(|error| refused(&error, Some(place), field))?;
            if let Some(dimensions) = dimensions {
                model.cut(&mut vector, dimensions);
            }
            all.vectors.push(vector);
            all.tokens += tokens;
            all.truncated += usize::from(is_truncated);
        }
        Ok(all)
    }
}

fn check(wanted: Wanted) -> Result<Wanted, ApiError> {
    let field = wanted.field;
    if wanted.texts.len() > MAX_TEXTS {
        let message = format!("there are more than {MAX_TEXTS} texts; send fewer at a time");
        return Err(ApiError::invalid(field, message));
    }
    if let Some(place) = wanted.texts.iter().position(String::is_empty) {
        let message = format!("text {place} is empty, and an empty text has no vector");
        return Err(ApiError::invalid(field, message));
    }
    if let Some(dimensions) = wanted.dimensions {
        let checked = wanted.model.check_dimensions(dimensions);
        checked.map_err(|reason| {
            ApiError::invalid(
                "dimensions",
                format!("dimensions cannot be {dimensions}: {reason}"),
            )
        })?;
    }
    Ok(wanted)
}

/// Counts the tokens only where the length of the texts leaves a doubt.
async fn check_tokens(wanted: Wanted) -> Result<Wanted, ApiError> {
    let window = wanted.model.max_text_tokens().unwrap_or(MAX_TOKENS);
    let most = |text: &String| text.len().min(window) + OVERHEAD_TOKENS;
    if wanted.texts.iter().map(most).sum::<usize>() <= MAX_TOKENS {
        return Ok(wanted);
    }
    let field = wanted.field;
    let count = move || {
        let count = |text: &String| wanted.model.count_tokens(wanted.role, text).unwrap_or(0);
        let tokens: usize = wanted.texts.iter().map(count).sum();
        (tokens, wanted)
    };
    let (tokens, wanted) = beside(usize::MAX, count).await?;
    if tokens > MAX_TOKENS {
        let message = format!(
            "the texts have {tokens} tokens, and a request may have {MAX_TOKENS}; send fewer texts at a time"
        );
        return Err(ApiError::invalid(field, message).coded("max_tokens_per_request"));
    }
    Ok(wanted)
}

/// The texts of an input. Token ids are turned back into the text that they are of.
///
/// # Errors
/// If they are not those of the model's tokenizer.
pub(super) async fn texts_of(model: &Model, input: Input) -> Result<Vec<String>, ApiError> {
    let lists = match input {
        Input::Text(text) => return Ok(vec![text]),
        Input::Texts(texts) => return Ok(texts),
        Input::Tokens(tokens) => vec![tokens],
        Input::TokenLists(lists) => lists,
    };
    let model = model.clone();
    // A token takes about as long as 64 bytes of JSON.
    let size = lists.iter().map(Vec::len).sum::<usize>() * 64;
    let decode = move || {
        let texts = lists.iter().enumerate();
        let texts = texts.map(|(place, ids)| {
            let text = model.text_of_tokens(ids);
            text.map_err(|error| foreign_tokens(place, &error))
        });
        texts.collect()
    };
    beside(size, decode).await?
}

fn foreign_tokens(place: usize, error: &ForeignTokens) -> ApiError {
    ApiError::invalid(
        "input",
        format!(
            "the token ids of text {place} cannot be embedded: {error}. Send the text itself. LangChain's \
             OpenAIEmbeddings sends ids of OpenAI's tokenizer unless it is told check_embedding_ctx_length=False"
        ),
    )
    .coded("foreign_tokens")
}

/// What is wrong, if that is the text at this place or none in particular.
fn refused(error: &EmbeddingError, place: Option<usize>, field: &'static str) -> ApiError {
    let problem = match error {
        EmbeddingError::NoTokens { .. }
        | EmbeddingError::Tokenizer { .. }
        | EmbeddingError::NotFinite { .. }
        | EmbeddingError::ZeroVector { .. } => Problem::Invalid,
        error if error.is_transient() => Problem::Unavailable,
        _ => Problem::Internal,
    };
    if problem == Problem::Internal {
        tracing::error!("a text of a request cannot be embedded: {error}");
    }
    match place {
        Some(place) => ApiError::new(problem, format!("text {place}: {error}")).of(field),
        None => ApiError::new(problem, error.to_string()),
    }
}
