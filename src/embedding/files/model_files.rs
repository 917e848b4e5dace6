//! Reads a model folder in the layout of sentence-transformers: window, pooling, prompts and the steps after pooling.
//!
//! ```text
//!  modules.json                       the chain of modules (modules.rs)
//!  config_sentence_transformers.json  prompts
//!  sentence_bert_config.json          window, lower-casing, name of the graph
//!  config.json                        architecture, positions, padding token, tasks (tasks.rs)
//!  tokenizer.json                     the tokenizer (tokenizer.rs)
//!  tokenizer_config.json              window, padding side, truncation side
//!  model.onnx or onnx/model.onnx      the graph (session.rs)
//! ```
//!
//! What a file states is never guessed, what no file states is assumed aloud, and what is not supported is rejected: a
//! vector that was computed slightly differently looks as good as a correct one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::folder::{check_content, inside, read_json};
use super::modules::{Modules, Step};
use super::tasks::Tasks;
use crate::embedding::catalog::known;
use crate::embedding::error::EmbeddingError;
use crate::embedding::local::signature::PastShape;
use crate::embedding::local::tokenizer::TruncationSide;
use crate::embedding::name::ModelName;
use crate::embedding::pooling::{Pooling, PoolingMode};
use crate::embedding::role::TextRole;

/// The file of the transformer module. Older models name it after their architecture; the list and its order are those
/// of `sentence_transformers.models.Transformer.load`.
pub(crate) const TRANSFORMER_CONFIGS: &[&str] = &[
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Architectures whose position ids start after the padding id, so that their position table has that many more rows
/// than the window (`create_position_ids_from_input_ids` in transformers).
const OFFSET_POSITIONS: &[&str] = &[
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "longformer",
];

/// transformers writes a `model_max_length` of 1e30 if none was set (`VERY_LARGE_INTEGER`).
const MAX_STATED_WINDOW: f64 = 1e7;

/// The window of a model whose files state none: that of BERT, and of model2vec.
const DEFAULT_WINDOW: usize = 512;

/// The contents of a model folder.
#[derive(Debug, Clone)]
pub(crate) struct ModelFiles {
    pub onnx: PathBuf,
    pub tokenizer: PathBuf,
    /// The longest input in tokens, special tokens included.
    pub max_tokens: usize,
    /// Whether there is no transformer: the vector of a text is the mean of the vectors of its tokens.
    pub is_static: bool,
    /// How many tokens the model has positions for, if its files state it.
    pub positions: Option<usize>,
    /// The position of the first token.
    pub first_position: usize,
    /// The sizes of a decoder's keys, as far as the files state them.
    pub past: PastShape,
    /// Whether the files say that vectors may be cut.
    pub may_be_cut: bool,
    /// Whether texts are converted to lower case before they are tokenized.
    pub lower_case: bool,
    pub pooling: Pooling,
    /// Whether the tokens of a prompt are pooled together with those of the text.
    pub include_prompt: bool,
    /// What happens to the pooled vector, in order.
    pub steps: Vec<Step>,
    pub prompts: Prompts,
    /// The tasks that a graph with an input for their number has.
    pub tasks: Tasks,
    pub pad: Padding,
    /// The length of the final vector, if the files state it.
    pub dimensions: Option<usize>,
    /// Where texts are cut, if `tokenizer_config.json` states it; else `tokenizer.json` may.
    pub truncation_side: Option<TruncationSide>,
    /// What is assumed of pooling and normalization, because no file states it.
    pub assumption: Option<String>,
}

/// Texts that the model expects in front of a query or a document.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prompts {
    pub query: String,
    pub document: String,
    /// All prompts that the model has.
    pub named: BTreeMap<String, String>,
}

/// How short texts of a batch are padded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Padding {
    pub token: Option<String>,
    pub id: Option<u32>,
    pub left: bool,
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
struct TransformerConfig {
    #[serde(default, deserialize_with = "count")]
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
    #[serde(default)]
    model_args: ModelArgs,
}

/// Arguments of the backend that loads the graph.
#[derive(Default, Deserialize)]
struct ModelArgs {
    file_name: Option<String>,
}

