//! A loaded model under the options of a job: tokenizer, graph, pooling and the steps after it.
//!
//! ```text
//!  text ─▶ prompt + tokenizer ─▶ Tokens ─▶ graph ─▶ token states ─▶ pooling ─▶ steps ─▶ mean of windows ─▶ cut ─▶ vector
//!          └──── tokenize() ──────────┘   └────────────────────────────── embed() ──────────────────────────────┘
//! ```
//!
//! A loaded model is immutable, so any number of threads use it at the same time. Models with different options share
//! the graph.

use std::sync::Arc;

use super::base::{ModelBase, Row};
use super::dense::Dense;
use super::device::Device;
use super::settings::{ModelSettings, RoleSettings};
use super::signature::OutputKind;
use super::tokenizer::Windows;
use crate::embedding::error::EmbeddingError;
use crate::embedding::files::modules::Step;
use crate::embedding::name::ModelName;
use crate::embedding::options::{LongText, ModelOptions};
use crate::embedding::pooling::normalize;
use crate::embedding::role::TextRole;

/// Padded tokens of the windows of a long text that run together. Measured on CPUs: the best of 128 to 16384.
const WINDOWS_TOKENS: usize = 512;

/// How far the length of a vector may be from 1 for it to count as normalized.
const UNIT_TOLERANCE: f32 = 1e-3;

/// A text's token ids, special tokens included.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// At least one, each with at least one token. More than one only for a long text whose windows are averaged.
    windows: Vec<Vec<u32>>,
    /// Tokens of each window that are none of the text.
    overhead: usize,
    /// Whether the text has more than there is room for.
    is_truncated: bool,
    /// Number of leading tokens, those of the prompt, that pooling leaves out.
    unpooled: usize,
    /// The number of the task of its role; 0 where the graph takes none.
    task: u32,
}

/// What all handles to one model under the same options share.
pub(crate) struct LoadedModel {
    pub(crate) base: Arc<ModelBase>,
    pub(crate) settings: ModelSettings,
    dimensions: usize,
    dense: Vec<Dense>,
    unpooled: UnpooledTokens,
    /// Whether a vector has length 1 before it is cut.
    pub(crate) is_normalized: bool,
}

/// Number of leading tokens that pooling leaves out, for each role.
#[derive(Debug, Clone, Copy, Default)]
struct UnpooledTokens {
    query: usize,
    document: usize,
}

impl Tokens {
    /// Number of tokens, special tokens included, in all windows; at least 1.
    pub(crate) fn len(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }

    /// Whether it is a long text in several windows, whose vectors are averaged.
    pub(crate) fn has_windows(&self) -> bool {
        self.windows.len() > 1
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.windows.iter().map(|ids| Row {
            ids,
            unpooled: self.unpooled,
            task: self.task,
        })
    }

    /// Whether the text is longer than there is room for.
    pub(crate) fn is_truncated(&self) -> bool {
        self.is_truncated
    }
}

impl LoadedModel {
    /// The model under these options.
    ///
    /// # Errors
    ///
    /// If the options do not suit it, a file of it is unusable, or it cannot embed a first text.
    pub(crate) fn new(
        base: Arc<ModelBase>,
        options: &ModelOptions,
    ) -> Result<Self, EmbeddingError> {
        let settings = ModelSettings::new(&base, options)?;
        let is_told = options.pooling.is_some() && options.normalize.is_some();
        if let Some(assumption) = base.files.assumption.as_deref().filter(|_| !is_told) {
            tracing::warn!(model = %base.name, "{assumption}");
        }
        let mut model = Self {
            dimensions: 0,
            dense: settings
                .dense_layers()
                .map(|folder| Dense::load(folder))
                .collect::<Result<_, _>>()?,
            unpooled: unpooled_tokens(&base, &settings)?,
            is_normalized: settings.is_normalized(),
            base,
            settings,
        };
        model.probe(options)?;
        Ok(model)
    }

    /// Embeds a first text, and takes from it what only a vector tells. So a model that does not work is rejected when
    /// it is loaded rather than at the first row.
    fn probe(&mut self, options: &ModelOptions) -> Result<(), EmbeddingError> {
        let probed = |role| {
            let tokens = self.tokenize(role, "probe")?;
            let first = self.base.devices.first();
            self.check(self.uncut(first, &[&tokens])?.remove(0)?)
        };
        let vector = probed(TextRole::Document)?;
        if !self.has_one_task() {
            probed(TextRole::Query)?;
        }
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        let is_unit = (length - 1.0).abs() < UNIT_TOLERANCE;
        if self.settings.kind == OutputKind::Sentence && is_unit {
            if options.normalize == Some(false) {
                return Err(self.refusal(
                    "its graph normalizes the vectors itself, so normalize cannot be false; remove it".into(),
                ));
            }
            self.is_normalized = true;
        }
        if options.pooling.is_none() {
            self.check_stated_dimensions(vector.len())?;
        }
        self.dimensions = self.cut_dimensions(vector.len())?;
        if self.settings.cut == Some(vector.len()) {
            self.settings.remove_cut(&self.base);
        }
        Ok(())
    }

