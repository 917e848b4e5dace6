//! A loaded model: tokenizer, graph, pooling and the steps after it.
//!
//! ```text
//!  text ─▶ prompt + tokenizer ─▶ Tokens ─▶ Batch ─▶ graph ─▶ token states ─▶ pooling ─▶ steps ─▶ vector
//!          └──── tokenize() ──────────┘   └──────────────────── embed() ──────────────────────────────┘
//! ```
//!
//! A loaded model is immutable, so any number of threads use it at the same time.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ort::environment::Environment;

use super::dense::Dense;
use super::error::EmbeddingError;
use super::files::{ModelFiles, Padding, Prompts};
use super::identity::{graph_files, identify};
use super::modules::Step;
use super::name::ModelName;
use super::pooling::{Pooling, normalize};
use super::session::{Batch, OutputKind, SharedSession};
use super::tokenizer::TextTokenizer;

/// What a text is used for. Some models expect different prompts before queries and documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextRole {
    /// A question to search with.
    Query,
    /// A text to be found.
    Document,
}

/// A loaded model; clones share it. It is unloaded when the last clone and the last queue that uses it are dropped.
#[derive(Clone)]
pub struct Model {
    inner: Arc<LoadedModel>,
}

/// A text's token ids, special tokens included.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// At least one.
    ids: Vec<u32>,
    /// Whether the text has more than the model's window has room for.
    is_truncated: bool,
    /// Number of leading tokens, those of the prompt, that pooling leaves out.
    unpooled: usize,
}

/// What all handles to one model share.
pub(crate) struct LoadedModel {
    name: ModelName,
    dimensions: usize,
    max_tokens: usize,
    pooling: Pooling,
    identity: String,
    tokenizer: TextTokenizer,
    session: SharedSession,
    steps: Vec<LoadedStep>,
    prompts: Prompts,
    unpooled: UnpooledTokens,
    pad_id: u32,
    pad_left: bool,
    /// The most texts that the graph takes at a time.
    max_rows: usize,
}

/// Number of leading tokens that pooling leaves out, for each role.
#[derive(Debug, Clone, Copy, Default)]
struct UnpooledTokens {
    query: usize,
    document: usize,
}

/// A step after pooling.
enum LoadedStep {
    Normalize,
    Dense(Dense),
}

impl Model {
    /// The canonical name.
    #[must_use]
    pub fn name(&self) -> &ModelName {
        &self.inner.name
    }

    /// The length of every vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.inner.dimensions
    }

    /// The longest input in tokens, special tokens included. Longer texts are truncated.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.inner.max_tokens
    }

    /// How token states become one vector.
    #[must_use]
    pub fn pooling(&self) -> &Pooling {
        &self.inner.pooling
    }

    /// Sixteen hexadecimal digits that change when the model's files change in a way that changes vectors. The same on
    /// every machine with the same files, whatever their dates and folder.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.inner.identity
    }

    /// Whether both are handles to the same loaded model.
    #[must_use]
    pub fn shares_weights_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn from_loaded(inner: Arc<LoadedModel>) -> Self {
        Self { inner }
    }

    pub(crate) fn loaded(&self) -> &Arc<LoadedModel> {
        &self.inner
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.inner.name)
            .field("dimensions", &self.inner.dimensions)
            .field("identity", &self.inner.identity)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Number of tokens, special tokens included; at least 1.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the text is longer than the model's window.
    pub(crate) fn is_truncated(&self) -> bool {
        self.is_truncated
    }
}

impl LoadedModel {
    /// Loads the model in this folder. Blocks while the graph is read and optimized, about a second for 100 MB.
    ///
    /// # Errors
    ///
    /// If a file of the model is unusable, or the model cannot embed a first text.
    pub(crate) fn load(
        name: ModelName,
        folder: &Path,
        environment: &Environment,
    ) -> Result<Self, EmbeddingError> {
        let mut files = ModelFiles::read(folder, &name)?;
        // What is missing is named here, before ONNX Runtime names it in its own words.
        graph_files(&files.onnx)?;
        let session = SharedSession::load(environment, &files.onnx)?;
        if session.kind() == OutputKind::Sentence {
            files.drop_assumption();
        }
        if let Some(assumption) = &files.assumption {
            tracing::warn!(model = %name, "{assumption}");
        }
        let max_tokens = files
            .max_tokens
            .min(session.fixed_width().unwrap_or(usize::MAX));
        let tokenizer = TextTokenizer::load(&files.tokenizer, max_tokens, files.lower_case)?
            .truncating(files.truncation_side);
        let identity = identify(folder, &files, tokenizer.truncation_side())?;
        let unpooled = unpooled_tokens(&files, &tokenizer)?;
        let mut model = Self {
            name,
            dimensions: 0,
            max_tokens,
            pooling: if session.kind() == OutputKind::Sentence {
                Pooling::in_graph()
            } else {
                files.pooling
            },
            identity,
            steps: load_steps(&files.steps, session.kind())?,
            pad_id: pad_id(&files.pad, &tokenizer),
            pad_left: files.pad.left,
            prompts: files.prompts,
            unpooled,
            max_rows: session.fixed_rows().unwrap_or(usize::MAX),
            tokenizer,
            session,
        };
        model.dimensions = model.probe(files.dimensions, &files.onnx)?;
        Ok(model)
    }

