//! Whether a provider can be used: the library was built with it, its own libraries load, and its device computes.

use std::path::Path;

use ort::environment::Environment;
use ort::session::builder::SessionBuilder;
use ort::value::Tensor;

use super::choice::ExecutionProvider;
use super::kind::ProviderKind;
use super::{fault, missing, preload, registration, small_graph};
use crate::embedding::error::EmbeddingError;

/// How far a result may be from the exact one, relative to it. Devices compute in half precision where they may.
const TOLERANCE: f32 = 0.01;

/// What ONNX Runtime says where a provider was registered and took nothing
/// (`onnxruntime/core/session/inference_session.cc`).
const LEFT_TO_CPU: &str = "fallback to CPU EP has been explicitly disabled";

/// Looks whether this provider of this library can be used, by running a small graph on it. Blocks, on a device for a
/// second or so.
///
/// # Errors
///
/// What is missing, and what to do about it.
pub(crate) fn check(
    provider: &ExecutionProvider,
    environment: &Environment,
    library: &Path,
) -> Result<(), EmbeddingError> {
    let kind = provider.kind;
    if provider.is_cpu() {
        return Ok(());
    }
    if fault::is_absent(provider) || !is_compiled_in(kind) {
        return Err(EmbeddingError::ProviderUnusable {
            provider: provider.clone(),
            reason: format!(
                "the ONNX Runtime library {} was built without it, and has {}",
                library.display(),
                compiled_in()
            ),
            remedy: missing::library_with(kind),
        });
    }
    if let Some(folder) = library.parent() {
        preload::libraries_of(kind, folder);
    }
    run_small_graph(provider, environment).map_err(|reason| EmbeddingError::ProviderUnusable {
        provider: provider.clone(),
        reason,
        remedy: missing::drivers_for(kind),
    })
}

/// The library does not say that it cannot list its providers: an error here would be one of `ort`.
fn is_compiled_in(kind: ProviderKind) -> bool {
    registration::is_compiled_in(kind).unwrap_or(false)
}

/// The providers of the library, by the names that they have here.
fn compiled_in() -> String {
    let kinds = ProviderKind::ALL.iter().copied();
    let names: Vec<&str> = kinds
        .filter(|kind| is_compiled_in(*kind))
        .map(ProviderKind::name)
        .collect();
    names.join(", ")
}

/// Registering a provider loads its libraries, the session opens the device, and the run uses it.
fn run_small_graph(provider: &ExecutionProvider, environment: &Environment) -> Result<(), String> {
    let small = small_graph::factor();
    let computed = compute(provider, environment).map_err(|error| reason(&error))?;
    let is_near = |(found, exact): (&f32, &f32)| (found - exact).abs() <= exact * TOLERANCE;
    if computed.len() != small.len() || !computed.iter().zip(&small).all(is_near) {
        return Err(format!("it computes {computed:?} where {small:?} is right"));
    }
    Ok(())
}

/// Why the graph was not computed, for a person.
fn reason(error: &ort::Error) -> String {
    let message = in_short(&error.to_string());
    match message.contains(LEFT_TO_CPU) {
        true => "ONNX Runtime would silently compute on the processor in its place, because it or its device does not \
                 start (--log-level info,onnxruntime=debug shows ONNX Runtime's own words)"
            .into(),
        false => message,
    }
}

/// The product of the matrix of the small graph and the unit matrix: the former.
fn compute(provider: &ExecutionProvider, environment: &Environment) -> ort::Result<Vec<f32>> {
    let builder = registration::register(provider, 1, SessionBuilder::new(environment)?)?;
    let mut builder = builder.with_intra_threads(1)?;
    if !fault::is_faulty(provider) {
        // Otherwise the CPU would compute what the provider does not take.
        builder = builder.with_disable_cpu_fallback()?;
    }
    let mut session = builder.commit_from_memory(&small_graph::bytes())?;
    let size = small_graph::SIZE;
    let is_one = |place: usize| f32::from(u8::from(place.is_multiple_of(size + 1)));
    let unit: Vec<f32> = (0..size * size).map(is_one).collect();
    let input = Tensor::from_array(([size, size], unit))?;
    let outputs = session.run(ort::inputs![small_graph::INPUT => input])?;
    let (_, values) = outputs[small_graph::OUTPUT].try_extract_tensor::<f32>()?;
    Ok(values.to_vec())
}

/// The message of ONNX Runtime without the place in its code, which stands before a code such as
/// `[ONNXRuntimeError] : 1 : FAIL : `.
pub(crate) fn in_short(message: &str) -> String {
    let message = match message.rsplit_once("[ONNXRuntimeError] : ") {
        Some((_, rest)) => rest.splitn(3, " : ").last().unwrap_or(rest),
        None => message,
    };
    let lines = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_in_the_code_of_onnx_runtime_is_left_out() {
        let message = "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2284 onnxruntime::Provider& \
                       onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library \
                       libx.so with error: liby.so.13: cannot open shared object file\n";
        assert_eq!(
            in_short(message),
            "Failed to load library libx.so with error: liby.so.13: cannot open shared object file"
        );
        assert_eq!(in_short("as it is"), "as it is");
    }
}
