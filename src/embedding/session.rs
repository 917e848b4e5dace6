//! One loaded graph, which any number of threads run at the same time.
//!
//! A session holds the weights, so a session for each thread would cost 1.2 times the model's size for each core. ONNX
//! Runtime allows several threads to call `Run` on one session (`InferenceSession::Run` in
//! `onnxruntime/core/session/inference_session.h`: "Multiple threads are allowed to run this function"). The `ort`
//! crate requires `&mut` nevertheless, because not every execution provider keeps that promise. This file uses the CPU
//! provider only, which keeps no state between runs, and calls `OrtApi::Run` itself. Measured on two cores, sharing
//! costs no throughput.
//!
//! With one intra-op thread, a run happens entirely on the calling thread: no thread pool, no spinning. The engine's
//! own threads are the parallelism.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr::{self, NonNull};

use ort::AsPointer;
use ort::environment::Environment;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType};

use super::error::EmbeddingError;
use super::external_data::{Malformed, external_data};

/// A batch of padded texts as the graph takes it. All tensors are row-major `[rows, width]`.
pub(crate) struct Batch {
    /// Number of texts.
    pub rows: usize,
    /// Tokens in each row, padding included.
    pub width: usize,
    /// Token ids.
    pub ids: Vec<i64>,
    /// The attention mask: 1 for a real token, 0 for padding.
    pub mask: Vec<i64>,
    /// The position of each token in its text, from 0.
    pub positions: Vec<i64>,
}

/// Padded tokens above which a run is exceptionally large: a long text of a model with a long window.
///
/// The arena of ONNX Runtime keeps the memory of its largest run. For normal runs that is right: returning the memory
/// after each run doubles the size of the process (measured: 337 MB instead of 161 MB above the start, two threads,
/// mixed shapes), because the allocator keeps the fragments. After an exceptionally large run the arena must shrink, or
/// one long text would hold gigabytes until the process ends.
const MAX_NORMAL_TOKENS: usize = 1024;

/// The output of a graph for a batch: float32, `[rows, width, hidden]` or `[rows, hidden]`.
pub(crate) struct Output {
    value: DynValue,
}

/// Whether the graph ends with the token states or pools them itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// `[rows, width, hidden]`.
    TokenStates,
    /// `[rows, hidden]`.
    Sentence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InputKind {
    Ids,
    Mask,
    TokenTypes,
    Positions,
}

/// A loaded graph. [`SharedSession::run`] may be called from several threads at the same time.
pub(crate) struct SharedSession {
    session: Session,
    inputs: Vec<(InputKind, CString)>,
    output: CString,
    kind: OutputKind,
    fixed_rows: Option<usize>,
    fixed_width: Option<usize>,
    normal: RunOptions<NoSelectedOutputs>,
    shrinking: RunOptions<NoSelectedOutputs>,
}

impl SharedSession {
    /// Loads and optimizes a graph; takes about a second for a hundred megabytes.
    pub(crate) fn load(environment: &Environment, path: &Path) -> Result<Self, EmbeddingError> {
        let unusable = |error: ort::Error| EmbeddingError::unusable(path, error);
        let session = build(environment, path)
            .map_err(|error| EmbeddingError::unusable(path, load_failure(path, &error)))?;
        let fixed = |dimension| fixed_dimension(session.inputs(), dimension);
        let (fixed_rows, fixed_width) = (fixed(0), fixed(1));
        let inputs = session
            .inputs()
            .iter()
            .map(classify_input)
            .collect::<Result<Vec<_>, _>>();
        let inputs = inputs.map_err(|reason| EmbeddingError::unusable(path, reason))?;
        if !inputs.iter().any(|(kind, _)| *kind == InputKind::Ids) {
            return Err(EmbeddingError::unusable(
                path,
                "the graph has no input named input_ids; export the model with its tokenizer's inputs",
            ));
        }
        let (output, kind) = choose_output(session.outputs())
            .map_err(|reason| EmbeddingError::unusable(path, reason))?;
        Ok(Self {
            session,
            inputs,
            output,
            kind,
            fixed_rows,
            fixed_width,
            normal: RunOptions::new().map_err(unusable)?,
            shrinking: shrinking().map_err(unusable)?,
        })
    }

