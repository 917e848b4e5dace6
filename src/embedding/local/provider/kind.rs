//! Which execution providers there are, and what a device is called on each.

use std::fmt;

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// The processor, with ONNX Runtime's own kernels.
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
    /// NVIDIA GPUs, with a graph compiled by TensorRT.
    TensorRt,
    /// NVIDIA RTX GPUs, with a graph compiled by TensorRT for RTX.
    TensorRtRtx,
    /// Intel processors, GPUs and NPUs.
    OpenVino,
    /// Apple processors, GPUs and neural engines.
    CoreMl,
    /// GPUs of Windows with DirectX 12.
    DirectMl,
    /// AMD GPUs, with a graph compiled by MIGraphX.
    MiGraphX,
    /// AMD GPUs, with libraries older than 1.23.
    Rocm,
    /// Qualcomm NPUs.
    Qnn,
    /// Huawei Ascend NPUs.
    Cann,
    /// AMD NPUs.
    Vitis,
    /// Processors, with kernels of oneDNN.
    OneDnn,
    /// Processors, with kernels of XNNPACK.
    Xnnpack,
    /// Arm processors, with the Arm Compute Library.
    Acl,
    /// The processor, with faults: for tests.
    #[cfg(feature = "failpoints")]
    Faulty,
}

/// How a device of a provider is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceSyntax {
    /// There is one.
    None,
    /// By its number, from 0.
    Number,
    /// By a word, such as these.
    Word(&'static str),
}

impl ProviderKind {
    /// All of them, in the order in which they are listed.
    pub(crate) const ALL: &[ProviderKind] = &[
        Self::Cpu,
        Self::Cuda,
        Self::TensorRt,
        Self::TensorRtRtx,
        Self::OpenVino,
        Self::CoreMl,
        Self::DirectMl,
        Self::MiGraphX,
        Self::Rocm,
        Self::Qnn,
        Self::Cann,
        Self::Vitis,
        Self::OneDnn,
        Self::Xnnpack,
        Self::Acl,
        #[cfg(feature = "failpoints")]
        Self::Faulty,
    ];

    /// Its name on the command line, in the log and in the jobs table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::TensorRtRtx => "tensorrt-rtx",
            Self::OpenVino => "openvino",
            Self::CoreMl => "coreml",
            Self::DirectMl => "directml",
            Self::MiGraphX => "migraphx",
            Self::Rocm => "rocm",
            Self::Qnn => "qnn",
            Self::Cann => "cann",
            Self::Vitis => "vitis",
            Self::OneDnn => "onednn",
            Self::Xnnpack => "xnnpack",
            Self::Acl => "acl",
            #[cfg(feature = "failpoints")]
            Self::Faulty => "faulty",
        }
    }

    /// Whether its devices are several, which may work side by side. Those of Core ML are ways to use the one that there is.
    pub(crate) fn has_several_devices(self) -> bool {
        match self.device_syntax() {
            DeviceSyntax::None => false,
            DeviceSyntax::Number => true,
            DeviceSyntax::Word(_) => self != Self::CoreMl,
        }
    }

    pub(crate) fn device_syntax(self) -> DeviceSyntax {
        match self {
            Self::Cuda
            | Self::TensorRt
            | Self::TensorRtRtx
            | Self::DirectMl
            | Self::MiGraphX
            | Self::Rocm
            | Self::Cann => DeviceSyntax::Number,
            Self::OpenVino => DeviceSyntax::Word("CPU, GPU, GPU.1 or NPU"),
            Self::CoreMl => DeviceSyntax::Word("ALL, CPUOnly, CPUAndGPU or CPUAndNeuralEngine"),
            Self::Cpu | Self::Qnn | Self::Vitis | Self::OneDnn | Self::Xnnpack | Self::Acl => {
                DeviceSyntax::None
            }
            #[cfg(feature = "failpoints")]
            Self::Faulty => DeviceSyntax::Word(
                "absent, padding, values, device, other, slow, wrong, missing, pooling, memory, lost",
            ),
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