/// `config.json` of transformers.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    model_type: String,
    #[serde(default, alias = "n_embd", deserialize_with = "count")]
    hidden_size: Option<usize>,
    /// The length of the vectors that compare texts with images (CLIP). They come out of the graph pooled.
    #[serde(default, deserialize_with = "count")]
    projection_dim: Option<usize>,
    #[serde(default, deserialize_with = "count")]
    max_position_embeddings: Option<usize>,
    #[serde(default, deserialize_with = "count")]
    pad_token_id: Option<usize>,
    #[serde(default, alias = "n_head", deserialize_with = "count")]
    num_attention_heads: Option<usize>,
    #[serde(default, deserialize_with = "count")]
    num_key_value_heads: Option<usize>,
    #[serde(default, deserialize_with = "count")]
    head_dim: Option<usize>,
    /// The window of a static model. (Of a transformer it would be that of generated texts.)
    #[serde(default, deserialize_with = "count")]
    max_length: Option<usize>,
    /// The lengths to which vectors may be cut, where a model states them.
    matryoshka_dimensions: Option<serde_json::Value>,
    /// The names of the tasks, in the order of their numbers.
    lora_adaptations: Option<serde_json::Value>,
    /// What is put before the texts of each task.
    task_instructions: Option<serde_json::Value>,
    /// Or that they may be cut to any length.
    #[serde(default)]
    is_matryoshka: bool,
}

/// `tokenizer_config.json`. The padding token is a string or, in newer files, an object with `content`.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    model_max_length: Option<f64>,
    pad_token: Option<serde_json::Value>,
    padding_side: Option<String>,
    truncation_side: Option<String>,
}

/// A number that may be missing. Exporters write -1 and null where a model has none, and whole numbers as 512.0.
fn count<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let value = Option::<f64>::deserialize(deserializer)?;
    Ok(value
        .filter(|number| *number >= 0.0 && number.fract() == 0.0 && *number < f64::from(u32::MAX))
        .map(|number| number as usize))
}

/// `config_sentence_transformers.json`.
#[derive(Default, Deserialize)]
struct SentenceConfig {
    #[serde(default)]
    prompts: BTreeMap<String, String>,
    default_prompt_name: Option<String>,
}

impl ModelFiles {
    /// Reads the small files of a model folder; the graph and its weights are only located.
    ///
    /// # Errors
    ///
    /// Names the file that is missing, malformed, or requires something that is not supported.
    pub(crate) fn read(folder: &Path, name: &ModelName) -> Result<Self, EmbeddingError> {
        let modules = Modules::read(folder, name)?;
        let base = &modules.transformer;

        let transformer = transformer_config(base)?;
        let config: Config = read_json(&base.join("config.json"))?.unwrap_or_default();
        let tokenizer_config: TokenizerConfig =
            read_json(&base.join("tokenizer_config.json"))?.unwrap_or_default();
        let sentence: SentenceConfig =
            read_json(&folder.join("config_sentence_transformers.json"))?.unwrap_or_default();
        let tokenizer = base.join("tokenizer.json");
        if !tokenizer.is_file() {
            return Err(EmbeddingError::unusable(
                &tokenizer,
                "it does not exist; save the model's fast tokenizer in this folder (`tokenizer.save_pretrained`)",
            ));
        }

        check_content(&tokenizer)?;
        let onnx = match name.file() {
            Some(file) => chosen_graph(folder, file)?,
            None => {
                let named = transformer.model_args.file_name.as_deref();
                find_graph(folder, base, named.or_else(|| known_graph(folder, name)))?
            }
        };
        check_content(&onnx)?;

        let prompts = prompts(sentence);
        let vectors = modules.pooling.modes().len();
        let pooled = config
            .hidden_size
            .map(|width| width.saturating_mul(vectors));
        // Some models without a projection state that its length is 0.
        let width = config.projection_dim.filter(|size| *size > 0).or(pooled);
        Ok(Self {
            onnx,
            tokenizer,
            max_tokens: match modules.is_static {
                true => config.max_length.unwrap_or(DEFAULT_WINDOW),
                false => window(&transformer, &config, &tokenizer_config),
            },
            is_static: modules.is_static,
            positions: positions(&config),
            first_position: first_position(&config),
            past: past(&config),
            may_be_cut: config.is_matryoshka || config.matryoshka_dimensions.is_some(),
            lower_case: transformer.do_lower_case,
            pooling: modules.pooling,
            include_prompt: modules.include_prompt,
            steps: modules.steps,
            tasks: tasks(&config, &prompts, name),
            prompts,
            truncation_side: truncation_side(&tokenizer_config),
            pad: padding(&config, tokenizer_config),
            dimensions: modules.dimensions.or(width),
            assumption: modules.assumption,
        })
    }

