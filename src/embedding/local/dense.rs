//! The dense layer that some models have after pooling.
//!
//! It is the `Dense` module of sentence-transformers: a folder with `config.json` (sizes and activation) and
//! `model.safetensors` (tensors `linear.weight`, of shape `[out_features, in_features]`, and optionally `linear.bias`).
//! The `safetensors` crate reads the container and checks that its header and its data agree. This file checks that the
//! tensors are those that the configuration promises, so that [`Dense::apply`] cannot fail on a damaged file.

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors};
use serde::Deserialize;

use crate::embedding::error::EmbeddingError;
use crate::embedding::files::folder::read_json;

const WEIGHT: &str = "linear.weight";
const BIAS: &str = "linear.bias";

/// A layer that computes `activation(weight · x + bias)`.
pub(crate) struct Dense {
    /// Row-major `[outputs, inputs]`.
    weight: Vec<f32>,
    /// One value for each output.
    bias: Option<Vec<f32>>,
    /// Length of the vectors that it takes; never 0.
    inputs: usize,
    activation: Activation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activation {
    Identity,
    Tanh,
    Relu,
}

/// `config.json` of the layer.
#[derive(Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default = "default_activation")]
    activation_function: String,
}

/// The default of `sentence_transformers.models.Dense`.
fn default_activation() -> String {
    "torch.nn.modules.activation.Tanh".into()
}

/// The length of the vectors that the layer in this folder computes; `None` if its configuration is missing.
pub(crate) fn out_features(folder: &Path) -> Result<Option<usize>, EmbeddingError> {
    Ok(read_json::<DenseConfig>(&folder.join("config.json"))?.map(|config| config.out_features))
}

impl Dense {
    /// Reads `config.json` and `model.safetensors` of the layer's folder.
    ///
    /// # Errors
    ///
    /// Names the file and what is wrong with it.
    pub(crate) fn load(folder: &Path) -> Result<Self, EmbeddingError> {
        let path = folder.join("config.json");
        let config: DenseConfig = read_json(&path)?.ok_or_else(|| {
            EmbeddingError::unusable(
                &path,
                "it does not exist, and modules.json names its folder: download the model again, or copy this file too",
            )
        })?;
        let activation = config
            .activation()
            .map_err(|reason| EmbeddingError::unusable(&path, reason))?;

        let path = folder.join("model.safetensors");
        if !path.is_file() {
            return Err(EmbeddingError::unusable(
                &path,
                "it does not exist; save the layer's weights as safetensors",
            ));
        }
        let bytes = std::fs::read(&path).map_err(|error| EmbeddingError::io(&path, error))?;
        let (weight, bias) = read_tensors(&bytes, &config)
            .map_err(|reason| EmbeddingError::unusable(&path, reason))?;
        Ok(Self {
            weight,
            bias,
            inputs: config.in_features,
            activation,
        })
    }

    /// Applies the layer; `None` if the vector does not have the layer's input length.
    pub(crate) fn apply(&self, vector: &[f32]) -> Option<Vec<f32>> {
        if vector.len() != self.inputs {
            return None;
        }
        let mut result: Vec<f32> = self
            .weight
            .chunks_exact(self.inputs)
            .map(|row| {
                row.iter()
                    .zip(vector)
                    .map(|(weight, value)| weight * value)
                    .sum()
            })
            .collect();
        if let Some(bias) = &self.bias {
            result
                .iter_mut()
                .zip(bias)
                .for_each(|(value, bias)| *value += bias);
        }
        for value in &mut result {
            *value = match self.activation {
                Activation::Identity => *value,
                Activation::Tanh => value.tanh(),
                Activation::Relu => value.max(0.0),
            };
        }
        Some(result)
    }
}

impl DenseConfig {
    /// The activation, by the last part of its Python name.
    fn activation(&self) -> Result<Activation, String> {
        match self.activation_function.rsplit('.').next() {
            Some("Identity") => Ok(Activation::Identity),
            Some("Tanh") => Ok(Activation::Tanh),
            Some("ReLU") => Ok(Activation::Relu),
            _ => Err(format!(
                "activation {} is not supported (Identity, Tanh and ReLU are)",
                self.activation_function
            )),
        }
    }
}

/// Weight and bias of the configured sizes.
fn read_tensors(
    bytes: &[u8],
    config: &DenseConfig,
) -> Result<(Vec<f32>, Option<Vec<f32>>), String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| {
        format!("it is damaged or not a safetensors file ({error}); download it again")
    })?;
    let (inputs, outputs) = (config.in_features, config.out_features);
    if inputs == 0 || outputs == 0 {
        return Err(format!(
            "its config.json gives the layer {inputs} inputs and {outputs} outputs; both must be at least 1"
        ));
    }
    let weight = read_tensor(&tensors, WEIGHT, &[outputs, inputs])?
        .ok_or_else(|| format!("it has no tensor {WEIGHT}"))?;
    let bias = read_tensor(&tensors, BIAS, &[outputs])?;
    Ok((weight, bias))
}

