//! What all uses of a model share, whatever their options: its files, its tokenizer, and its graph with the weights.

use std::path::Path;

use ort::environment::Environment;

use super::batch::Batch;
use super::provider::choice::ExecutionProvider;
use super::provider::plan::SessionPlan;
use super::session::SharedSession;
use super::signature::OutputKind;
use super::tokenizer::TextTokenizer;
use crate::embedding::error::EmbeddingError;
use crate::embedding::files::identity::{graph_files, identify};
use crate::embedding::files::model_files::{ModelFiles, Padding};
use crate::embedding::name::ModelName;

/// A loaded graph with the files of its model.
pub(crate) struct ModelBase {
    pub name: ModelName,
    pub files: ModelFiles,
    /// With the window that the files state.
    pub tokenizer: TextTokenizer,
    /// The identity of the model without options.
    pub identity: String,
    /// The longest input in tokens that the files state and the graph takes.
    pub max_tokens: usize,
    pub session: SharedSession,
    pad_id: u32,
    /// The most texts that the graph takes at a time.
    max_rows: usize,
}

impl ModelBase {
    /// Loads the model in this folder on the CPU. Blocks while the graph is read and optimized, about a second for 100 MB.
    ///
    /// # Errors
    ///
    /// If a file of the model is unusable.
    pub(crate) fn load(
        name: ModelName,
        folder: &Path,
        environment: &Environment,
        plan: SessionPlan,
    ) -> Result<Self, EmbeddingError> {
        let mut files = ModelFiles::read(folder, &name)?;
        // What is missing is named here, before ONNX Runtime names it in its own words.
        graph_files(&files.onnx)?;
        let provider = ExecutionProvider::CPU;
        let session = SharedSession::load(environment, provider, plan, &files.onnx, files.past)?;
        if session.kind() == OutputKind::Sentence {
            files.drop_assumption();
        }
        let max_tokens = files
            .max_tokens
            .min(session.fixed_width().unwrap_or(usize::MAX));
        let mut tokenizer = TextTokenizer::load(&files.tokenizer, max_tokens, files.lower_case)?
            .truncating(files.truncation_side);
        if files.is_static || session.is_packed() {
            tokenizer = tokenizer.of_known_words();
        }
        let identity = identify(folder, &files, tokenizer.truncation_side())?;
        let mut base = Self {
            name,
            pad_id: pad_id(&files.pad, &tokenizer),
            max_rows: session.fixed_rows().unwrap_or(usize::MAX),
            files,
            tokenizer,
            identity,
            max_tokens,
            session,
        };
        base.probe();
        Ok(base)
    }

    /// Runs two texts of different lengths together: some exports declare a size for any number of texts, and compute
    /// with that of one. What is wrong with one text alone is found when the model is put together.
    fn probe(&mut self) {
        let probes = ["probe", "a second, longer probe"].map(|text| self.tokenizer.ids(text));
        if let [Ok(short), Ok(long)] = &probes
            && !short.is_empty()
            && self.session.fixed_rows().is_none()
        {
            let kind = self.session.kind();
            let together = self.run(&[short, long], kind, |_, _, _| ());
            if together.is_err() && self.run(&[short], kind, |_, _, _| ()).is_ok() {
                self.max_rows = 1;
            }
        }
        if self.max_rows < usize::MAX {
            tracing::warn!(
                model = %self.name,
                "the model's graph takes no more than {} text at a time, which is slower; export it with a dynamic \
                 batch size",
                self.max_rows
            );
        }
    }

    /// Runs the graph for these texts, given as token ids, and passes what it gives of each to `each`: the place of the
    /// text, its states or its vector, and the length of one state or vector. Returns the results in order.
    ///
    /// # Errors
    ///
    /// If the run failed as a whole.
    pub(crate) fn run<T>(
        &self,
        texts: &[&[u32]],
        kind: OutputKind,
        each: impl Fn(usize, &[f32], usize) -> T,
    ) -> Result<Vec<T>, EmbeddingError> {
        self.run_on(&self.session, texts, kind, each)
    }

    /// As [`ModelBase::run`], on another session of the same graph.
    pub(crate) fn run_on<T>(
        &self,
        session: &SharedSession,
        texts: &[&[u32]],
        kind: OutputKind,
        each: impl Fn(usize, &[f32], usize) -> T,
    ) -> Result<Vec<T>, EmbeddingError> {
        let mut results = Vec::with_capacity(texts.len());
        for texts in texts.chunks(self.max_rows) {
            let batch = self.fill(texts);
            let failed = |error: ort::Error| self.inference_error(error);
            let output = session.run(&batch, kind).map_err(failed)?;
            let (shape, data) = output.view().map_err(failed)?;
            let hidden = self.hidden(shape, &batch, kind)?;
            for (row, ids) in texts.iter().enumerate() {
                let own = match kind {
                    OutputKind::Sentence => &data[row * hidden..][..hidden],
                    OutputKind::TokenStates => {
                        let start = row * batch.width + self.first_column(ids, batch.width);
                        &data[start * hidden..][..ids.len() * hidden]
                    }
                };
                results.push(each(results.len(), own, hidden));
            }
        }
        Ok(results)
    }

    /// The column of its row in which a text's tokens begin.
    fn first_column(&self, ids: &[u32], width: usize) -> usize {
        if self.files.pad.left {
            width - ids.len()
        } else {
            0
        }
    }

    /// Pads the texts to the length of the longest one, or to the size that the graph takes. A row without a text of
    /// its own repeats the first one.
    fn fill(&self, texts: &[&[u32]]) -> Batch {
        let rows = self.session.fixed_rows().unwrap_or(texts.len());
        let longest = texts.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let width = self.session.fixed_width().unwrap_or(longest);
        let mut batch = Batch {
            rows,
            width,
            ids: vec![i64::from(self.pad_id); rows * width],
            mask: vec![0; rows * width],
            positions: vec![0; rows * width],
        };
        let repeated = std::iter::repeat_n(texts.first(), rows.saturating_sub(texts.len()));
        for (row, ids) in texts.iter().chain(repeated.flatten()).enumerate() {
            let start = row * width + self.first_column(ids, width);
            let own = start..start + ids.len();
            batch.mask[own.clone()].fill(1);
            for (position, (cell, id)) in own.zip(*ids).enumerate() {
                batch.ids[cell] = i64::from(*id);
                batch.positions[cell] = (self.files.first_position + position) as i64;
            }
        }
        batch
    }

    /// The last dimension of the graph's output, after checking that the others are those of the batch.
    fn hidden(
        &self,
        shape: &[i64],
        batch: &Batch,
        kind: OutputKind,
    ) -> Result<usize, EmbeddingError> {
        let expected: &[usize] = match kind {
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

    pub(crate) fn inference_error(&self, reason: impl std::fmt::Display) -> EmbeddingError {
        EmbeddingError::Inference {
            model: self.name.clone(),
            reason: reason.to_string(),
        }
    }
}

/// The id of the padding token: by its text, else by the stated id, else 0 as in BERT. The attention mask hides it.
fn pad_id(pad: &Padding, tokenizer: &TextTokenizer) -> u32 {
    let by_token = pad
        .token
        .as_deref()
        .and_then(|token| tokenizer.id_of(token));
    by_token.or(pad.id).unwrap_or(0)
}
