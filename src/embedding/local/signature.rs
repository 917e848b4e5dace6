//! What a graph takes and gives, by the names that exporters of transformers use.
//!
//! Encoders take token ids and a mask. Decoders that were exported for generating text take more: the positions, and
//! for each layer the keys and values of earlier tokens (`past_key_values.0.key`). An embedder has no earlier tokens, so
//! these are tensors of length 0.
//!
//! Static models take the tokens of all texts in one row, and where each text begins (`torch.nn.EmbeddingBag`).

use std::ffi::CString;

use ort::value::{Outlet, TensorElementType, ValueType};

use super::pooling_nodes::{POOLED, WEIGHTS};

/// Outputs that are the vector of the whole text, wherever they stand.
const SENTENCES: [&str; 4] = [
    "sentence_embedding",
    "sentence_embeddings",
    // CLIP and its kin: the projection that compares texts with images.
    "text_embeds",
    // BGE-M3, beside `sparse_vecs` and `colbert_vecs`.
    "dense_vecs",
];
/// Outputs that are a state for each token.
const STATES: [&str; 2] = ["last_hidden_state", "token_embeddings"];
/// The score of each word of the vocabulary.
const SCORES: &str = "logits";

/// Whether an output has a state for each token, or pools them itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// `[rows, width, hidden]`.
    TokenStates,
    /// `[rows, hidden]`.
    Sentence,
}

/// What an input of the graph is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputKind {
    Ids,
    Mask,
    TokenTypes,
    Positions,
    /// Keys or values of earlier tokens, `[rows, heads, 0, size]`.
    Past(PastShape),
    /// Where each text begins in the ids of all texts, `[rows]`. Then the ids are `[tokens]`, without padding.
    Offsets,
    /// The number of the task that the texts are for.
    Task(TaskShape),
    /// Whether there are earlier tokens, for a graph that has a branch for each case.
    UsesPast,
    /// The weights of the tokens in each of so many vectors of a text, where the graph pools by [`PoolingNodes`].
    ///
    /// [`PoolingNodes`]: super::pooling_nodes::PoolingNodes
    PoolingWeights(usize),
}

/// How a graph takes the number of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskShape {
    /// One number for all texts, `[]`, as in the exports of jina-embeddings-v3.
    Scalar,
    /// The same as `[1]`.
    One,
    /// A number for each text, `[rows]`.
    Rows,
}

/// The sizes of the keys and values of earlier tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PastShape {
    /// Attention heads that have keys of their own.
    pub heads: Option<usize>,
    /// Length of a key.
    pub size: Option<usize>,
}

/// An input of the graph.
#[derive(Debug)]
pub(crate) struct Input {
    pub kind: InputKind,
    pub name: CString,
    pub element: TensorElementType,
}

/// What a graph takes and gives.
#[derive(Debug)]
pub(crate) struct Signature {
    pub inputs: Vec<Input>,
    /// The output that is read unless a job asks for the other one.
    pub output: (CString, OutputKind),
    /// The output with a state for each token, if there is one.
    pub states: Option<CString>,
}

impl Signature {
    /// Whether the graph takes all texts in one row, without padding.
    pub(crate) fn is_packed(&self) -> bool {
        self.inputs
            .iter()
            .any(|input| input.kind == InputKind::Offsets)
    }

    /// Whether the graph takes the number of a task.
    pub(crate) fn takes_task(&self) -> bool {
        self.inputs
            .iter()
            .any(|input| matches!(input.kind, InputKind::Task(_)))
    }

    /// How many vectors of a text the graph pools by itself, if it does.
    pub(crate) fn pooled_modes(&self) -> Option<usize> {
        let mut kinds = self.inputs.iter().map(|input| input.kind);
        kinds.find_map(|kind| match kind {
            InputKind::PoolingWeights(modes) => Some(modes),
            _ => None,
        })
    }

    /// Reads the names, shapes and types of a graph's inputs and outputs. `past` are the sizes that the model's files
    /// state.
    ///
    /// # Errors
    ///
    /// What is not supported, and what to do about it.
    pub(crate) fn new(
        inputs: &[Outlet],
        outputs: &[Outlet],
        past: PastShape,
    ) -> Result<Self, String> {
        let inputs = inputs
            .iter()
            .map(|outlet| classify_input(outlet, past))
            .collect::<Result<Vec<_>, _>>()?;
        if !inputs.iter().any(|input| input.kind == InputKind::Ids) {
            return Err(
                "the graph has no input named input_ids; export the model with its tokenizer's inputs".into(),
            );
        }
        let usable: Vec<(&str, OutputKind)> = outputs
            .iter()
            .filter(|outlet| outlet.name() != POOLED)
            .filter_map(|outlet| Some((outlet.name(), output_kind(outlet)?)))
            .collect();
        let (name, kind) = choose_output(outputs, &usable)?;
        let states = match kind {
            OutputKind::TokenStates => Some(name),
            OutputKind::Sentence => STATES
                .into_iter()
                .find(|name| usable.contains(&(*name, OutputKind::TokenStates))),
        };
        Ok(Signature {
            inputs,
            output: (c_name(name)?, kind),
            states: states.map(c_name).transpose()?,
        })
    }
}