/// The values of a float32 tensor, or `None` if the file does not have it.
fn read_tensor(
    tensors: &SafeTensors<'_>,
    name: &str,
    shape: &[usize],
) -> Result<Option<Vec<f32>>, String> {
    let tensor = match tensors.tensor(name) {
        Ok(tensor) => tensor,
        Err(SafeTensorError::TensorNotFound(_)) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if tensor.dtype() != Dtype::F32 {
        return Err(format!(
            "tensor {name} has type {}; only F32 is supported, so export the model as float32",
            tensor.dtype()
        ));
    }
    if tensor.shape() != shape {
        return Err(format!(
            "tensor {name} has shape {:?}, but config.json says {shape:?}",
            tensor.shape()
        ));
    }
    // The data of a tensor need not be aligned for f32, so it is copied rather than cast.
    let (values, _) = tensor.data().as_chunks::<4>();
    Ok(Some(
        values
            .iter()
            .map(|value| f32::from_le_bytes(*value))
            .collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"__metadata__":{"format":"pt"},
        "linear.bias":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},
        "linear.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;

    /// A layer with two inputs and one output: weight (2, -1), bias 0.5.
    fn tensors(header: &str) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        for value in [2.0f32, -1.0, 0.5] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    fn load(config: &str, tensors: &[u8]) -> Result<Dense, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), tensors).unwrap();
        Dense::load(folder.path()).map_err(|error| error.to_string())
    }

    fn config(activation: &str) -> String {
        format!(
            r#"{{"in_features":2,"out_features":1,"activation_function":"torch.nn.{activation}"}}"#
        )
    }

    /// The error message for a damaged file.
    fn rejected(config: &str, tensors: &[u8]) -> String {
        let error = load(config, tensors).err().expect("the layer is unusable");
        assert!(error.starts_with("model file /"), "{error}");
        error
    }

    #[test]
    fn a_dense_layer_multiplies_adds_and_activates() {
        let identity = load(&config("Identity"), &tensors(HEADER)).unwrap();
        assert_eq!(identity.apply(&[1.0, 3.0]), Some(vec![-0.5]));
        assert_eq!(identity.apply(&[1.0]), None);
        let tanh = load(&config("Tanh"), &tensors(HEADER)).unwrap();
        assert_eq!(tanh.apply(&[1.0, 3.0]), Some(vec![(-0.5f32).tanh()]));
        let relu = load(&config("ReLU"), &tensors(HEADER)).unwrap();
        assert_eq!(relu.apply(&[1.0, 3.0]), Some(vec![0.0]));
        let default = load(r#"{"in_features":2,"out_features":1}"#, &tensors(HEADER)).unwrap();
        assert_eq!(default.activation, Activation::Tanh);
    }

    #[test]
    fn the_bias_is_optional() {
        let header = r#"{"linear.weight":{"dtype":"F32","shape":[1,3],"data_offsets":[0,12]}}"#;
        let config = r#"{"in_features":3,"out_features":1,"activation_function":"Identity"}"#;
        let layer = load(config, &tensors(header)).unwrap();
        assert_eq!(layer.apply(&[1.0, 1.0, 1.0]), Some(vec![1.5]));
    }

    #[test]
    fn an_unusable_layer_is_rejected_with_the_file_and_the_reason() {
        let whole = tensors(HEADER);
        let cut = rejected(&config("Identity"), &whole[..whole.len() - 4]);
        assert!(
            cut.contains("model.safetensors") && cut.contains("download it again"),
            "{cut}"
        );
        let activation = rejected(&config("Softplus"), &whole);
        assert!(activation.contains("config.json") && activation.contains("torch.nn.Softplus"));
        let half = rejected(&config("Identity"), &tensors(&HEADER.replace("F32", "I32")));
        assert!(half.contains("tensor linear.weight has type I32"), "{half}");
        let nameless = rejected(
            &config("Identity"),
            &tensors(&HEADER.replace(".weight", ".w")),
        );
        assert!(
            nameless.contains("it has no tensor linear.weight"),
            "{nameless}"
        );
        let turned = rejected(
            &config("Identity"),
            &tensors(&HEADER.replace("[1,2]", "[2,1]")),
        );
        assert!(
            turned.contains("has shape [2, 1], but config.json says [1, 2]"),
            "{turned}"
        );
        let empty = rejected(r#"{"in_features":0,"out_features":1}"#, &whole);
        assert!(empty.contains("0 inputs"), "{empty}");
        rejected(
            r#"{"in_features":18446744073709551615,"out_features":2}"#,
            &whole,
        );
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_file_is_an_error_or_a_layer_but_never_a_panic(
            damage in proptest::collection::vec((0usize..400, proptest::num::u8::ANY), 0..6),
            length in 0usize..400,
        ) {
            let mut bytes = tensors(HEADER);
            for (place, byte) in damage {
                if let Some(damaged) = bytes.get_mut(place) {
                    *damaged = byte;
                }
            }
            bytes.truncate(length);
            let config: DenseConfig = serde_json::from_str(&config("Identity")).unwrap();
            if let Ok((weight, bias)) = read_tensors(&bytes, &config) {
                let layer = Dense { weight, bias, inputs: 2, activation: Activation::Identity };
                assert_eq!(layer.apply(&[1.0, 3.0]).map(|vector| vector.len()), Some(1));
            }
        }
    }
}
