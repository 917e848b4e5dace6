//! How a model makes a vector: what its files say, and what the options of a job put in its place.

use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_64;

use super::base::ModelBase;
use super::matryoshka;
use super::signature::OutputKind;
use super::tokenizer::TextTokenizer;
use crate::embedding::error::EmbeddingError;
use crate::embedding::files::model_files::Prompts;
use crate::embedding::files::modules::Step;
use crate::embedding::options::{LongText, ModelOptions, Prompt};
use crate::embedding::pooling::Pooling;
use crate::embedding::role::TextRole;

/// The settings of a model under certain options.
pub(crate) struct ModelSettings {
    pub kind: OutputKind,
    pub pooling: Pooling,
    /// Dense layers, by their folders, and whether to normalize between and after them.
    pub steps: Vec<Step>,
    pub query: RoleSettings,
    pub document: RoleSettings,
    pub tokenizer: TextTokenizer,
    pub max_tokens: usize,
    /// Vectors are cut to this length, and normalized again where they were.
    pub cut: Option<usize>,
    pub long_text: LongText,
    /// See [`crate::embedding::Model::identity`].
    pub identity: String,
}

/// What the texts of one role get.
pub(crate) struct RoleSettings {
    /// What is put before a text.
    pub prompt: String,
    /// The number of the task, for a graph that takes one.
    pub task: Option<u32>,
    /// Tells the vectors of these texts from those of other prompts and tasks of the same model.
    pub key: String,
}

impl RoleSettings {
    fn new(prompt: String, task: Option<u32>) -> Self {
        let key = task.map_or_else(|| prompt.clone(), |task| format!("{task} {prompt}"));
        Self { prompt, task, key }
    }
}

impl ModelSettings {
    /// Applies the options of a job to what the model's files say.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::Options`] where they do not suit the model.
    pub(crate) fn new(base: &ModelBase, options: &ModelOptions) -> Result<Self, EmbeddingError> {
        let refused = |reason: String| EmbeddingError::Options {
            model: base.name.clone(),
            reason,
        };
        let own = Self::of_files(base);
        let (kind, pooling) = pooling(base, options).map_err(refused)?;
        let max_tokens = max_tokens(base, options).map_err(refused)?;
        let tokenizer = base.tokenizer.clone().with_window(max_tokens);
        let mut settings = Self {
            kind,
            pooling,
            steps: steps(base, kind, options.normalize),
            query: of_role(base, options, TextRole::Query)?,
            document: of_role(base, options, TextRole::Document)?,
            tokenizer: tokenizer.map_err(refused)?,
            max_tokens,
            cut: cut(base, options).map_err(refused)?,
            long_text: options.long_text,
            identity: String::new(),
        };
        settings.identity = settings.identity_beside(&own);
        Ok(settings)
    }

    /// The settings without options.
    fn of_files(base: &ModelBase) -> Self {
        let kind = base.session().kind();
        let of_role = |role| {
            let task = base.files.tasks.of(role);
            let task = task.filter(|_| base.session().takes_task());
            RoleSettings::new(base.files.prompt(role, task).to_owned(), task)
        };
        Self {
            kind,
            pooling: pooling_of_files(base),
            steps: steps(base, kind, None),
            query: of_role(TextRole::Query),
            document: of_role(TextRole::Document),
            tokenizer: base.tokenizer.clone(),
            max_tokens: base.max_tokens,
            cut: None,
            long_text: LongText::Cut,
            identity: base.identity.clone(),
        }
    }

    /// Takes back a cut that leaves vectors as they are.
    pub(crate) fn remove_cut(&mut self, base: &ModelBase) {
        self.cut = None;
        self.identity = self.identity_beside(&Self::of_files(base));
    }

    /// The identity of the model under these options. It is that of the model's files, unless an option or a task makes
    /// other vectors of documents. **Never change what is hashed, or how**, as in `identity.rs`.
    fn identity_beside(&self, own: &Self) -> String {
        let mut differences = Vec::new();
        if self.pooling != own.pooling {
            differences.push(format!("pooling={}", self.pooling));
        }
        if self.is_normalized() != own.is_normalized() {
            differences.push(format!("normalize={}", self.is_normalized()));
        }
        if self.document.prompt != own.document.prompt {
            differences.push(format!("prompt={:?}", self.document.prompt));
        }
        // Of every model with tasks: which one documents have by themselves is not all said by its files.
        differences.extend(self.document.task.map(|task| format!("task={task}")));
        if self.max_tokens != own.max_tokens {
            differences.push(format!("max_tokens={}", self.max_tokens));
        }
        differences.extend(self.cut.map(|length| format!("dimensions={length}")));
        if self.long_text == LongText::Mean {
            differences.push("long_text=mean".into());
        }
        if differences.is_empty() {
            return own.identity.clone();
        }
        let all = format!("{}\n{}", own.identity, differences.join("\n"));
        format!("{:016x}", xxh3_64(all.as_bytes()))
    }