    /// Only a vector tells its length for sure: the files are the publisher's claim.
    fn check_stated_dimensions(&self, found: usize) -> Result<(), EmbeddingError> {
        let files = &self.base.files;
        match files.dimensions {
            Some(stated) if stated != found => Err(EmbeddingError::unusable(
                &files.onnx,
                format!("its vectors have {found} dimensions but the model's files say {stated}"),
            )),
            _ => Ok(()),
        }
    }

    /// The length of vectors that have so many dimensions before they are cut.
    fn cut_dimensions(&self, uncut: usize) -> Result<usize, EmbeddingError> {
        let cut = self.settings.cut.unwrap_or(uncut);
        if cut > uncut {
            return Err(self.refusal(format!(
                "its vectors have {uncut} dimensions, so dimensions cannot be {cut}"
            )));
        }
        Ok(cut)
    }

    pub(crate) fn name(&self) -> &ModelName {
        &self.base.name
    }

    /// The length of every vector.
    pub(crate) fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// How many tokens of a text count.
    pub(crate) fn max_text_tokens(&self) -> usize {
        match self.settings.long_text {
            LongText::Cut => self.settings.max_tokens,
            LongText::Mean => self.settings.tokenizer.room_of_windows(),
        }
    }

    /// What tells the vectors of texts in this role from those of other models, options, prompts and tasks.
    pub(crate) fn identity_of(&self, role: TextRole) -> [&str; 2] {
        [&self.settings.identity, &self.settings.of(role).key]
    }

    /// Whether both roles have one task, so that their texts may share a batch.
    pub(crate) fn has_one_task(&self) -> bool {
        self.settings.query.task == self.settings.document.task
    }

    /// Token ids of a text after the prompt of its role: one window, or several overlapping ones where the options ask
    /// for the mean of a long text.
    pub(crate) fn tokenize(&self, role: TextRole, text: &str) -> Result<Tokens, EmbeddingError> {
        let RoleSettings { prompt, task, .. } = self.settings.of(role);
        let unpooled = match role {
            TextRole::Query => self.unpooled.query,
            TextRole::Document => self.unpooled.document,
        };
        let tokenizer = &self.settings.tokenizer;
        let windows = match self.settings.long_text {
            LongText::Mean => tokenizer.windows_of(prompt, text),
            LongText::Cut => {
                let window = tokenizer.window_of(prompt, text);
                window.map(|(ids, is_truncated)| Windows {
                    ids: vec![ids],
                    overhead: 0,
                    is_truncated,
                })
            }
        };
        let windows = windows.map_err(|error| EmbeddingError::Tokenizer {
            model: self.name().clone(),
            reason: error.to_string(),
        })?;
        if windows.ids.iter().any(Vec::is_empty) {
            let model = self.name().clone();
            return Err(EmbeddingError::NoTokens { model });
        }
        Ok(Tokens {
            windows: windows.ids,
            overhead: windows.overhead,
            is_truncated: windows.is_truncated,
            unpooled,
            task: task.unwrap_or(0),
        })
    }

    /// Embeds a batch on this device and the calling thread: one result for each text, in order.
    ///
    /// # Errors
    ///
    /// The outer error means that the run failed as a whole, an inner one that the text's vector is unusable, for
    /// instance not finite.
    pub(crate) fn embed(
        &self,
        device: &Device,
        texts: &[&Tokens],
    ) -> Result<Vec<Result<Vec<f32>, EmbeddingError>>, EmbeddingError> {
        let vectors = self.uncut(device, texts)?;
        Ok(vectors
            .into_iter()
            .map(|vector| self.check(self.cut(vector?)))
            .collect())
    }

    /// As [`LoadedModel::embed`], before vectors are cut and checked.
    fn uncut(
        &self,
        device: &Device,
        texts: &[&Tokens],
    ) -> Result<Vec<Result<Vec<f32>, EmbeddingError>>, EmbeddingError> {
        let rows: Vec<Row> = texts.iter().flat_map(|text| text.rows()).collect();
        let together = if rows.len() > texts.len() {
            let width = rows.iter().map(|row| row.ids.len()).max().unwrap_or(1);
            (windows_tokens(device) / width).max(1)
        } else {
            rows.len().max(1)
        };
        let mut vectors = Vec::with_capacity(rows.len());
        for rows in rows.chunks(together) {
            vectors.extend(self.run(device, rows)?);
        }
        let mut vectors = vectors.into_iter();
        Ok(texts
            .iter()
            .map(|text| self.mean_of_windows(text, &mut vectors))
            .collect())
    }

