//! Reads `modules.json` of a sentence-transformers model: the chain of modules from token states to the final vector.
//!
//! ```text
//!  0 Transformer ──▶ 1 Pooling ──▶ 2.. Dense | Normalize | Dropout
//!  token states      one vector    the vector that users get
//! ```
//!
//! A static model (model2vec) has a vector for each token of its vocabulary and pools them itself: `StaticEmbedding` stands
//! for the first two modules.
//!
//! Each module has a folder of its own, which `path` names relative to the model's folder. `type` is the name of a
//! Python class; its module has moved between versions, so only the last part counts.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::folder::{inside, read_json};
use crate::embedding::catalog::known;
use crate::embedding::error::EmbeddingError;
use crate::embedding::local::dense;
use crate::embedding::name::ModelName;
use crate::embedding::pooling::{Pooling, PoolingMode};

const NO_MODE: &str = "it enables no pooling mode";

/// The modules that `modules.json` lists.
pub(crate) struct Modules {
    /// The folder of the transformer's own files.
    pub transformer: PathBuf,
    /// Whether there is no transformer: the vector of a text is the mean of the vectors of its tokens.
    pub is_static: bool,
    pub pooling: Pooling,
    /// Whether the tokens of a prompt are pooled together with those of the text.
    pub include_prompt: bool,
    pub steps: Vec<Step>,
    /// The length of the final vector, if the files state it.
    pub dimensions: Option<usize>,
    /// What is assumed because `modules.json` is missing, as a sentence for a person.
    pub assumption: Option<String>,
}

/// A module after pooling.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Normalize,
    /// A dense layer, in the folder with its `config.json` and weights.
    Dense(PathBuf),
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// `config.json` of the pooling module. Older files have a flag for each mode, newer ones `pooling_mode`.
#[derive(Deserialize)]
struct PoolingConfig {
    /// Newer files call it `embedding_dimension`.
    #[serde(alias = "embedding_dimension")]
    word_embedding_dimension: Option<usize>,
    pooling_mode: Option<serde_json::Value>,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
    #[serde(default = "include_prompt_by_default")]
    include_prompt: bool,
}

fn include_prompt_by_default() -> bool {
    true
}

impl Modules {
    /// Reads `modules.json` and the small files that it refers to.
    ///
    /// # Errors
    ///
    /// If a file is malformed, or lists a module or a pooling mode that is not supported.
    pub(crate) fn read(folder: &Path, name: &ModelName) -> Result<Self, EmbeddingError> {
        let path = folder.join("modules.json");
        let mut chain = Self::bare(folder);
        let Some(modules) = read_json::<Vec<Module>>(&path)? else {
            chain.assume(folder, name)?;
            return Ok(chain);
        };
        for (place, module) in modules.iter().enumerate() {
            chain.add(&path, folder, place, module)?;
        }
        if modules.len() < chain.first_step() {
            return Err(EmbeddingError::unusable(&path, "it has no pooling module"));
        }
        Ok(chain)
    }

    /// What sentence-transformers takes a folder for that lists no modules: a bare transformer, pooled by the mean.
    fn bare(folder: &Path) -> Self {
        Self {
            transformer: folder.to_path_buf(),
            is_static: false,
            pooling: Pooling::new(vec![PoolingMode::Mean]),
            include_prompt: true,
            steps: Vec::new(),
            dimensions: None,
            assumption: None,
        }
    }

    /// Fills in for a missing `modules.json`: first what a file states, then what is known of a model of this name.
    /// Most copies without the file are exports of published models for other programs.
    fn assume(&mut self, folder: &Path, name: &ModelName) -> Result<(), EmbeddingError> {
        let recipe = known::recipe_of(name.repository());
        let config = folder.join("1_Pooling/config.json");
        let (whence, pooling) = if config.is_file() {
            self.read_pooling(&config)?;
            ("as 1_Pooling/config.json says", self.pooling.to_string())
        } else if let Some(recipe) = recipe {
            self.pooling = Pooling::new(vec![recipe.pooling]);
            (
                "as is known of models of this name",
                recipe.pooling.to_string(),
            )
        } else {
            ("which may be wrong", self.pooling.to_string())
        };
        let normalized = recipe.is_some_and(|recipe| recipe.normalized);
        if normalized {
            self.steps.push(Step::Normalize);
        }
        self.assumption = Some(format!(
            "{} has no modules.json, so {pooling} pooling {} normalization is assumed, {whence}; unless the graph \
             pools itself, fetch modules.json and 1_Pooling/config.json of the model too, or say it in the job's \
             runtime_params: {{\"pooling\": \"cls\", \"normalize\": true}}",
            folder.display(),
            if normalized { "with" } else { "without" }
        ));
        Ok(())
    }

