//! The dense layer that some models put behind pooling, and just enough of the safetensors format to read it.
//!
//! Format: eight bytes of header length, little endian; a JSON header with the type, shape and byte range of each
//! tensor; the raw tensors (<https://github.com/huggingface/safetensors>, "Format").

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::error::EmbeddingError;
use super::folder::read_json;

/// A layer `activation(weight · x + bias)`.
pub(crate) struct Dense {
    /// Row-major `[outputs, inputs]`.
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    inputs: usize,
    activation: Activation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activation {
    Identity,
    Tanh,
    Relu,
}

#[derive(Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default = "tanh")]
    activation_function: String,
}

/// What sentence-transformers takes where the file says nothing.
fn tanh() -> String {
    "torch.nn.modules.activation.Tanh".into()
}

#[derive(Deserialize)]
struct TensorEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// The length of the vectors that the layer in this folder makes.
pub(crate) fn out_features(folder: &Path) -> Result<Option<usize>, EmbeddingError> {
    Ok(read_json::<DenseConfig>(&folder.join("config.json"))?.map(|config| config.out_features))
}

impl Dense {
    /// Reads `config.json` and `model.safetensors` of the layer's folder.
    pub(crate) fn load(folder: &Path) -> Result<Self, EmbeddingError> {
        let path = folder.join("config.json");
        let config: DenseConfig = read_json(&path)?
            .ok_or_else(|| EmbeddingError::unusable(&path, "it does not exist"))?;
        let activation = match config.activation_function.rsplit('.').next() {
            Some("Identity") => Activation::Identity,
            Some("Tanh") => Activation::Tanh,
            Some("ReLU") => Activation::Relu,
            _ => {
                let reason = format!("activation {} is not supported", config.activation_function);
                return Err(EmbeddingError::unusable(&path, reason));
            }
        };

        let path = folder.join("model.safetensors");
        if !path.is_file() {
            return Err(EmbeddingError::unusable(
                &path,
                "it does not exist; save the layer's weights as safetensors",
            ));
        }
        let bytes = std::fs::read(&path).map_err(|error| EmbeddingError::io(&path, error))?;
        let mut tensors =
            read_tensors(&bytes).map_err(|reason| EmbeddingError::unusable(&path, reason))?;
        let weight = tensors
            .remove("linear.weight")
            .filter(|weight| weight.len() == config.in_features * config.out_features)
            .ok_or_else(|| {
                EmbeddingError::unusable(&path, "it holds no linear.weight of the configured size")
            })?;
        let bias = tensors.remove("linear.bias");
        if bias
            .as_ref()
            .is_some_and(|bias| bias.len() != config.out_features)
        {
            return Err(EmbeddingError::unusable(
                &path,
                "its linear.bias has not the configured size",
            ));
        }
        Ok(Self {
            weight,
            bias,
            inputs: config.in_features,
            activation,
        })
    }

    /// Applies the layer; `None` where the vector has not the layer's input length.
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

fn read_tensors(bytes: &[u8]) -> Result<HashMap<String, Vec<f32>>, String> {
    const CUT_OFF: &str = "it is cut off";
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or(CUT_OFF)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| CUT_OFF)?;
    let (header, body) = rest.split_at_checked(length).ok_or(CUT_OFF)?;

    let mut header: HashMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|error| error.to_string())?;
    header.remove("__metadata__");
    let mut tensors = HashMap::new();
    for (name, entry) in header {
        let entry: TensorEntry =
            serde_json::from_value(entry).map_err(|error| error.to_string())?;
        if entry.dtype != "F32" {
            return Err(format!(
                "tensor {name} is of type {}; only F32 is supported",
                entry.dtype
            ));
        }
        let (start, end) = entry.data_offsets;
        let raw = body.get(start..end).ok_or(CUT_OFF)?;
        let values: Vec<f32> = raw
            .as_chunks::<4>()
            .0
            .iter()
            .map(|value| f32::from_le_bytes(*value))
            .collect();
        if values.len() != entry.shape.iter().product::<usize>() {
            return Err(format!("tensor {name} has not the size of its shape"));
        }
        tensors.insert(name, values);
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(activation: &str, cut: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            r#"{{"in_features":2,"out_features":1,"activation_function":"torch.nn.{activation}"}}"#
        );
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let header = r#"{"__metadata__":{"format":"pt"},"linear.bias":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},
            "linear.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        [2.0f32, -1.0, 0.5]
            .iter()
            .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        std::fs::write(
            folder.path().join("model.safetensors"),
            &bytes[..bytes.len() - cut],
        )
        .unwrap();
        folder
    }

    #[test]
    fn a_dense_layer_multiplies_adds_and_activates() {
        let identity = Dense::load(folder("Identity", 0).path()).unwrap();
        assert_eq!(identity.apply(&[1.0, 3.0]), Some(vec![-0.5]));
        assert_eq!(identity.apply(&[1.0]), None);
        let tanh = Dense::load(folder("Tanh", 0).path()).unwrap();
        assert_eq!(tanh.apply(&[1.0, 3.0]), Some(vec![(-0.5f32).tanh()]));
    }

    #[test]
    fn a_damaged_or_unknown_layer_is_refused() {
        assert!(Dense::load(folder("Identity", 4).path()).is_err());
        assert!(Dense::load(folder("Softplus", 0).path()).is_err());
    }
}
