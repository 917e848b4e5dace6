//! What all uses of a model share, whatever their options: its files, its tokenizer, and its graph with the weights.

use std::path::Path;

use ort::environment::Environment;

use super::batch::Batch;
use super::device::Device;
use super::devices::Devices;
use super::opening::Opening;
use super::provider::choice::ExecutionProvider;
use super::provider::group::DeviceGroup;
use super::provider::plan::SessionPlan;
use super::session::SharedSession;
use super::signature::OutputKind;
use super::tokenizer::TextTokenizer;
use crate::embedding::error::EmbeddingError;
use crate::embedding::files::identity::{graph_files, identify};
use crate::embedding::files::model_files::{ModelFiles, Padding};
use crate::embedding::name::ModelName;
use crate::embedding::pooling::Pooling;
use crate::embedding::role::TextRole;

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
    /// What runs the graph, as it was asked for.
    pub group: DeviceGroup,
    /// The same, with the sessions.
    pub devices: Devices,
    pad_id: u32,
    /// The most texts that the graph takes at a time.
    max_rows: usize,
}

/// A text as a graph gets it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    /// At least one.
    pub ids: &'a [u32],
    /// Number of leading tokens, those of the prompt, that pooling leaves out.
    pub unpooled: usize,
    /// The number of its task; 0 where the graph takes none.
    pub task: u32,
}

