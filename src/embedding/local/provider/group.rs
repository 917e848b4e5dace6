//! What runs a model: an execution provider, and one or more of its devices, which are used together.

use std::fmt;
use std::str::FromStr;

use super::choice::{ExecutionProvider, ProviderNameError};

/// An execution provider with the devices that are used together: `NAME`, `NAME:DEVICE` or `NAME:DEVICE+DEVICE`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceGroup {
    /// At least one, all of one provider, none of them twice.
    devices: Vec<ExecutionProvider>,
}

impl DeviceGroup {
    /// The processor, which is always there.
    #[must_use]
    pub fn cpu() -> Self {
        ExecutionProvider::CPU.into()
    }

    /// Its devices, of which there is at least one.
    #[must_use]
    pub fn devices(&self) -> &[ExecutionProvider] {
        &self.devices
    }

    /// The first of its devices.
    #[must_use]
    pub fn first(&self) -> &ExecutionProvider {
        &self.devices[0]
    }

    /// Whether several devices are used together.
    #[must_use]
    pub fn has_several(&self) -> bool {
        self.devices.len() > 1
    }

    /// Whether it is ONNX Runtime's own on the processor, which others are measured by.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        self.first().is_cpu()
    }

    /// Whether it computes on the processor, as opposed to devices with a memory of their own.
    #[must_use]
    pub fn uses_processor(&self) -> bool {
        self.first().uses_processor()
    }
}

impl From<ExecutionProvider> for DeviceGroup {
    fn from(device: ExecutionProvider) -> Self {
        Self {
            devices: vec![device],
        }
    }
}

impl FromStr for DeviceGroup {
    type Err = ProviderNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let Some((name, devices)) = text.split_once(':').filter(|(_, all)| all.contains('+'))
        else {
            return Ok(text.parse::<ExecutionProvider>()?.into());
        };
        let parts = devices.split('+').map(|part| format!("{name}:{part}"));
        let devices: Vec<ExecutionProvider> =
            parts.map(|part| part.parse()).collect::<Result<_, _>>()?;
        let apart = |device: &&ExecutionProvider| {
            device.uses_processor() || !device.kind.has_several_devices()
        };
        if let Some(device) = devices.iter().find(apart) {
            return Err(ProviderNameError::Apart {
                group: text.into(),
                device: device.to_string(),
            });
        }
        let mut places = 0..devices.len();
        if let Some(place) = places.find(|place| devices[..*place].contains(&devices[*place])) {
            return Err(ProviderNameError::Twice {
                group: text.into(),
                device: devices[place].to_string(),
            });
        }
        Ok(Self { devices })
    }
}

impl fmt::Display for DeviceGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first())?;
        self.devices[1..]
            .iter()
            .try_for_each(|device| write!(f, "+{}", device.name_of_device()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DeviceGroup, String> {
        text.parse()
            .map_err(|error: ProviderNameError| error.to_string())
    }

    #[test]
    fn devices_that_are_used_together_are_printed_as_they_are_written() {
        for (text, devices) in [
            ("cpu", 1),
            ("cuda:1", 1),
            ("cuda:0+1", 2),
            ("cuda:0+1+3", 3),
            ("openvino:GPU.0+GPU.1", 2),
        ] {
            let group = parse(text).unwrap();
            assert_eq!(
                (group.to_string(), group.devices().len()),
                (text.into(), devices)
            );
        }
        let group = parse(" CUDA:2+0 ").unwrap();
        let devices: Vec<_> = group.devices().iter().map(ToString::to_string).collect();
        assert_eq!(devices, ["cuda:2", "cuda:0"]);
        assert!(!group.uses_processor() && group.has_several());
    }

    #[test]
    fn a_device_that_is_named_twice_is_refused() {
        for text in ["cuda:0+0", "cuda:1+0+01", "openvino:GPU.1+GPU.1"] {
            let error = parse(text).unwrap_err();
            let is_right = error.starts_with(&format!("{text:?} names the device "))
                && error.ends_with("twice; name each device once, as in cuda:0+1");
            assert!(is_right, "{error}");
        }
    }

    #[test]
    fn a_part_that_is_no_device_is_refused_with_what_can_be_written() {
        for text in [
            "cuda:0+",
            "cuda:+1",
            "cuda:0++1",
            "cuda:0+one",
            "cuda:0+cuda:1",
            "cuda:0 + 1",
        ] {
            let error = parse(text).unwrap_err();
            let is_right = error.contains("no device of the execution provider cuda")
                && error.contains("as in cuda:0, or several with + between them, as in cuda:0+1");
            assert!(is_right, "{text}: {error}");
        }
        assert!(parse("cpu:0+1").unwrap_err().contains("write cpu alone"));
        let error = parse("cuda+cpu").unwrap_err();
        assert!(error.contains("there is no execution provider"), "{error}");
    }

    #[test]
    fn only_devices_with_a_memory_of_their_own_are_used_together() {
        for text in [
            "openvino:CPU+GPU",
            "openvino:GPU+CPU",
            "coreml:ALL+CPUAndGPU",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains("cannot be used together with others; name it alone"),
                "{error}"
            );
        }
    }
}
