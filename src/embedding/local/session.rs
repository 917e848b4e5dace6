//! One loaded graph, which any number of threads run at the same time.
//!
//! A session holds the weights, so a session for each thread would cost 1.2 times the model's size for each core. ONNX
//! Runtime allows several threads to call `Run` on one session (`InferenceSession::Run` in
//! `onnxruntime/core/session/inference_session.h`: "Multiple threads are allowed to run this function"). The `ort`
//! crate requires `&mut` nevertheless, because not every execution provider keeps that promise. The CPU provider does: it
//! keeps no state between runs. So its session is shared, by calling `OrtApi::Run` itself. Measured on two cores, sharing
//! costs no throughput. Of any other provider there are several sessions, and the runs of each take turns.
//!
//! With one intra-op thread, a run happens entirely on the calling thread: no thread pool, no spinning. The engine's
//! own threads are the parallelism. Where a lone text counts (`serve`), the session has a pool that divides each run: on
//! two cores a text of 24 tokens took 5.7 ms and not 7.5, and two at once lost a twelfth of their throughput.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};
use std::ptr::{self, NonNull};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use half::{bf16, f16};
use ort::AsPointer;
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::value::{DynTensor, DynValue, Outlet, Tensor, TensorElementType, ValueType};

use super::batch::Batch;
use super::opening::Opening;
use super::pooling_nodes::{POOLED_NAME, PoolingNodes};
use super::provider::choice::ExecutionProvider;
use super::provider::fault;
use super::signature::{Input, InputKind, OutputKind, PastShape, Signature, TaskShape};
use super::turns::Turns;
use crate::embedding::error::EmbeddingError;
use crate::embedding::pooling::{Pooling, PoolingMode};

/// Padded tokens above which a run is exceptionally large: a long text of a model with a long window.
///
/// The arena of ONNX Runtime keeps the memory of its largest run. For normal runs that is right: returning the memory
/// after each run doubles the size of the process (measured: 337 MB instead of 161 MB above the start, two threads,
/// mixed shapes), because the allocator keeps the fragments. After an exceptionally large run the arena must shrink, or
/// one long text would hold gigabytes until the process ends.
const MAX_NORMAL_TOKENS: usize = 1024;

/// The output of a graph for a batch: `[rows, width, hidden]` or `[rows, hidden]`.
pub(crate) struct Output {
    value: DynValue,
}

/// A loaded graph. [`SharedSession::run`] may be called from several threads at the same time.
pub(crate) struct SharedSession {
    opening: Opening,
    /// At least one, but while they are made again.
    sessions: RwLock<Vec<Session>>,
    /// Whose turn it is; `None` where a session may be used by several threads at the same time.
    turns: Option<Turns>,
    signature: Signature,
    fixed_rows: Option<usize>,
    fixed_width: Option<usize>,
    normal: RunOptions<NoSelectedOutputs>,
    shrinking: RunOptions<NoSelectedOutputs>,
}

impl SharedSession {
    /// Loads a graph. `past` are the sizes of a decoder's keys, as far as the model's files state them.
    ///
    /// # Errors
    ///
    /// If the file is unusable, or unusable for this provider.
    pub(crate) fn load(opening: Opening, past: PastShape) -> Result<Self, EmbeddingError> {
        let path = &opening.path;
        let unusable = |error: ort::Error| EmbeddingError::unusable(path, error);
        let sessions = opening.sessions()?;
        let session = &sessions[0];
        let fixed = |dimension| fixed_dimension(session.inputs(), dimension);
        let (fixed_rows, fixed_width) = (fixed(0), fixed(1));
        let signature = Signature::new(session.inputs(), session.outputs(), past)
            .map_err(|reason| EmbeddingError::unusable(path, reason))?;
        Ok(Self {
            turns: (!opening.provider.is_cpu()).then(|| Turns::new(sessions.len())),
            sessions: RwLock::new(sessions),
            signature,
            fixed_rows,
            fixed_width,
            normal: RunOptions::new().map_err(unusable)?,
            shrinking: shrinking().map_err(unusable)?,
            opening,
        })
    }

    /// Makes the sessions again, which have lost their device. Waits for the runs that are under way. Until it is done, every
    /// run fails at once.
    ///
    /// # Errors
    ///
    /// If that is not possible now.
    pub(crate) fn renew(&self) -> Result<(), EmbeddingError> {
        let replace = |sessions| {
            let before = self.sessions.write();
            *before.unwrap_or_else(PoisonError::into_inner) = sessions;
        };
        // First of all their memory on the device.
        replace(Vec::new());
        replace(self.opening.sessions()?);
        Ok(())
    }

    fn sessions(&self) -> RwLockReadGuard<'_, Vec<Session>> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its sessions are made of.
    pub(crate) fn opening(&self) -> &Opening {
        &self.opening
    }

    /// What runs the graph.
    pub(crate) fn provider(&self) -> &ExecutionProvider {
        &self.opening.provider
    }

    /// How many runs may be under way at the same time; `None` where that makes no difference.
    pub(crate) fn runs(&self) -> Option<usize> {
        self.turns
            .as_ref()
            .map(|_| self.opening.plan.sessions.max(1))
    }