impl Row<'_> {
    /// At least one token is pooled, even if the prompt fills the window.
    fn left_out(&self) -> usize {
        self.unpooled.min(self.ids.len() - 1)
    }
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
        let opening = Opening {
            environment: environment.clone(),
            provider: ExecutionProvider::CPU,
            plan,
            path: files.onnx.clone(),
            pooling: None,
        };
        let session = SharedSession::load(opening, files.past)?;
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
            group: DeviceGroup::cpu(),
            devices: Devices::new(vec![Device::new(session)]),
        };
        base.probe();
        Ok(base)
    }

    /// The graph as the first device runs it. What it takes and gives is the same on all of them.
    pub(crate) fn session(&self) -> &SharedSession {
        &self.devices.first().session
    }

    /// Runs two texts of different lengths together: some exports declare a size for any number of texts, and compute
    /// with that of one. What is wrong with one text alone is found when the model is put together.
    fn probe(&mut self) {
        let probes = ["probe", "a second, longer probe"].map(|text| self.tokenizer.ids(text));
        if let [Ok(short), Ok(long)] = &probes
            && !short.is_empty()
            && self.session().fixed_rows().is_none()
        {
            let kind = self.session().kind();
            let texts = [short, long].map(|ids| self.plain(ids, TextRole::Document));
            let run = |texts: &[Row]| self.run_on(self.session(), texts, kind, |_, _, _| ());
            if run(&texts).is_err() && run(&texts[..1]).is_ok() {
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

    /// A text without a prompt, for the task that the model's files give texts of this role. For tests of the graph, which
    /// need some task even where the files name none.
    pub(crate) fn plain<'a>(&self, ids: &'a [u32], role: TextRole) -> Row<'a> {
        Row {
            ids,
            unpooled: 0,
            task: self.files.tasks.of(role).unwrap_or(0),
        }
    }

    /// Runs the graph on a session of it, and passes what it gives of each text to `each`: the place of the text, its
    /// states or its vector, and the length of one state or vector. Returns the results in order.
    ///
    /// # Errors
    ///
    /// If the run failed as a whole.
    fn run_on<T>(
        &self,
        session: &SharedSession,
        texts: &[Row],
        kind: OutputKind,
        each: impl Fn(usize, &[f32], usize) -> T,
    ) -> Result<Vec<T>, EmbeddingError> {
        let mut results = Vec::with_capacity(texts.len());
        for texts in texts.chunks(self.max_rows) {
            let batch = self.fill(texts);
            let failed = |error: ort::Error| self.inference_error(error);
            let output = session.run(&batch, kind).map_err(failed)?;
            let (shape, data) = output.view().map_err(failed)?;
            let expected: &[usize] = match kind {
                OutputKind::TokenStates => &[batch.rows, batch.width],
                OutputKind::Sentence => &[batch.rows],
            };
            let hidden = self.hidden(shape, expected)?;
            for (row, Row { ids, .. }) in texts.iter().enumerate() {
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

    /// Runs the graph for these texts on this session, each with the number of leading tokens that are not pooled, and pools.
    /// Returns a vector for each, in order.
    ///
    /// # Errors
    ///
    /// If the run failed as a whole.
    pub(crate) fn pooled(
        &self,
        session: &SharedSession,
        texts: &[Row],
        kind: OutputKind,
        pooling: &Pooling,
    ) -> Result<Vec<Vec<f32>>, EmbeddingError> {
        if kind == OutputKind::TokenStates && session.pools(pooling) {
            let vectors = self.pooled_in_graph(session, texts, pooling)?;
            // A weight of 0 does not hide a state of the padding that is not finite.
            if vectors.iter().flatten().all(|value| value.is_finite()) {
                return Ok(vectors);
            }
        }
        self.pooled_here(session, texts, kind, pooling)
    }

    /// As [`ModelBase::pooled`], outside of the graph.
    pub(crate) fn pooled_here(
        &self,
        session: &SharedSession,
        texts: &[Row],
        kind: OutputKind,
        pooling: &Pooling,
    ) -> Result<Vec<Vec<f32>>, EmbeddingError> {
        self.run_on(session, texts, kind, |row, output, hidden| match kind {
            OutputKind::Sentence => output.to_vec(),
            OutputKind::TokenStates => pooling.apply_behind(texts[row].left_out(), output, hidden),
        })
    }

    /// As [`ModelBase::pooled_here`], by the nodes that a graph has for it.
    pub(crate) fn pooled_in_graph(
        &self,
        session: &SharedSession,
        texts: &[Row],
        pooling: &Pooling,
    ) -> Result<Vec<Vec<f32>>, EmbeddingError> {
        let modes = pooling.modes().len();
        let mut vectors = Vec::with_capacity(texts.len());
        for texts in texts.chunks(self.max_rows) {
            let mut batch = self.fill(texts);
            batch.weights = Some(self.weights(texts, &batch, pooling));
            let failed = |error: ort::Error| self.inference_error(error);
            let output = session.run(&batch, OutputKind::TokenStates);
            let output = output.map_err(failed)?;
            let (shape, data) = output.view().map_err(failed)?;
            let hidden = self.hidden(shape, &[batch.rows, modes])?;
            let own = data.chunks(modes * hidden).take(texts.len());
            vectors.extend(own.map(<[f32]>::to_vec));
        }
        Ok(vectors)
    }

    /// What each token counts in each vector of its text.
    fn weights(&self, texts: &[Row], batch: &Batch, pooling: &Pooling) -> Vec<f32> {
        let (modes, width) = (pooling.modes().len(), batch.width);
        let mut weights = vec![0.0; batch.rows * modes * width];
        for (text, cells) in texts.iter().zip(weights.chunks_mut(modes * width)) {
            let column = self.first_column(text.ids, width) + text.left_out();
            let shares = pooling.shares(text.left_out(), text.ids.len());
            for (shares, cells) in shares.iter().flatten().zip(cells.chunks_mut(width)) {
                cells[column..][..shares.len()].copy_from_slice(shares);
            }
        }
        weights
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
    fn fill(&self, texts: &[Row]) -> Batch {
        let rows = self.session().fixed_rows().unwrap_or(texts.len());
        let longest = texts.iter().map(|text| text.ids.len()).max().unwrap_or(0);
        let width = self.session().fixed_width().unwrap_or(longest);
        let mut batch = Batch {
            rows,
            width,
            ids: vec![i64::from(self.pad_id); rows * width],
            mask: vec![0; rows * width],
            positions: vec![0; rows * width],
            tasks: Vec::with_capacity(rows),
            weights: None,
        };
        let repeated = std::iter::repeat_n(texts.first(), rows.saturating_sub(texts.len()));
        for (row, text) in texts.iter().chain(repeated.flatten()).enumerate() {
            let ids = text.ids;
            let start = row * width + self.first_column(ids, width);
            let own = start..start + ids.len();
            batch.mask[own.clone()].fill(1);
            batch.tasks.push(i64::from(text.task));
            for (position, (cell, id)) in own.zip(ids).enumerate() {
                batch.ids[cell] = i64::from(*id);
                batch.positions[cell] = (self.files.first_position + position) as i64;
            }
        }
        batch
    }

    /// The last dimension of the graph's output, after checking that the others are those of the batch.
    fn hidden(&self, shape: &[i64], expected: &[usize]) -> Result<usize, EmbeddingError> {
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