    pub(crate) fn kind(&self) -> OutputKind {
        self.kind
    }

    /// The number of texts that the graph takes at a time, if it takes no other.
    pub(crate) fn fixed_rows(&self) -> Option<usize> {
        self.fixed_rows
    }

    /// The number of tokens, padding included, that the graph takes of each text, if it takes no other.
    pub(crate) fn fixed_width(&self) -> Option<usize> {
        self.fixed_width
    }

    /// Runs one batch on the calling thread.
    pub(crate) fn run(&self, batch: &Batch) -> ort::Result<Output> {
        let shape = [batch.rows, batch.width];
        // Every text is a single segment.
        let token_types = vec![0; batch.ids.len()];
        let mut names = Vec::with_capacity(self.inputs.len());
        let mut tensors = Vec::with_capacity(self.inputs.len());
        for (kind, name) in &self.inputs {
            let data = match kind {
                InputKind::Ids => &batch.ids,
                InputKind::Mask => &batch.mask,
                InputKind::TokenTypes => &token_types,
                InputKind::Positions => &batch.positions,
            };
            names.push(name.as_ptr());
            tensors.push(TensorRef::from_array_view((shape, data.as_slice()))?);
        }
        let values: Vec<_> = tensors.iter().map(|tensor| tensor.ptr()).collect();
        let options = if batch.rows * batch.width > MAX_NORMAL_TOKENS {
            &self.shrinking
        } else {
            &self.normal
        };
        self.run_values(&names, &values, options)
    }

    fn run_values(
        &self,
        names: &[*const c_char],
        values: &[*const ort::sys::OrtValue],
        options: &RunOptions<NoSelectedOutputs>,
    ) -> ort::Result<Output> {
        let output_names = [self.output.as_ptr()];
        let mut outputs = [ptr::null_mut()];
        // SAFETY: every pointer belongs to an object that outlives the call: the session to `self`; the run options,
        // names and values to the caller's borrows. The counts are those of the slices. `Run` takes a mutable session
        // by its signature but is documented as safe for concurrent calls, see the head of this file. The returned
        // value has no other owner and was created by the session's allocator.
        unsafe {
            let status = (ort::api().Run)(
                self.session.ptr().cast_mut(),
                options.ptr(),
                names.as_ptr(),
                values.as_ptr(),
                values.len(),
                output_names.as_ptr(),
                output_names.len(),
                outputs.as_mut_ptr(),
            );
            ort::Error::result_from_status(status)?;
            let value = NonNull::new(outputs[0])
                .ok_or_else(|| ort::Error::new("the run returned no output"))?;
            Ok(Output {
                value: DynValue::from_ptr(value, Some(self.session.allocator())),
            })
        }
    }
}

impl Output {
    /// The shape and the row-major data.
    pub(crate) fn view(&self) -> ort::Result<(&[i64], &[f32])> {
        let (shape, data) = self.value.try_extract_tensor::<f32>()?;
        Ok((shape, data))
    }
}