    /// Embeds a first text and returns the length of its vector. So a model that does not work is rejected when it is
    /// loaded rather than at the first row.
    ///
    /// Then embeds two texts of different lengths together: some exports declare a size for any number of texts, and
    /// compute with that of one.
    fn probe(&mut self, stated: Option<usize>, graph: &Path) -> Result<usize, EmbeddingError> {
        let tokens = self.tokenize(TextRole::Document, "probe")?;
        let vector = self.embed(&[&tokens])?.remove(0)?;
        let longer = self.tokenize(TextRole::Document, "a second, longer probe")?;
        if self.session.fixed_rows().is_none() && self.run(&[&tokens, &longer]).is_err() {
            self.max_rows = 1;
        }
        if self.max_rows < usize::MAX {
            tracing::warn!(
                model = %self.name,
                "the model's graph takes no more than {} text at a time, which is slower; export it with a dynamic \
                 batch size",
                self.max_rows
            );
        }
        match stated {
            // Only the probe knows the length for sure: the files are the publisher's claim.
            Some(stated) if stated != vector.len() => Err(EmbeddingError::unusable(
                graph,
                format!(
                    "its vectors have {} dimensions but the model's files say {stated}",
                    vector.len()
                ),
            )),
            _ => Ok(vector.len()),
        }
    }

    pub(crate) fn name(&self) -> &ModelName {
        &self.name
    }

    /// See [`Model::identity`].
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// Token ids of a text after the prompt of its role, truncated at the model's window.
    pub(crate) fn tokenize(&self, role: TextRole, text: &str) -> Result<Tokens, EmbeddingError> {
        let (prompt, unpooled) = match role {
            TextRole::Query => (&self.prompts.query, self.unpooled.query),
            TextRole::Document => (&self.prompts.document, self.unpooled.document),
        };
        let window = self.tokenizer.window_of(prompt, text);
        let (ids, is_truncated) = window.map_err(|error| EmbeddingError::Tokenizer {
            model: self.name.clone(),
            reason: error.to_string(),
        })?;
        if ids.is_empty() {
            let model = self.name.clone();
            return Err(EmbeddingError::NoTokens { model });
        }
        Ok(Tokens {
            ids,
            is_truncated,
            unpooled,
        })
    }

    /// Embeds a batch on the calling thread: one result for each text, in order.
    ///
    /// # Errors
    ///
    /// The outer error means that the run failed as a whole, an inner one that the text's vector is unusable, for
    /// instance not finite.
    pub(crate) fn embed(
        &self,
        texts: &[&Tokens],
    ) -> Result<Vec<Result<Vec<f32>, EmbeddingError>>, EmbeddingError> {
        let mut vectors = Vec::with_capacity(texts.len());
        for texts in texts.chunks(self.max_rows) {
            vectors.extend(self.run(texts)?);
        }
        Ok(vectors)
    }

    /// Runs the graph once for these texts.
    fn run(
        &self,
        texts: &[&Tokens],
    ) -> Result<Vec<Result<Vec<f32>, EmbeddingError>>, EmbeddingError> {
        let batch = self.fill(texts);
        let failed = |error: ort::Error| self.inference_error(error);
        let output = self.session.run(&batch).map_err(failed)?;
        let (shape, data) = output.view().map_err(failed)?;
        let hidden = self.hidden(shape, &batch)?;
        let vectors = texts.iter().enumerate().map(|(row, tokens)| {
            let vector = match self.session.kind() {
                OutputKind::Sentence => data[row * hidden..][..hidden].to_vec(),
                OutputKind::TokenStates => {
                    let start = row * batch.width + self.first_column(tokens, batch.width);
                    let states = &data[start * hidden..][..tokens.len() * hidden];
                    // At least one token is pooled, even if the prompt fills the window.
                    let unpooled = tokens.unpooled.min(tokens.len() - 1);
                    self.pooling.apply(&states[unpooled * hidden..], hidden)
                }
            };
            self.apply_steps(vector)
        });
        Ok(vectors.collect())
    }

    /// The column of its row in which a text's tokens begin.
    fn first_column(&self, tokens: &Tokens, width: usize) -> usize {
        if self.pad_left {
            width - tokens.len()
        } else {
            0
        }
    }