    /// What texts of this role get.
    pub(crate) fn of(&self, role: TextRole) -> &RoleSettings {
        match role {
            TextRole::Query => &self.query,
            TextRole::Document => &self.document,
        }
    }

    /// Whether the last step normalizes.
    pub(crate) fn is_normalized(&self) -> bool {
        matches!(self.steps.last(), Some(Step::Normalize))
    }

    /// The folders of the dense layers.
    pub(crate) fn dense_layers(&self) -> impl Iterator<Item = &PathBuf> {
        self.steps.iter().filter_map(|step| match step {
            Step::Dense(folder) => Some(folder),
            Step::Normalize => None,
        })
    }
}

fn pooling_of_files(base: &ModelBase) -> Pooling {
    match base.session().kind() {
        OutputKind::Sentence => Pooling::in_graph(),
        OutputKind::TokenStates => base.files.pooling.clone(),
    }
}

/// What is read of the graph, and how it is pooled.
fn pooling(base: &ModelBase, options: &ModelOptions) -> Result<(OutputKind, Pooling), String> {
    match options.pooling {
        None => Ok((base.session().kind(), pooling_of_files(base))),
        Some(mode) if base.session().has_token_states() => {
            Ok((OutputKind::TokenStates, Pooling::new(vec![mode])))
        }
        Some(mode) => Err(format!(
            "its graph pools the states of the tokens itself, so pooling cannot be {mode}; remove pooling, or export \
             the model with last_hidden_state"
        )),
    }
}

/// The steps after pooling. A graph whose output is a sentence embedding was exported with all its modules: normalizing
/// again changes nothing, but a dense layer would, so it is skipped.
fn steps(base: &ModelBase, kind: OutputKind, normalize: Option<bool>) -> Vec<Step> {
    let is_left = |step: &&Step| kind == OutputKind::TokenStates || matches!(step, Step::Normalize);
    let mut steps: Vec<Step> = base.files.steps.iter().filter(is_left).cloned().collect();
    let is_last = matches!(steps.last(), Some(Step::Normalize));
    match normalize {
        Some(true) if !is_last => steps.push(Step::Normalize),
        Some(false) if is_last => drop(steps.pop()),
        _ => {}
    }
    steps
}

/// What the texts of a role get: a prompt of the job's stands in the place of a task's instruction.
fn of_role(
    base: &ModelBase,
    options: &ModelOptions,
    role: TextRole,
) -> Result<RoleSettings, EmbeddingError> {
    let refused = |reason: String| EmbeddingError::Options {
        model: base.name.clone(),
        reason,
    };
    let (prompt, task) = match role {
        TextRole::Query => (&options.query_prompt, &options.query_task),
        TextRole::Document => (&options.document_prompt, &options.document_task),
    };
    let tasks = &base.files.tasks;
    let task = match task {
        None if !base.session().takes_task() => None,
        None => {
            let chosen = tasks.choose(None, role);
            Some(chosen.map_err(|reason| EmbeddingError::unusable(&base.files.onnx, reason))?)
        }
        Some(_) if !base.session().takes_task() => {
            return Err(refused(
                "its graph takes no task (it has no input task_id); remove task".into(),
            ));
        }
        wanted => Some(tasks.choose(wanted.as_ref(), role).map_err(refused)?),
    };
    let prompt = match prompt {
        None => base.files.prompt(role, task).to_owned(),
        Some(prompt) => prompt_text(prompt, &base.files.prompts).map_err(refused)?,
    };
    Ok(RoleSettings::new(prompt, task))
}

fn prompt_text(prompt: &Prompt, prompts: &Prompts) -> Result<String, String> {
    let name = match prompt {
        Prompt::Text(text) => return Ok(text.clone()),
        Prompt::Name(name) => name,
    };
    prompts.named.get(name).cloned().ok_or_else(|| {
        let names: Vec<&str> = prompts.named.keys().map(String::as_str).collect();
        if names.is_empty() {
            format!("it has no prompts, so there is none named {name:?}; write the text itself as prompt")
        } else {
            format!("it has no prompt named {name:?}; it has {}", names.join(", "))
        }
    })
}

/// The length to which vectors are cut.
fn cut(base: &ModelBase, options: &ModelOptions) -> Result<Option<usize>, String> {
    if options.dimensions.is_some() && !options.force && !base.files.may_be_cut {
        matryoshka::check(base.name.as_str())?;
    }
    Ok(options.dimensions.map(usize::from))
}

/// The window: any up to the number of positions, even where the model's makers chose a smaller one.
fn max_tokens(base: &ModelBase, options: &ModelOptions) -> Result<usize, String> {
    let Some(wanted) = options.max_tokens.map(usize::from) else {
        return Ok(base.max_tokens);
    };
    let most = base.files.positions.unwrap_or(base.max_tokens);
    let most = most.min(base.session().fixed_width().unwrap_or(usize::MAX));
    if wanted > most {
        return Err(format!(
            "it reads at most {most} tokens, so max_tokens cannot be {wanted}"
        ));
    }
    Ok(wanted)
}