    /// Padded tokens of the largest run for these texts on this device.
    pub(crate) fn padded_tokens(device: &Device, texts: &[&Tokens]) -> usize {
        let rows = || texts.iter().flat_map(|text| text.rows());
        let width = rows().map(|row| row.ids.len()).max().unwrap_or(0);
        let padded = rows().count() * width;
        match texts.iter().any(|text| text.has_windows()) {
            true => padded.min(windows_tokens(device)).max(width),
            false => padded,
        }
    }

    /// Runs the graph once for these windows.
    fn run(
        &self,
        device: &Device,
        rows: &[Row],
    ) -> Result<Vec<Result<Vec<f32>, EmbeddingError>>, EmbeddingError> {
        let (settings, session) = (&self.settings, &device.session);
        let pooled = self
            .base
            .pooled(session, rows, settings.kind, &settings.pooling)?;
        Ok(pooled
            .into_iter()
            .map(|vector| self.apply_steps(vector))
            .collect())
    }

    /// Applies the steps after pooling.
    fn apply_steps(&self, mut vector: Vec<f32>) -> Result<Vec<f32>, EmbeddingError> {
        let mut dense = self.dense.iter();
        for step in &self.settings.steps {
            match step {
                Step::Normalize => normalize(&mut vector),
                Step::Dense(_) => {
                    let layer = dense.next().and_then(|dense| dense.apply(&vector));
                    vector = layer.ok_or_else(|| {
                        self.base.inference_error(format!(
                            "its dense layer does not accept vectors of {} dimensions",
                            vector.len()
                        ))
                    })?;
                }
            }
        }
        Ok(vector)
    }

    /// The vector of a text from those of its windows: their mean, weighted by the tokens of the text in each, and
    /// normalized where the model normalizes.
    fn mean_of_windows(
        &self,
        text: &Tokens,
        vectors: &mut impl Iterator<Item = Result<Vec<f32>, EmbeddingError>>,
    ) -> Result<Vec<f32>, EmbeddingError> {
        // All are taken, also behind an error: the next ones are those of the next text.
        let windows: Vec<_> = vectors.take(text.windows.len()).collect();
        let mut windows = windows.into_iter();
        if text.windows.len() == 1 {
            return windows
                .next()
                .unwrap_or_else(|| Err(self.base.inference_error("it gave no vector")));
        }
        let weight = |ids: &Vec<u32>| ids.len().saturating_sub(text.overhead) as f32;
        let total: f32 = text.windows.iter().map(weight).sum();
        let mut mean = Vec::new();
        for (ids, vector) in text.windows.iter().zip(windows) {
            let (vector, share) = (vector?, weight(ids) / total);
            mean.resize(vector.len(), 0.0);
            mean.iter_mut()
                .zip(vector)
                .for_each(|(sum, value)| *sum += value * share);
        }
        if self.is_normalized {
            normalize(&mut mean);
        }
        Ok(mean)
    }

    /// Cuts a vector to the dimensions that the options ask for.
    fn cut(&self, mut vector: Vec<f32>) -> Vec<f32> {
        if let Some(length) = self.settings.cut {
            vector.truncate(length);
            if self.is_normalized {
                normalize(&mut vector);
            }
        }
        vector
    }

    /// A vector that is not finite is an error: PostgreSQL's vector types reject it. So is one of length 0, whose cosine
    /// distance to any other is NaN.
    fn check(&self, vector: Vec<f32>) -> Result<Vec<f32>, EmbeddingError> {
        let model = || self.name().clone();
        if !vector.iter().all(|value| value.is_finite()) {
            return Err(EmbeddingError::NotFinite { model: model() });
        }
        if vector.iter().all(|value| *value == 0.0) {
            return Err(EmbeddingError::ZeroVector { model: model() });
        }
        Ok(vector)
    }

    fn refusal(&self, reason: String) -> EmbeddingError {
        EmbeddingError::Options {
            model: self.name().clone(),
            reason,
        }
    }
}

fn windows_tokens(device: &Device) -> usize {
    device.batch_tokens().unwrap_or(WINDOWS_TOKENS)
}

/// Counts the tokens of the prompts, unless they are pooled.
fn unpooled_tokens(
    base: &ModelBase,
    settings: &ModelSettings,
) -> Result<UnpooledTokens, EmbeddingError> {
    if base.files.include_prompt {
        return Ok(UnpooledTokens::default());
    }
    let count = |prompt: &str| {
        let counted = settings.tokenizer.prompt_tokens(prompt);
        counted.map_err(|error| EmbeddingError::unusable(&base.files.tokenizer, error))
    };
    Ok(UnpooledTokens {
        query: count(&settings.query.prompt)?,
        document: count(&settings.document.prompt)?,
    })
}