    /// What is read of a run, unless it is asked for the token states.
    pub(crate) fn kind(&self) -> OutputKind {
        self.signature.output.1
    }

    /// Whether the graph gives a state for each token.
    pub(crate) fn has_token_states(&self) -> bool {
        self.signature.states.is_some()
    }

    /// Whether the graph takes all texts in one row, as those of static models do.
    pub(crate) fn is_packed(&self) -> bool {
        self.signature.is_packed()
    }

    /// Whether the graph takes the number of a task.
    pub(crate) fn takes_task(&self) -> bool {
        self.signature.takes_task()
    }

    /// The number of texts that the graph takes at a time, if it takes no other.
    pub(crate) fn fixed_rows(&self) -> Option<usize> {
        self.fixed_rows
    }

    /// The number of tokens, padding included, that the graph takes of each text, if it takes no other.
    pub(crate) fn fixed_width(&self) -> Option<usize> {
        self.fixed_width
    }

    /// What makes the graph pool by so many modes, unless it does already, or has no token states.
    pub(crate) fn pooling_nodes(&self, modes: usize) -> Option<PoolingNodes> {
        let (name, kind) = &self.signature.output;
        let name = name.to_str().ok()?;
        let sessions = self.sessions();
        let mut outputs = sessions.first()?.outputs().iter();
        let output = outputs.find(|output| output.name() == name)?;
        let ValueType::Tensor { ty, .. } = output.dtype() else {
            return None;
        };
        let is_single = *ty == TensorElementType::Float32;
        let sizes = [self.fixed_rows, Some(modes), self.fixed_width];
        let has_states = *kind == OutputKind::TokenStates && !self.is_packed();
        has_states.then(|| PoolingNodes::new(name, is_single, sizes))
    }

    /// Whether the graph can pool in this way.
    pub(crate) fn pools(&self, pooling: &Pooling) -> bool {
        let modes = pooling.modes();
        self.signature.pooled_modes() == Some(modes.len()) && !modes.contains(&PoolingMode::Max)
    }

    /// Runs one batch and blocks the calling thread, for an output of this kind, which the graph must have. A batch with
    /// weights is pooled in the graph: `[rows, modes, hidden]`.
    pub(crate) fn run(&self, batch: &Batch, kind: OutputKind) -> ort::Result<Output> {
        fault::check_run(self.provider(), batch)?;
        let replaced = fault::replaced(self.provider(), batch);
        let batch = replaced.as_ref().unwrap_or(batch);
        let inputs = &self.signature.inputs;
        let names: Vec<_> = inputs.iter().map(|input| input.name.as_ptr()).collect();
        let is_packed = self.signature.is_packed();
        let tensors = inputs.iter().map(|input| match is_packed {
            true => packed_tensor(input, batch),
            false => tensor(input, batch),
        });
        let tensors = tensors.collect::<ort::Result<Vec<_>>>()?;
        let values: Vec<_> = tensors.iter().map(|tensor| tensor.ptr()).collect();
        // Of a device's memory, large runs are the normal ones.
        let shrinks =
            self.provider().uses_processor() && batch.rows * batch.width > MAX_NORMAL_TOKENS;
        let options = match shrinks {
            true => &self.shrinking,
            false => &self.normal,
        };
        let output = match &self.signature.states {
            Some(_) if batch.weights.is_some() => POOLED_NAME,
            Some(states) if kind == OutputKind::TokenStates => states,
            _ => &self.signature.output.0,
        };
        let turn = self.turns.as_ref().map(Turns::take);
        let sessions = self.sessions();
        let session = sessions.get(turn.as_ref().map_or(0, |turn| turn.number));
        let session = session.ok_or_else(|| ort::Error::new("its device is lost"))?;
        let _watched = fault::watch_run(self.provider(), batch);
        run_values(session, &names, &values, output, options)
    }
}

fn run_values(
    session: &Session,
    names: &[*const c_char],
    values: &[*const ort::sys::OrtValue],
    output: &CStr,
    options: &RunOptions<NoSelectedOutputs>,
) -> ort::Result<Output> {
    let output_names = [output.as_ptr()];
    let mut outputs = [ptr::null_mut()];
    // SAFETY: every pointer belongs to an object that outlives the call: the session, the run options, names and values
    // to the caller's borrows. The counts are those of the slices. `Run` takes a mutable session by its signature but is
    // documented as safe for concurrent calls, and only the CPU provider gets them, see the head of this file. The
    // returned value has no other owner and was created by the session's allocator.
    unsafe {
        let status = (ort::api().Run)(
            session.ptr().cast_mut(),
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
            value: DynValue::from_ptr(value, Some(session.allocator())),
        })
    }
}

