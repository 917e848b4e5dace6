//! How a provider is added to the options of a session, through `ort`'s own types.
//!
//! With `load-dynamic`, `ort`'s features for providers are these types alone: they link to nothing.

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider as _};
use ort::ep::{ExecutionProviderDispatch, OpenVINO};
use ort::session::builder::SessionBuilder;

use super::choice::ExecutionProvider;
use super::kind::ProviderKind;

/// Whether the loaded library was built with this provider.
pub(crate) fn is_compiled_in(kind: ProviderKind) -> ort::Result<bool> {
    match kind {
        ProviderKind::Cpu => Ok(true),
        ProviderKind::Cuda => ep::CUDA::is_available(),
        ProviderKind::TensorRt => ep::TensorRT::is_available(),
        ProviderKind::TensorRtRtx => ep::NVRTX::is_available(),
        ProviderKind::OpenVino => ep::OpenVINO::is_available(),
        ProviderKind::CoreMl => ep::CoreML::is_available(),
        ProviderKind::DirectMl => ep::DirectML::is_available(),
        ProviderKind::MiGraphX => ep::MIGraphX::is_available(),
        ProviderKind::Rocm => ep::ROCm::is_available(),
        ProviderKind::Qnn => ep::QNN::is_available(),
        ProviderKind::Cann => ep::CANN::is_available(),
        ProviderKind::Vitis => ep::Vitis::is_available(),
        ProviderKind::OneDnn => ep::OneDNN::is_available(),
        ProviderKind::Xnnpack => ep::XNNPACK::is_available(),
        ProviderKind::Acl => ep::ACL::is_available(),
        #[cfg(feature = "failpoints")]
        ProviderKind::Faulty => Ok(true),
    }
}

/// Adds the provider to the session's options, for runs of so many threads where it computes on the processor. Nodes that
/// it cannot run stay with the CPU provider, which every session has.
///
/// Public only for benchmarks, which compare the engine with a bare session.
///
/// # Errors
///
/// If the library was built without it, or a library of its own does not load.
pub fn register(
    provider: &ExecutionProvider,
    threads: usize,
    builder: SessionBuilder,
) -> ort::Result<SessionBuilder> {
    let providers = registrations(provider, threads);
    let providers: Vec<_> = providers
        .into_iter()
        .map(ExecutionProviderDispatch::error_on_failure)
        .collect();
    let builder = builder.with_execution_providers(providers)?;
    Ok(match provider.kind {
        // It allows neither (`onnxruntime/core/session/inference_session.cc`).
        ProviderKind::DirectMl => builder
            .with_memory_pattern(false)?
            .with_parallel_execution(false)?,
        _ => builder,
    })
}

fn registrations(provider: &ExecutionProvider, threads: usize) -> Vec<ExecutionProviderDispatch> {
    let device = i32::from(provider.number());
    match provider.kind {
        ProviderKind::Cpu => vec![],
        ProviderKind::Cuda => vec![cuda(device)],
        // What TensorRT cannot compile is CUDA's rather than the processor's.
        ProviderKind::TensorRt => vec![
            ep::TensorRT::default().with_device_id(device).build(),
            cuda(device),
        ],
        ProviderKind::TensorRtRtx => {
            let number = u32::from(provider.number());
            vec![ep::NVRTX::default().with_device_id(number).build()]
        }
        ProviderKind::OpenVino => vec![openvino(provider.word(), threads).build()],
        ProviderKind::CoreMl => {
            let coreml = ep::CoreML::default();
            vec![match provider.word() {
                Some(units) => coreml
                    .with_arbitrary_config("MLComputeUnits", units)
                    .build(),
                None => coreml.build(),
            }]
        }
        ProviderKind::DirectMl => vec![ep::DirectML::default().with_device_id(device).build()],
        ProviderKind::MiGraphX => vec![ep::MIGraphX::default().with_device_id(device).build()],
        ProviderKind::Rocm => vec![ep::ROCm::default().with_device_id(device).build()],
        ProviderKind::Qnn => vec![ep::QNN::default().build()],
        ProviderKind::Cann => vec![ep::CANN::default().with_device_id(device).build()],
        ProviderKind::Vitis => vec![ep::Vitis::default().build()],
        ProviderKind::OneDnn => vec![ep::OneDNN::default().build()],
        ProviderKind::Xnnpack => {
            let threads = threads.try_into().unwrap_or(std::num::NonZeroUsize::MIN);
            vec![
                ep::XNNPACK::default()
                    .with_intra_op_num_threads(threads)
                    .build(),
            ]
        }
        ProviderKind::Acl => vec![ep::ACL::default().build()],
        #[cfg(feature = "failpoints")]
        ProviderKind::Faulty => vec![],
    }
}

fn cuda(device: i32) -> ExecutionProviderDispatch {
    ep::CUDA::default().with_device_id(device).build()
}

/// Without a precision, OpenVINO computes in what the device is fastest at: in bfloat16 on a processor that has it,
/// where the vectors of one export of a model were all wrong (cosine 0.218).
fn openvino(device: Option<&str>, threads: usize) -> OpenVINO {
    let device = device.unwrap_or("CPU");
    let openvino = OpenVINO::default().with_device_type(device);
    match device.split('.').next() {
        Some("CPU") => openvino
            .with_precision("FP32")
            .with_num_threads(threads)
            .with_num_streams(1),
        Some("GPU") => openvino.with_precision("FP32"),
        _ => openvino.with_precision("ACCURACY"),
    }
}