/// Spinning threads would steal time from the database on the same machine; the CPU provider is `ort`'s default.
fn build(environment: &Environment, path: &Path) -> ort::Result<Session> {
    let builder = SessionBuilder::new(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_config_entry("session.intra_op.allow_spinning", "0")?
        .with_config_entry("session.inter_op.allow_spinning", "0")?;
    let mut builder = builder;
    builder.commit_from_file(path)
}

/// Why a graph does not load, for a person: ONNX Runtime calls every damage "Protobuf parsing failed".
fn load_failure(path: &Path, error: &ort::Error) -> String {
    let size = path.metadata().map_or(0, |metadata| metadata.len());
    let message = error.to_string();
    match external_data(path) {
        _ if size == 0 => "it is empty; download it again".into(),
        Err(Malformed::Truncated) => format!(
            "it ends in the middle of the graph, after {size} bytes; its download was cut off, so download it again"
        ),
        Err(Malformed::NotAGraph) => {
            format!("it is not an ONNX graph ({size} bytes); download it again: {message}")
        }
        // onnxruntime issue 27353: 1.24.0 and 1.24.1 resolve links before they compare.
        Ok(_) if message.contains("escapes") => format!(
            "{message}; some versions of ONNX Runtime refuse weights behind links: use version 1.24.2 or newer, or put \
             the files themselves in the place of the links"
        ),
        _ => message,
    }
}

/// The size of a dimension of the graph's token ids, unless any size will do.
fn fixed_dimension(inputs: &[Outlet], dimension: usize) -> Option<usize> {
    let ids = inputs.iter().find(|input| input.name() == "input_ids")?;
    let ValueType::Tensor { shape, .. } = ids.dtype() else {
        return None;
    };
    let size = usize::try_from(*shape.get(dimension)?).ok()?;
    (size > 0).then_some(size)
}

/// Run options under which the arena returns, after the run, the memory that it grew by
/// (`onnxruntime_run_options_config_keys.h`).
fn shrinking() -> ort::Result<RunOptions<NoSelectedOutputs>> {
    let mut options = RunOptions::new()?;
    options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
    Ok(options)
}

/// The tensor that an input of the graph takes, by the names that exporters of transformers use.
fn classify_input(outlet: &Outlet) -> Result<(InputKind, CString), String> {
    let name = outlet.name();
    let kind = match name {
        "input_ids" => InputKind::Ids,
        "attention_mask" => InputKind::Mask,
        "token_type_ids" => InputKind::TokenTypes,
        "position_ids" => InputKind::Positions,
        _ => {
            return Err(format!(
                "the graph has an input {name}, which is not supported (input_ids, attention_mask, token_type_ids and \
                 position_ids are)"
            ));
        }
    };
    match outlet.dtype() {
        ValueType::Tensor {
            ty: TensorElementType::Int64,
            ..
        } => {}
        other => {
            return Err(format!(
                "the graph takes {name} as {other}; only int64 tensors are supported"
            ));
        }
    }
    Ok((kind, c_name(name)?))
}

/// The output to read: the one with a name that exporters use, else the only float32 one of a suitable shape.
fn choose_output(outlets: &[Outlet]) -> Result<(CString, OutputKind), String> {
    const NAMES: [&str; 3] = [
        "sentence_embedding",
        "last_hidden_state",
        "token_embeddings",
    ];
    let usable: Vec<(&str, OutputKind)> = outlets
        .iter()
        .filter_map(|outlet| Some((outlet.name(), output_kind(outlet)?)))
        .collect();
    let named = NAMES
        .iter()
        .find_map(|name| usable.iter().find(|(candidate, _)| candidate == name));
    let (name, kind) = named.or_else(|| only_candidate(&usable)).ok_or_else(|| {
        let names: Vec<_> = outlets.iter().map(Outlet::name).collect();
        format!(
            "none of the graph's outputs ({}) is clearly the float32 embedding",
            names.join(", ")
        )
    })?;
    Ok((c_name(name)?, *kind))
}

/// The only output; or, since encoders often have a pooled output beside the token states, the only token states.
fn only_candidate<'a, 'b>(
    usable: &'b [(&'a str, OutputKind)],
) -> Option<&'b (&'a str, OutputKind)> {
    if let [only] = usable {
        return Some(only);
    }
    let mut token_states = usable
        .iter()
        .filter(|(_, kind)| *kind == OutputKind::TokenStates);
    let first = token_states.next()?;
    token_states.next().is_none().then_some(first)
}

/// What a float32 output holds, by its rank; `None` if it cannot be an embedding.
fn output_kind(outlet: &Outlet) -> Option<OutputKind> {
    let ValueType::Tensor {
        ty: TensorElementType::Float32,
        shape,
        ..
    } = outlet.dtype()
    else {
        return None;
    };
    match shape.len() {
        2 => Some(OutputKind::Sentence),
        3 => Some(OutputKind::TokenStates),
        _ => None,
    }
}

fn c_name(name: &str) -> Result<CString, String> {
    CString::new(name).map_err(|_| format!("the graph's name {name:?} contains a zero byte"))
}