    /// Pads the texts to the length of the longest one, or to the size that the graph takes. A row without a text of
    /// its own repeats the first one.
    fn fill(&self, texts: &[&Tokens]) -> Batch {
        let rows = self.session.fixed_rows().unwrap_or(texts.len());
        let longest = texts.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        let width = self.session.fixed_width().unwrap_or(longest);
        let mut batch = Batch {
            rows,
            width,
            ids: vec![i64::from(self.pad_id); rows * width],
            mask: vec![0; rows * width],
            positions: vec![0; rows * width],
        };
        let repeated = std::iter::repeat_n(texts.first(), rows.saturating_sub(texts.len()));
        for (row, tokens) in texts.iter().chain(repeated.flatten()).enumerate() {
            let start = row * width + self.first_column(tokens, width);
            let own = start..start + tokens.len();
            batch.mask[own.clone()].fill(1);
            for (position, (cell, id)) in own.zip(&tokens.ids).enumerate() {
                batch.ids[cell] = i64::from(*id);
                batch.positions[cell] = position as i64;
            }
        }
        batch
    }

    /// The last dimension of the graph's output, after checking that the others are those of the batch.
    fn hidden(&self, shape: &[i64], batch: &Batch) -> Result<usize, EmbeddingError> {
        let expected: &[usize] = match self.session.kind() {
            OutputKind::TokenStates => &[batch.rows, batch.width],
            OutputKind::Sentence => &[batch.rows],
        };
        let sizes: Vec<usize> = shape
            .iter()
            .map(|size| usize::try_from(*size).unwrap_or(0))
            .collect();
        match sizes.split_last() {
            Some((hidden, rest)) if *hidden > 0 && rest == expected => Ok(*hidden),
            _ => Err(self.inference_error(format!(
                "the output has shape {sizes:?}, expected {expected:?} and a last dimension of at least 1"
            ))),
        }
    }

    /// Applies the steps after pooling. A vector that is not finite is an error: PostgreSQL's vector types reject it.
    /// So is one of length 0, whose cosine distance to any other is NaN.
    fn apply_steps(&self, mut vector: Vec<f32>) -> Result<Vec<f32>, EmbeddingError> {
        for step in &self.steps {
            match step {
                LoadedStep::Normalize => normalize(&mut vector),
                LoadedStep::Dense(dense) => {
                    vector = dense.apply(&vector).ok_or_else(|| {
                        self.inference_error(format!(
                            "its dense layer does not accept vectors of {} dimensions",
                            vector.len()
                        ))
                    })?;
                }
            }
        }
        if !vector.iter().all(|value| value.is_finite()) {
            return Err(EmbeddingError::NotFinite {
                model: self.name.clone(),
            });
        }
        if vector.iter().all(|value| *value == 0.0) {
            return Err(EmbeddingError::ZeroVector {
                model: self.name.clone(),
            });
        }
        Ok(vector)
    }

    fn inference_error(&self, reason: impl fmt::Display) -> EmbeddingError {
        EmbeddingError::Inference {
            model: self.name.clone(),
            reason: reason.to_string(),
        }
    }
}

/// Loads the steps after pooling. A graph whose output is a sentence embedding was exported with all its modules:
/// normalizing again changes nothing, but a dense layer would, so it is skipped.
fn load_steps(steps: &[Step], kind: OutputKind) -> Result<Vec<LoadedStep>, EmbeddingError> {
    let mut loaded = Vec::with_capacity(steps.len());
    for step in steps {
        match step {
            Step::Normalize => loaded.push(LoadedStep::Normalize),
            Step::Dense(folder) if kind == OutputKind::TokenStates => {
                loaded.push(LoadedStep::Dense(Dense::load(folder)?));
            }
            Step::Dense(_) => {}
        }
    }
    Ok(loaded)
}

/// Counts the tokens of the prompts, unless they are pooled.
fn unpooled_tokens(
    files: &ModelFiles,
    tokenizer: &TextTokenizer,
) -> Result<UnpooledTokens, EmbeddingError> {
    if files.include_prompt {
        return Ok(UnpooledTokens::default());
    }
    let count = |prompt| {
        let counted = tokenizer.prompt_tokens(prompt);
        counted.map_err(|error| EmbeddingError::unusable(&files.tokenizer, error))
    };
    Ok(UnpooledTokens {
        query: count(&files.prompts.query)?,
        document: count(&files.prompts.document)?,
    })
}

/// The id of the padding token: by its text, else by the stated id, else 0 as in BERT. The attention mask hides it.
fn pad_id(pad: &Padding, tokenizer: &TextTokenizer) -> u32 {
    let by_token = pad
        .token
        .as_deref()
        .and_then(|token| tokenizer.id_of(token));
    by_token.or(pad.id).unwrap_or(0)
}
