//! One loaded graph, run by any number of threads at once.
//!
//! A session holds the weights, so one a thread would cost 1.2 times the model for each core. ONNX Runtime's `Run` may
//! be called concurrently on one session (`OrtApi::Run`, "thread safety" in its C API documentation; the CPU provider
//! keeps nothing between runs). The `ort` crate asks for `&mut` because other providers are less careful; this module
//! uses the CPU provider only and calls `Run` itself. Measured on two cores, sharing costs no throughput.
//!
//! With one intra-op thread a run happens entirely on the thread that calls it: no pool, no spinning.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr::{self, NonNull};

use ort::AsPointer;
use ort::environment::Environment;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType};

use super::error::EmbeddingError;

/// A batch as the graph wants it: row-major `[rows, width]`.
pub(crate) struct Batch {
    pub rows: usize,
    pub width: usize,
    pub ids: Vec<i64>,
    pub mask: Vec<i64>,
    pub positions: Vec<i64>,
}

/// Padded tokens beyond which a run is extraordinary: one text of a model with a long window.
///
/// The arena keeps the memory of its largest run. For ordinary runs that is wanted: handing it back and forth doubles the
/// process (measured: 337 MB instead of 161 MB above the start, two threads, mixed shapes), because the allocator keeps
/// the pieces. After an extraordinary run the arena must shrink, or one long text would hold gigabytes for ever.
const ORDINARY_TOKENS: usize = 1024;

/// What a graph gives back for a batch: float32, `[rows, width, hidden]` or `[rows, hidden]`.
pub(crate) struct Output {
    value: DynValue,
}

/// Whether the graph stops at the token states or pools itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    TokenStates,
    Sentence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Ids,
    Mask,
    TokenTypes,
    Positions,
}

pub(crate) struct SharedSession {
    session: Session,
    inputs: Vec<(Input, CString)>,
    output: CString,
    kind: OutputKind,
    ordinary: RunOptions<NoSelectedOutputs>,
    shrinking: RunOptions<NoSelectedOutputs>,
}

impl SharedSession {
    /// Loads and optimises a graph; takes about a second for a hundred megabytes.
    pub(crate) fn load(environment: &Environment, path: &Path) -> Result<Self, EmbeddingError> {
        let unusable = |error: ort::Error| EmbeddingError::unusable(path, error);
        let session = build(environment, path).map_err(unusable)?;
        let inputs = session
            .inputs()
            .iter()
            .map(input)
            .collect::<Result<Vec<_>, _>>();
        let inputs = inputs.map_err(|reason| EmbeddingError::unusable(path, reason))?;
        if !inputs.iter().any(|(input, _)| *input == Input::Ids) {
            return Err(EmbeddingError::unusable(
                path,
                "the graph has no input input_ids",
            ));
        }
        let (output, kind) =
            output(session.outputs()).map_err(|reason| EmbeddingError::unusable(path, reason))?;
        Ok(Self {
            session,
            inputs,
            output,
            kind,
            ordinary: RunOptions::new().map_err(unusable)?,
            shrinking: shrinking().map_err(unusable)?,
        })
    }

    pub(crate) fn kind(&self) -> OutputKind {
        self.kind
    }

    /// Runs one batch on the calling thread.
    pub(crate) fn run(&self, batch: &Batch) -> ort::Result<Output> {
        let shape = [batch.rows, batch.width];
        let token_types = vec![0; batch.ids.len()];
        let mut names = Vec::with_capacity(self.inputs.len());
        let mut tensors = Vec::with_capacity(self.inputs.len());
        for (input, name) in &self.inputs {
            let data = match input {
                Input::Ids => &batch.ids,
                Input::Mask => &batch.mask,
                Input::TokenTypes => &token_types,
                Input::Positions => &batch.positions,
            };
            names.push(name.as_ptr());
            tensors.push(TensorRef::from_array_view((shape, data.as_slice()))?);
        }
        let values: Vec<_> = tensors.iter().map(|tensor| tensor.ptr()).collect();
        let extraordinary = batch.rows * batch.width > ORDINARY_TOKENS;
        let options = if extraordinary {
            &self.shrinking
        } else {
            &self.ordinary
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
        // SAFETY: every pointer belongs to an object that outlives the call: the session to `self`, the run options,
        // names and values to the caller's borrows; the counts match the slices. `Run` takes a mutable session by
        // signature but is documented as safe for concurrent calls, see the head of this file. The value that comes
        // back is owned by nobody else and was made by the session's allocator.
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
                .ok_or_else(|| ort::Error::new("the run gave no output"))?;
            Ok(Output {
                value: DynValue::from_ptr(value, Some(self.session.allocator())),
            })
        }
    }
}

impl Output {
    /// Shape and row-major data.
    pub(crate) fn view(&self) -> ort::Result<(&[i64], &[f32])> {
        let (shape, data) = self.value.try_extract_tensor::<f32>()?;
        Ok((shape, data))
    }
}

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

/// Options under which the arena gives back after the run what the run made it grow.
fn shrinking() -> ort::Result<RunOptions<NoSelectedOutputs>> {
    let mut options = RunOptions::new()?;
    options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
    Ok(options)
}

fn input(outlet: &Outlet) -> Result<(Input, CString), String> {
    let name = outlet.name();
    let input = match name {
        "input_ids" => Input::Ids,
        "attention_mask" => Input::Mask,
        "token_type_ids" => Input::TokenTypes,
        "position_ids" => Input::Positions,
        _ => {
            return Err(format!(
                "the graph wants an input {name}, which no text model is known to have"
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
                "the graph wants {name} as {other}; only int64 tensors are supported"
            ));
        }
    }
    Ok((input, c_name(name)?))
}

/// The output to read: by the names that exporters use, else the only float one that can be it.
fn output(outlets: &[Outlet]) -> Result<(CString, OutputKind), String> {
    const NAMES: [&str; 3] = [
        "sentence_embedding",
        "last_hidden_state",
        "token_embeddings",
    ];
    let rank = |outlet: &Outlet| match outlet.dtype() {
        ValueType::Tensor {
            ty: TensorElementType::Float32,
            shape,
            ..
        } if matches!(shape.len(), 2 | 3) => Some(shape.len()),
        _ => None,
    };
    let usable: Vec<_> = outlets
        .iter()
        .filter_map(|outlet| Some((outlet.name(), rank(outlet)?)))
        .collect();
    let named = NAMES
        .iter()
        .find_map(|name| usable.iter().find(|(candidate, _)| candidate == name));
    let chosen = named.or(match usable.as_slice() {
        [only] => Some(only),
        // Encoders often give a pooled output beside the token states.
        several => {
            let mut token_states = several.iter().filter(|(_, rank)| *rank == 3);
            token_states
                .next()
                .filter(|_| token_states.next().is_none())
        }
    });
    let (name, rank) = chosen.ok_or_else(|| {
        let names: Vec<_> = outlets.iter().map(Outlet::name).collect();
        format!(
            "none of the graph's outputs ({}) is clearly the float32 embedding",
            names.join(", ")
        )
    })?;
    let kind = if *rank == 2 {
        OutputKind::Sentence
    } else {
        OutputKind::TokenStates
    };
    Ok((c_name(name)?, kind))
}

fn c_name(name: &str) -> Result<CString, String> {
    CString::new(name).map_err(|_| format!("the graph's name {name:?} contains a zero byte"))
}