    /// What is put before a text of this role, for a graph that takes the number of this task, or takes none.
    pub(crate) fn prompt(&self, role: TextRole, task: Option<u32>) -> &str {
        let of_role = match role {
            TextRole::Query => &self.prompts.query,
            TextRole::Document => &self.prompts.document,
        };
        task.map_or(of_role, |task| self.tasks.prompt(task, role, of_role))
    }

    /// Drops what was assumed, for a graph that pools itself: it was exported with all its modules.
    pub(crate) fn drop_assumption(&mut self) {
        if self.assumption.take().is_some() {
            self.pooling = Pooling::new(vec![PoolingMode::Mean]);
            self.include_prompt = true;
            self.steps.clear();
        }
    }
}

fn truncation_side(config: &TokenizerConfig) -> Option<TruncationSide> {
    match config.truncation_side.as_deref() {
        Some("left") => Some(TruncationSide::Left),
        Some("right") => Some(TruncationSide::Right),
        _ => None,
    }
}

fn transformer_config(base: &Path) -> Result<TransformerConfig, EmbeddingError> {
    for name in TRANSFORMER_CONFIGS {
        if let Some(config) = read_json(&base.join(name))? {
            return Ok(config);
        }
    }
    Ok(TransformerConfig::default())
}

/// The position of the first token.
fn first_position(config: &Config) -> usize {
    if OFFSET_POSITIONS.contains(&config.model_type.as_str()) {
        config.pad_token_id.unwrap_or(1) + 1
    } else {
        0
    }
}

/// The tokens that the model has positions for.
fn positions(config: &Config) -> Option<usize> {
    let rows = config.max_position_embeddings?;
    Some(rows.saturating_sub(first_position(config)))
}

/// The sizes of a decoder's keys. Without `num_key_value_heads`, each attention head has keys of its own.
fn past(config: &Config) -> PastShape {
    let per_head = || config.hidden_size?.checked_div(config.num_attention_heads?);
    PastShape {
        heads: config.num_key_value_heads.or(config.num_attention_heads),
        size: config.head_dim.or_else(per_head),
    }
}

/// The model's window in tokens: the stated one, but never more than the model has positions.
fn window(transformer: &TransformerConfig, config: &Config, tokenizer: &TokenizerConfig) -> usize {
    let stated = tokenizer
        .model_max_length
        .filter(|length| (1.0..MAX_STATED_WINDOW).contains(length));
    let chosen = transformer
        .max_seq_length
        .or(stated.map(|length| length as usize));
    [chosen, positions(config)]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(DEFAULT_WINDOW)
}

/// Picks prompts by the names that `encode_query` and `encode_document` of sentence-transformers look for.
fn prompts(config: SentenceConfig) -> Prompts {
    let named = |names: &[&str]| {
        let default = config.default_prompt_name.as_deref();
        let mut names = names.iter().copied().chain(default);
        let found = names.find_map(|name| config.prompts.get(name));
        found.cloned().unwrap_or_default()
    };
    Prompts {
        query: named(&["query"]),
        document: named(&["document", "passage", "corpus"]),
        named: config.prompts,
    }
}

/// The tasks. What is not of the form of jina-embeddings-v3 has another meaning, and names none.
fn tasks(config: &Config, prompts: &Prompts, name: &ModelName) -> Tasks {
    let names = config.lora_adaptations.clone().map(serde_json::from_value);
    let instructions = config.task_instructions.clone().map(serde_json::from_value);
    Tasks::new(
        names.and_then(Result::ok).unwrap_or_default(),
        &instructions.and_then(Result::ok).unwrap_or_default(),
        &prompts.named,
        known::tasks_of(name.repository()),
    )
}

fn padding(config: &Config, tokenizer: TokenizerConfig) -> Padding {
    let token = tokenizer.pad_token.and_then(|token| {
        let content = token.get("content").unwrap_or(&token);
        content.as_str().map(str::to_owned)
    });
    Padding {
        token,
        id: config.pad_token_id.and_then(|id| id.try_into().ok()),
        left: tokenizer.padding_side.as_deref() == Some("left"),
    }
}

