//! What to install for a provider that is not there.

use super::kind::ProviderKind;

/// What to do where the library was built without the provider.
pub(crate) fn library_with(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Cuda | ProviderKind::TensorRt => {
            "install the package for GPUs and point ORT_DYLIB_PATH at it, for example: pip install --target DIR \
             'onnxruntime-gpu[cuda,cudnn]', and ORT_DYLIB_PATH=DIR/onnxruntime/capi; in a checkout of lantern-cli, run \
             `make setup-gpu`"
        }
        ProviderKind::OpenVino => {
            "install the package with OpenVINO and point ORT_DYLIB_PATH at it, for example: pip install --target DIR \
             onnxruntime-openvino, and ORT_DYLIB_PATH=DIR/onnxruntime/capi"
        }
        ProviderKind::CoreMl => {
            "use it on a Mac, whose ONNX Runtime package has it, and point ORT_DYLIB_PATH at that library"
        }
        ProviderKind::DirectMl => {
            "use it on Windows, with the package onnxruntime-directml, and point ORT_DYLIB_PATH at its library"
        }
        _ => "install a build of ONNX Runtime that has it, and point ORT_DYLIB_PATH at its library",
    }
}

/// What to do where the library has the provider, and it or its device cannot be used.
pub(crate) fn drivers_for(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Cuda => {
            "check that `nvidia-smi` shows the device, and install the CUDA and cuDNN libraries of the version that \
             this ONNX Runtime wants, beside it or in a folder that LD_LIBRARY_PATH names"
        }
        ProviderKind::TensorRt | ProviderKind::TensorRtRtx => {
            "check that `nvidia-smi` shows the device, and install TensorRT with the CUDA libraries of the version that \
             this ONNX Runtime wants, in a folder that LD_LIBRARY_PATH names"
        }
        ProviderKind::OpenVino => {
            "use one of its devices that this machine has (CPU is always there; GPU and NPU need Intel's drivers)"
        }
        ProviderKind::MiGraphX | ProviderKind::Rocm => {
            "check that `rocminfo` shows the device, and install the ROCm libraries of the version that this ONNX \
             Runtime wants"
        }
        _ => "check the device and install its driver",
    }
}