    /// Adds the module at this place of the chain.
    fn add(
        &mut self,
        path: &Path,
        folder: &Path,
        place: usize,
        module: &Module,
    ) -> Result<(), EmbeddingError> {
        let own = inside(folder, &module.path).ok_or_else(|| {
            EmbeddingError::unusable(
                path,
                format!("the path {:?} leaves the model's folder", module.path),
            )
        })?;
        let kind = module.kind.rsplit('.').next().unwrap_or_default();
        let is_step = place >= self.first_step();
        match (place, kind) {
            (0, "Transformer") => self.transformer = own,
            (0, "StaticEmbedding") => {
                self.transformer = own;
                self.is_static = true;
            }
            (1, "Pooling") if !self.is_static => self.read_pooling(&own.join("config.json"))?,
            (_, "Normalize") if is_step => self.steps.push(Step::Normalize),
            // Dropout is active only in training.
            (_, "Dropout") if is_step => {}
            (_, "Dense") if is_step => {
                self.dimensions = dense::out_features(&own)?;
                self.steps.push(Step::Dense(own));
            }
            _ => {
                let reason = format!(
                    "module {place} has type {}, which is not supported at that place",
                    module.kind
                );
                return Err(EmbeddingError::unusable(path, reason));
            }
        }
        Ok(())
    }

    /// The place of the first module after pooling.
    fn first_step(&self) -> usize {
        if self.is_static { 1 } else { 2 }
    }

    fn read_pooling(&mut self, path: &Path) -> Result<(), EmbeddingError> {
        let config: PoolingConfig = read_json(path)?.ok_or_else(|| {
            EmbeddingError::unusable(
                path,
                "it does not exist, and modules.json names its folder: download the model again, or copy this file too",
            )
        })?;
        let modes = config
            .modes()
            .map_err(|reason| EmbeddingError::unusable(path, reason))?;
        self.dimensions = config
            .word_embedding_dimension
            .map(|width| width.saturating_mul(modes.len()));
        self.pooling = Pooling::new(modes);
        self.include_prompt = config.include_prompt;
        Ok(())
    }
}

impl PoolingConfig {
    /// The modes, in the order in which `forward` of `sentence_transformers.models.Pooling` concatenates them.
    fn modes(&self) -> Result<Vec<PoolingMode>, String> {
        if let Some(named) = &self.pooling_mode {
            return named_modes(named);
        }
        let flags = [
            (self.pooling_mode_cls_token, PoolingMode::Cls),
            (self.pooling_mode_max_tokens, PoolingMode::Max),
            (self.pooling_mode_mean_tokens, PoolingMode::Mean),
            (
                self.pooling_mode_mean_sqrt_len_tokens,
                PoolingMode::MeanSqrtLen,
            ),
            (
                self.pooling_mode_weightedmean_tokens,
                PoolingMode::WeightedMean,
            ),
            (self.pooling_mode_lasttoken, PoolingMode::LastToken),
        ];
        let modes: Vec<_> = flags
            .into_iter()
            .filter(|(set, _)| *set)
            .map(|(_, mode)| mode)
            .collect();
        if modes.is_empty() {
            Err(NO_MODE.into())
        } else {
            Ok(modes)
        }
    }
}

/// The newer spelling: `"pooling_mode": "mean"`, or a list of such names.
fn named_modes(named: &serde_json::Value) -> Result<Vec<PoolingMode>, String> {
    let names = match named {
        serde_json::Value::Array(names) => names.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mode = |name: &serde_json::Value| {
        let mode = name.as_str().and_then(PoolingMode::from_name);
        mode.ok_or_else(|| format!("pooling mode {name} is not supported"))
    };
    if names.is_empty() {
        return Err(NO_MODE.into());
    }
    names.iter().map(mode).collect()
}
