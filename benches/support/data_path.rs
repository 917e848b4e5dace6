//! Data paths for the daemon: models and ONNX Runtime.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::tiny_model::Model;

/// What `make setup` has fetched.
pub fn runtime() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime")
}

/// The same and the tests' tiny model beside it. It runs through ONNX Runtime as any other, but so fast that everything else
/// shows.
pub fn with_tiny_model() -> tempfile::TempDir {
    let data = tempfile::tempdir().expect("a temporary folder");
    let models = data.path().join("models");
    let link = |name: &str| symlink(runtime().join(name), data.path().join(name)).expect("a link");
    fs::create_dir(&models).expect("a folder");
    link("lib");
    link("models/sentence-transformers");
    Model::One.write_to(&models).expect("the model is written");
    data
}