impl Output {
    /// The shape and the row-major data. Values of half precision are converted.
    pub(crate) fn view(&self) -> ort::Result<(&[i64], Cow<'_, [f32]>)> {
        let converted = |values: Vec<f32>| Cow::Owned(values);
        let ValueType::Tensor { ty, .. } = self.value.dtype() else {
            return Err(ort::Error::new("the output is no tensor"));
        };
        Ok(match ty {
            TensorElementType::Float16 => {
                let (shape, data) = self.value.try_extract_tensor::<f16>()?;
                (
                    shape,
                    converted(data.iter().map(|value| value.to_f32()).collect()),
                )
            }
            TensorElementType::Bfloat16 => {
                let (shape, data) = self.value.try_extract_tensor::<bf16>()?;
                (
                    shape,
                    converted(data.iter().map(|value| value.to_f32()).collect()),
                )
            }
            _ => {
                let (shape, data) = self.value.try_extract_tensor::<f32>()?;
                (shape, Cow::Borrowed(data))
            }
        })
    }
}

/// The tensor for an input of the graph.
fn tensor(input: &Input, batch: &Batch) -> ort::Result<DynTensor> {
    let whole = [batch.rows, batch.width];
    let integers = match input.kind {
        InputKind::Ids => &batch.ids,
        InputKind::Mask => &batch.mask,
        InputKind::Positions => &batch.positions,
        // Every text is a single segment.
        InputKind::TokenTypes => &vec![0; batch.ids.len()],
        InputKind::Offsets => return packed_tensor(input, batch),
        InputKind::Task(shape) => return task_tensor(input.element, shape, &batch.tasks),
        InputKind::PoolingWeights(modes) => {
            let shape = [batch.rows, modes, batch.width];
            let weights = batch.weights.clone();
            let weights = weights.unwrap_or_else(|| vec![0.0; shape.iter().product()]);
            return Ok(Tensor::from_array((shape, weights))?.upcast());
        }
        InputKind::UsesPast => return Ok(Tensor::from_array(([1], vec![false]))?.upcast()),
        InputKind::Past(PastShape { heads, size }) => {
            let shape = [batch.rows, heads.unwrap_or(1), 0, size.unwrap_or(1)];
            return Ok(match input.element {
                TensorElementType::Float16 => {
                    Tensor::from_array((shape, Vec::<f16>::new()))?.upcast()
                }
                TensorElementType::Bfloat16 => {
                    Tensor::from_array((shape, Vec::<bf16>::new()))?.upcast()
                }
                _ => Tensor::from_array((shape, Vec::<f32>::new()))?.upcast(),
            });
        }
    };
    of_integers(input.element, whole, integers.clone())
}

/// The tensor for an input of a graph that takes all texts in one row.
fn packed_tensor(input: &Input, batch: &Batch) -> ort::Result<DynTensor> {
    let tokens = || (0..batch.ids.len()).filter(|cell| batch.mask[*cell] != 0);
    let packed = match input.kind {
        InputKind::Ids => tokens().map(|cell| batch.ids[cell]).collect(),
        InputKind::Offsets => {
            let rows = batch.mask.chunks(batch.width.max(1));
            let lengths = rows.map(|row| row.iter().sum::<i64>());
            let begins = lengths.scan(0, |end, length| Some(std::mem::replace(end, *end + length)));
            begins.collect()
        }
        InputKind::Mask => vec![1; tokens().count()],
        InputKind::Positions => tokens().map(|cell| batch.positions[cell]).collect(),
        InputKind::TokenTypes => vec![0; tokens().count()],
        InputKind::Task(_)
        | InputKind::UsesPast
        | InputKind::Past(_)
        | InputKind::PoolingWeights(_) => {
            return tensor(input, batch);
        }
    };
    of_integers(input.element, [packed.len()], packed)
}

/// The tensor for the tasks of these texts. The queue never puts texts of two tasks into one batch; if it did, those of one
/// of them would get plausible vectors of the other one.
fn task_tensor(
    element: TensorElementType,
    shape: TaskShape,
    tasks: &[i64],
) -> ort::Result<DynTensor> {
    if shape == TaskShape::Rows {
        return of_integers(element, [tasks.len()], tasks.to_vec());
    }
    let task = only(tasks).ok_or_else(|| {
        ort::Error::new("texts of several tasks are in one batch, and its graph takes one number")
    })?;
    match shape {
        TaskShape::One => of_integers(element, [1], vec![task]),
        _ => of_integers(element, [], vec![task]),
    }
}

/// The task that all texts have; 0 without texts.
fn only(tasks: &[i64]) -> Option<i64> {
    let task = tasks.first().copied().unwrap_or(0);
    tasks.iter().all(|other| *other == task).then_some(task)
}

/// A tensor of ids, positions or flags, all of which are far below 2³¹.
fn of_integers<const N: usize>(
    element: TensorElementType,
    shape: [usize; N],
    values: Vec<i64>,
) -> ort::Result<DynTensor> {
    Ok(match element {
        TensorElementType::Int32 => {
            let narrow = values.iter().map(|value| *value as i32);
            Tensor::from_array((shape, narrow.collect::<Vec<_>>()))?.upcast()
        }
        _ => Tensor::from_array((shape, values))?.upcast(),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_two_tasks_do_not_pass_for_those_of_one() {
        assert_eq!(only(&[3, 3, 3]), Some(3));
        assert_eq!(only(&[1, 1, 0]), None);
    }
}