fn classify_input(outlet: &Outlet, past: PastShape) -> Result<Input, String> {
    let name = outlet.name();
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(format!(
            "the graph takes {name} as {}, which is no tensor",
            outlet.dtype()
        ));
    };
    let kind = match name {
        "input_ids" => InputKind::Ids,
        "attention_mask" => InputKind::Mask,
        "token_type_ids" => InputKind::TokenTypes,
        "position_ids" => InputKind::Positions,
        "offsets" => InputKind::Offsets,
        "task_id" => InputKind::Task(task_shape(shape)?),
        "use_cache_branch" => InputKind::UsesPast,
        WEIGHTS => InputKind::PoolingWeights(shape.get(1).map_or(0, |modes| *modes as usize)),
        _ if name.starts_with("past_key_values.") => {
            InputKind::Past(past_shape(name, shape, past)?)
        }
        _ => {
            return Err(format!(
                "the graph has an input {name}, which is not supported (input_ids, attention_mask, token_type_ids, \
                 position_ids, task_id, offsets and past_key_values are); export the model for the task feature-extraction"
            ));
        }
    };
    let supported: &[TensorElementType] = match kind {
        InputKind::UsesPast => &[TensorElementType::Bool],
        InputKind::Past(_) => &FLOATS,
        InputKind::PoolingWeights(_) => &[TensorElementType::Float32],
        _ => &[TensorElementType::Int64, TensorElementType::Int32],
    };
    if !supported.contains(ty) {
        let supported: Vec<_> = supported.iter().map(ToString::to_string).collect();
        return Err(format!(
            "the graph takes {name} as {}; only tensors of {} are supported",
            outlet.dtype(),
            supported.join(", ")
        ));
    }
    Ok(Input {
        kind,
        name: c_name(name)?,
        element: *ty,
    })
}

fn task_shape(shape: &[i64]) -> Result<TaskShape, String> {
    match shape {
        [] => Ok(TaskShape::Scalar),
        [1] => Ok(TaskShape::One),
        [_] => Ok(TaskShape::Rows),
        _ => Err(format!(
            "the graph takes task_id with {} dimensions; export it with one number for all texts, or one for each",
            shape.len()
        )),
    }
}

const FLOATS: [TensorElementType; 3] = [
    TensorElementType::Float32,
    TensorElementType::Float16,
    TensorElementType::Bfloat16,
];

/// The sizes that the graph gives, else those of the model's files.
fn past_shape(name: &str, shape: &[i64], stated: PastShape) -> Result<PastShape, String> {
    let [_, heads, _, size] = shape else {
        return Err(format!(
            "the graph takes {name} with {} dimensions instead of 4; export the model for the task feature-extraction",
            shape.len()
        ));
    };
    let fixed = |size: i64| usize::try_from(size).ok().filter(|size| *size > 0);
    let shape = PastShape {
        heads: fixed(*heads).or(stated.heads),
        size: fixed(*size).or(stated.size),
    };
    match shape {
        PastShape {
            heads: Some(_),
            size: Some(_),
        } => Ok(shape),
        _ => Err(format!(
            "neither the graph nor config.json gives the sizes of {name}; fetch the model's config.json, or export it \
             for the task feature-extraction"
        )),
    }
}

/// The output to read: one with a name that exporters use, else the only one of a suitable shape.
fn choose_output<'a>(
    outlets: &[Outlet],
    usable: &[(&'a str, OutputKind)],
) -> Result<(&'a str, OutputKind), String> {
    let named = SENTENCES
        .iter()
        .chain(&STATES)
        .find_map(|name| usable.iter().find(|(candidate, _)| candidate == name));
    if let Some(found) = named.or_else(|| only_candidate(usable)) {
        return Ok(*found);
    }
    let names: Vec<_> = outlets.iter().map(Outlet::name).collect();
    Err(if names.contains(&SCORES) {
        format!(
            "the graph gives a score for each word of the vocabulary ({}), which is no embedding; export the model for \
             the task feature-extraction, without its language-modeling head",
            names.join(", ")
        )
    } else {
        format!(
            "none of the graph's outputs ({}) is clearly the embedding; export the model with one output, or name it \
             sentence_embedding or last_hidden_state",
            names.join(", ")
        )
    })
}

/// The only output; or, since encoders often have a pooled output beside the token states, the only token states.
fn only_candidate<'a, 'b>(
    usable: &'b [(&'a str, OutputKind)],
) -> Option<&'b (&'a str, OutputKind)> {
    let mut candidates = usable.iter().filter(|(name, _)| *name != SCORES);
    let only = candidates.next()?;
    if candidates.next().is_none() {
        // Beside scores, any other output is an unnamed part of a language model.
        return (usable.len() == 1).then_some(only);
    }
    let mut token_states = usable
        .iter()
        .filter(|(name, kind)| *kind == OutputKind::TokenStates && *name != SCORES);
    let first = token_states.next()?;
    token_states.next().is_none().then_some(first)
}

/// What an output holds, by its rank; `None` if it cannot be an embedding.
fn output_kind(outlet: &Outlet) -> Option<OutputKind> {
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return None;
    };
    match shape.len() {
        _ if !FLOATS.contains(ty) => None,
        2 => Some(OutputKind::Sentence),
        3 => Some(OutputKind::TokenStates),
        _ => None,
    }
}

fn c_name(name: &str) -> Result<CString, String> {
    CString::new(name).map_err(|_| format!("the graph's name {name:?} contains a zero byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_taken_once_for_all_texts_or_for_each() {
        assert_eq!(task_shape(&[]), Ok(TaskShape::Scalar));
        assert_eq!(task_shape(&[1]), Ok(TaskShape::One));
        assert_eq!(task_shape(&[-1]), Ok(TaskShape::Rows));
        assert_eq!(task_shape(&[4]), Ok(TaskShape::Rows));
        let said = task_shape(&[-1, 1]).unwrap_err();
        assert!(said.contains("task_id with 2 dimensions"), "{said}");
    }
}