/// The graph that the model's name chooses.
fn chosen_graph(folder: &Path, file: &str) -> Result<PathBuf, EmbeddingError> {
    let found = inside(folder, file).filter(|path| path.is_file());
    found.ok_or_else(|| {
        EmbeddingError::unusable(
            folder,
            format!(
                "it has no {file}, which the model's name asks for{}",
                a_graph_of(folder)
                    .map(|other| format!("; it has {other}"))
                    .unwrap_or_default()
            ),
        )
    })
}

/// The graph that the repository of a known model has under a name of its own, if this folder has it and no plain export.
fn known_graph(folder: &Path, name: &ModelName) -> Option<&'static str> {
    let graph = known::graph_file(name.repository())?;
    let has = |file: &str| folder.join(file).is_file();
    (has(graph) && !has("model.onnx") && !has("onnx/model.onnx")).then_some(graph)
}

/// The graph: the one that the model's configuration names, else the plain export. Quantized variants lie beside it
/// under other names. They change the vectors, so they are used only if the configuration names them.
fn find_graph(folder: &Path, base: &Path, named: Option<&str>) -> Result<PathBuf, EmbeddingError> {
    let candidates = match named {
        Some(name) => vec![
            inside(folder, name),
            inside(base, name),
            inside(&folder.join("onnx"), name),
        ],
        None => [folder, base]
            .iter()
            .flat_map(|place| {
                [
                    Some(place.join("model.onnx")),
                    Some(place.join("onnx/model.onnx")),
                ]
            })
            .collect(),
    };
    candidates.into_iter().flatten().find(|path| path.is_file()).ok_or_else(|| {
        let name = named.unwrap_or("model.onnx or onnx/model.onnx");
        EmbeddingError::unusable(
            folder,
            format!(
                "it has no ONNX export ({name}); create one with `optimum-cli export onnx --model NAME {}`{}",
                folder.display(),
                other_graph(folder).unwrap_or_default()
            ),
        )
    })
}

/// How to use another graph of the folder, such as a quantized one.
fn other_graph(folder: &Path) -> Option<String> {
    let name = a_graph_of(folder)?;
    Some(format!(
        ", or use {name}, whose vectors may differ from those of the model itself: write `:{name}` behind the model's name"
    ))
}

