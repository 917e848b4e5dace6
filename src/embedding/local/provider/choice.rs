//! An execution provider as it is asked for: `NAME` or `NAME:DEVICE`.

use std::fmt;
use std::str::FromStr;

use super::kind::{DeviceSyntax, ProviderKind};

/// An execution provider, and which of its devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExecutionProvider {
    pub(crate) kind: ProviderKind,
    pub(crate) device: Option<Device>,
}

/// A device of an execution provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Device {
    Number(u16),
    Word(String),
}

/// What is asked for is no execution provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderNameError {
    /// There is none of this name.
    #[error(
        "there is no execution provider {name:?}; use one of {}",
        provider_names()
    )]
    Unknown {
        /// What was written.
        name: String,
    },
    /// Its devices have other names, or none.
    #[error("{device:?} names no device of the execution provider {provider}; {remedy}")]
    Device {
        /// The provider.
        provider: &'static str,
        /// What was written behind it.
        device: String,
        /// What can be written.
        remedy: String,
    },
    /// A device is named twice.
    #[error("{group:?} names the device {device} twice; name each device once, as in cuda:0+1")]
    Twice {
        /// What was written.
        group: String,
        /// The device.
        device: String,
    },
    /// A device is named together with others that is none of its own.
    #[error(
        "{device} in {group:?} cannot be used together with others; name it alone, because only devices with a memory of \
         their own work side by side, as in cuda:0+1"
    )]
    Apart {
        /// What was written.
        group: String,
        /// The device.
        device: String,
    },
}

impl ExecutionProvider {
    /// The processor, which is always there.
    pub const CPU: Self = Self {
        kind: ProviderKind::Cpu,
        device: None,
    };

    /// Whether it is ONNX Runtime's own on the processor, which others are measured by.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        self.kind == ProviderKind::Cpu
    }

    /// Whether it computes on the processor, as opposed to a device with a memory of its own.
    #[must_use]
    pub fn uses_processor(&self) -> bool {
        match self.kind {
            ProviderKind::Cpu
            | ProviderKind::OneDnn
            | ProviderKind::Xnnpack
            | ProviderKind::Acl => true,
            ProviderKind::OpenVino => matches!(self.word(), None | Some("CPU")),
            #[cfg(feature = "failpoints")]
            ProviderKind::Faulty => {
                matches!(self.word(), None | Some("absent" | "padding" | "values"))
            }
            _ => false,
        }
    }

    /// The number of the device, 0 unless another one is named.
    pub(crate) fn number(&self) -> u16 {
        match self.device {
            Some(Device::Number(number)) => number,
            _ => 0,
        }
    }

    /// The device as it is written behind the provider; empty where none is named.
    pub(crate) fn name_of_device(&self) -> String {
        match &self.device {
            None => String::new(),
            Some(Device::Number(number)) => number.to_string(),
            Some(Device::Word(word)) => word.clone(),
        }
    }

    /// The name of the device, where one is named.
    pub(crate) fn word(&self) -> Option<&str> {
        match &self.device {
            Some(Device::Word(word)) => Some(word),
            _ => None,
        }
    }
}

impl FromStr for ExecutionProvider {
    type Err = ProviderNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (name, device) = match text.split_once(':') {
            Some((name, device)) => (name, Some(device)),
            None => (text, None),
        };
        let mut all = ProviderKind::ALL.iter().copied();
        let kind = all.find(|kind| kind.name().eq_ignore_ascii_case(name));
        let kind = kind.ok_or_else(|| ProviderNameError::Unknown { name: name.into() })?;
        let device = device
            .map(|device| parse_device(kind, device))
            .transpose()?;
        Ok(Self { kind, device })
    }
}

fn parse_device(kind: ProviderKind, text: &str) -> Result<Device, ProviderNameError> {
    let name = kind.name();
    let refused = |remedy: String| ProviderNameError::Device {
        provider: name,
        device: text.into(),
        remedy,
    };
    let is_word = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
    match kind.device_syntax() {
        DeviceSyntax::None => Err(refused(format!(
            "write {name} alone, because it has no devices to choose from"
        ))),
        DeviceSyntax::Number => text.parse().map(Device::Number).map_err(|_| {
            refused(format!(
                "write the number of the device, from 0 on, as in {name}:0, or several with + between them, as in \
                 {name}:0+1"
            ))
        }),
        DeviceSyntax::Word(_) if is_word => Ok(Device::Word(text.into())),
        DeviceSyntax::Word(words) => Err(refused(format!(
            "write the name of the device behind {name}: and without blanks, such as {words}"
        ))),
    }
}

/// All names, for a person who has misspelt one.
fn provider_names() -> String {
    let names: Vec<&str> = ProviderKind::ALL.iter().map(|kind| kind.name()).collect();
    names.join(", ")
}

impl fmt::Display for ExecutionProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            None => write!(f, "{}", self.kind),
            Some(Device::Number(number)) => write!(f, "{}:{number}", self.kind),
            Some(Device::Word(word)) => write!(f, "{}:{word}", self.kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ExecutionProvider, String> {
        text.parse()
            .map_err(|error: ProviderNameError| error.to_string())
    }

    #[test]
    fn every_provider_is_printed_as_it_is_written() {
        for kind in ProviderKind::ALL {
            assert_eq!(parse(kind.name()).unwrap().to_string(), kind.name());
        }
        for text in [
            "cuda:1",
            "openvino:GPU.1",
            "tensorrt-rtx:0",
            "coreml:CPUAndGPU",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("CUDA").unwrap().to_string(), "cuda");
        assert!(parse("cpu").unwrap().is_cpu());
    }

    #[test]
    fn a_misspelt_name_is_refused_with_the_list() {
        let error = parse("cudda").unwrap_err();
        assert!(error.starts_with(
            "there is no execution provider \"cudda\"; use one of cpu, cuda, tensorrt,"
        ));
        assert!(
            error.contains("openvino") && error.contains("directml"),
            "{error}"
        );
    }

    #[test]
    fn a_device_that_is_none_is_refused_with_what_can_be_written() {
        assert!(parse("cuda:first").unwrap_err().contains("as in cuda:0"));
        assert!(parse("cuda:").unwrap_err().contains("as in cuda:0"));
        assert!(parse("cpu:0").unwrap_err().contains("write cpu alone"));
        assert!(parse("openvino:").unwrap_err().contains("such as CPU, GPU"));
        assert!(
            parse("openvino:GPU 1")
                .unwrap_err()
                .contains("without blanks")
        );
    }

    #[test]
    fn a_device_with_a_memory_of_its_own_is_told_from_the_processor() {
        let uses_processor = |text: &str| parse(text).unwrap().uses_processor();
        assert!(
            uses_processor("cpu") && uses_processor("openvino") && uses_processor("openvino:CPU")
        );
        assert!(!uses_processor("cuda:1") && !uses_processor("openvino:GPU"));
    }
}