/// A graph of the folder, of any name.
fn a_graph_of(folder: &Path) -> Option<String> {
    let graphs = ["", "onnx"].into_iter().flat_map(|place| {
        let entries = std::fs::read_dir(folder.join(place));
        let names = entries.into_iter().flatten().flatten();
        names.filter_map(move |entry| {
            let name = Path::new(place).join(entry.file_name());
            let is_graph = name.extension().is_some_and(|ending| ending == "onnx");
            is_graph.then(|| name.display().to_string())
        })
    });
    graphs.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: &str = r#"[{"idx":0,"path":"","type":"sentence_transformers.models.Transformer"},
        {"idx":1,"path":"1_Pooling","type":"sentence_transformers.models.Pooling"},
        {"idx":2,"path":"2_Normalize","type":"sentence_transformers.models.Normalize"}]"#;

    /// A minimal model folder, with files added or replaced by (path, content) pairs.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let minimal = [
            ("modules.json", MODULES),
            (
                "1_Pooling/config.json",
                r#"{"word_embedding_dimension":8,"pooling_mode_mean_tokens":true}"#,
            ),
            ("tokenizer.json", "{}"),
            ("model.onnx", ""),
        ];
        for (path, content) in minimal.iter().chain(files) {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }

    fn read(files: &[(&str, &str)]) -> Result<ModelFiles, EmbeddingError> {
        read_folder(folder(files).path(), "acme/own")
    }

    fn read_folder(folder: &Path, name: &str) -> Result<ModelFiles, EmbeddingError> {
        ModelFiles::read(folder, &name.parse().unwrap())
    }

    #[test]
    fn a_model_is_described_by_its_own_files() {
        let model = read(&[
            (
                "sentence_bert_config.json",
                r#"{"max_seq_length":256,"do_lower_case":true}"#,
            ),
            (
                "config.json",
                r#"{"max_position_embeddings":512,"pad_token_id":0,"hidden_size":8}"#,
            ),
            (
                "tokenizer_config.json",
                r#"{"pad_token":{"content":"[PAD]"},"padding_side":"left"}"#,
            ),
        ])
        .unwrap();
        assert_eq!(
            (model.max_tokens, model.lower_case, model.dimensions),
            (256, true, Some(8))
        );
        assert_eq!(model.pooling.modes(), [PoolingMode::Mean]);
        assert!(matches!(model.steps[..], [Step::Normalize]));
        assert_eq!(
            (model.pad.token.as_deref(), model.pad.id, model.pad.left),
            (Some("[PAD]"), Some(0), true)
        );
    }

    #[test]
    fn the_window_is_the_smallest_that_the_files_state() {
        let window = |files: &[(&str, &str)]| read(files).unwrap().max_tokens;
        let roberta =
            r#"{"model_type":"xlm-roberta","max_position_embeddings":514,"pad_token_id":1}"#;
        let unset = r#"{"model_max_length":1000000000000000019884624838656}"#;
        assert_eq!(
            window(&[("config.json", roberta), ("tokenizer_config.json", unset)]),
            512
        );
        assert_eq!(
            window(&[("tokenizer_config.json", r#"{"model_max_length":128}"#)]),
            128
        );
        assert_eq!(
            window(&[("sentence_roberta_config.json", r#"{"max_seq_length":75}"#)]),
            75
        );
        assert_eq!(
            window(&[("sentence_bert_config.json", r#"{"max_seq_length":null}"#)]),
            512
        );
        let greedy = r#"{"max_seq_length":4096}"#;
        assert_eq!(
            window(&[
                ("sentence_bert_config.json", greedy),
                ("config.json", roberta)
            ]),
            512
        );
    }

    /// MODULES and `1_Pooling` are what exports for other programs leave out.
    #[test]
    fn without_modules_the_pooling_is_stated_known_or_assumed_and_said() {
        let read = |files: &[(&str, &str)], removed: &[&str], name: &str| {
            let files = folder(files);
            for path in removed {
                std::fs::remove_file(files.path().join(path)).unwrap();
            }
            let read = read_folder(files.path(), name).unwrap();
            let said = read.assumption.clone().unwrap_or_default();
            (read.pooling.to_string(), read.steps.len(), said)
        };
        let both = ["modules.json", "1_Pooling/config.json"];
        let (pooling, steps, said) = read(&[], &both, "BAAI/bge-small-en");
        assert_eq!((pooling.as_str(), steps), ("cls", 1));
        assert!(
            said.contains("cls pooling with normalization is assumed"),
            "{said}"
        );
        let (pooling, steps, said) = read(&[], &both, "acme/own");
        assert_eq!((pooling.as_str(), steps), ("mean", 0));
        assert!(
            said.contains("mean pooling without normalization is assumed"),
            "{said}"
        );
        // What a file states wins.
        let mean = read(&[], &["modules.json"], "BAAI/bge-small-en");
        assert_eq!((mean.0.as_str(), mean.1), ("mean", 1));
        assert!(mean.2.contains("1_Pooling/config.json says"), "{}", mean.2);
        let stated = read(&[], &[], "BAAI/bge-small-en");
        assert_eq!(stated, ("mean".into(), 1, String::new()));
    }

    #[test]
    fn numbers_that_stand_for_none_are_none() {
        for none in ["-1", "null", "-1.0", "1e300", "0.5"] {
            let config = format!(
                r#"{{"model_type":"roberta","pad_token_id":{none},"hidden_size":{none},"max_position_embeddings":514}}"#
            );
            let model = read(&[("config.json", &config)]).unwrap();
            assert_eq!((model.pad.id, model.dimensions), (None, Some(8)), "{none}");
            assert_eq!(model.max_tokens, 512, "{none}");
        }
        let model = read(&[("config.json", r#"{"pad_token_id":3.0}"#)]).unwrap();
        assert_eq!(model.pad.id, Some(3));
    }

    #[test]
    fn the_side_of_truncation_is_read() {
        let side = |config: &str| {
            let model = read(&[("tokenizer_config.json", config)]).unwrap();
            model.truncation_side
        };
        assert_eq!(
            side(r#"{"truncation_side":"left"}"#),
            Some(TruncationSide::Left)
        );
        assert_eq!(
            side(r#"{"truncation_side":"right"}"#),
            Some(TruncationSide::Right)
        );
        assert_eq!(side("{}"), None);
    }

    #[test]
    fn what_stands_in_for_a_graph_or_a_tokenizer_is_named() {
        let pointer = "version https://git-lfs.github.com/spec/v1\nsize 1\n";
        for file in ["model.onnx", "tokenizer.json"] {
            let error = read(&[(file, pointer)]).unwrap_err().to_string();
            assert!(
                error.contains(file) && error.contains("git lfs pull"),
                "{error}"
            );
        }
    }

    #[test]
    fn unknown_modules_and_pooling_modes_are_rejected() {
        let cnn = MODULES.replace("Normalize", "CNN");
        let error = read(&[("modules.json", &cnn)]).unwrap_err().to_string();
        assert!(
            error.contains("models.CNN, which is not supported"),
            "{error}"
        );
        let error = read(&[("1_Pooling/config.json", r#"{"pooling_mode":"median"}"#)])
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"median\" is not supported"), "{error}");
        for none in [r#"{"pooling_mode":[]}"#, "{}"] {
            let error = read(&[("1_Pooling/config.json", none)])
                .unwrap_err()
                .to_string();
            assert!(error.contains("it enables no pooling mode"), "{error}");
        }
        let outside = MODULES.replace("1_Pooling", "../other");
        assert!(read(&[("modules.json", &outside)]).is_err());
    }

    #[test]
    fn pooling_modes_are_read_in_both_spellings() {
        let modes = |config| {
            read(&[("1_Pooling/config.json", config)])
                .unwrap()
                .pooling
                .to_string()
        };
        assert_eq!(modes(r#"{"pooling_mode":"lasttoken"}"#), "lasttoken");
        assert_eq!(
            modes(r#"{"pooling_mode_mean_tokens":true,"pooling_mode_cls_token":true}"#),
            "cls+mean"
        );
        assert_eq!(
            modes(r#"{"pooling_mode_weightedmean_tokens":true}"#),
            "weightedmean"
        );
    }

    #[test]
    fn prompts_follow_the_role_and_fall_back_to_the_default() {
        let config = r#"{"prompts":{"query":"q: ","passage":"p: "},"default_prompt_name":null}"#;
        let model = read(&[("config_sentence_transformers.json", config)]).unwrap();
        assert_eq!(
            (
                model.prompts.query.as_str(),
                model.prompts.document.as_str()
            ),
            ("q: ", "p: ")
        );
        let config = r#"{"prompts":{"clustering":"c: "},"default_prompt_name":"clustering"}"#;
        let model = read(&[("config_sentence_transformers.json", config)]).unwrap();
        assert_eq!(
            (
                model.prompts.query.as_str(),
                model.prompts.document.as_str()
            ),
            ("c: ", "c: ")
        );
    }

    #[test]
    fn a_quantized_graph_is_used_only_if_the_configuration_names_it() {
        let files = folder(&[("onnx/model_quantized.onnx", ""), ("onnx/model.onnx", "")]);
        assert!(
            read_folder(files.path(), "acme/own")
                .unwrap()
                .onnx
                .ends_with("model.onnx")
        );
        std::fs::remove_file(files.path().join("model.onnx")).unwrap();
        assert!(
            read_folder(files.path(), "acme/own")
                .unwrap()
                .onnx
                .ends_with("onnx/model.onnx")
        );
        std::fs::remove_file(files.path().join("onnx/model.onnx")).unwrap();
        assert!(
            read_folder(files.path(), "acme/own")
                .unwrap_err()
                .to_string()
                .contains("optimum-cli")
        );
        let error = read_folder(files.path(), "acme/own")
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("write `:onnx/model_quantized.onnx` behind the model's name"),
            "{error}"
        );
        let chosen = read_folder(files.path(), "acme/own:onnx/model_quantized.onnx").unwrap();
        assert!(chosen.onnx.ends_with("model_quantized.onnx"));
        let error = read_folder(files.path(), "acme/own:onnx/model_O4.onnx").unwrap_err();
        assert!(
            error.to_string().ends_with(
                "it has no onnx/model_O4.onnx, which the model's name asks for; it has onnx/model_quantized.onnx"
            ),
            "{error}"
        );
        let named = r#"{"model_args":{"file_name":"onnx/model_quantized.onnx"}}"#;
        std::fs::write(files.path().join("sentence_bert_config.json"), named).unwrap();
        assert!(
            read_folder(files.path(), "acme/own")
                .unwrap()
                .onnx
                .ends_with("model_quantized.onnx")
        );
    }
}
