//! Data paths for daemons: models and ONNX Runtime.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use crate::paths::runtime;
use crate::tiny_model::TinyModel;

/// What `make setup` has fetched, and the tiny models beside the default one.
///
/// # Panics
///
/// Where it cannot be written.
pub fn with_tiny_models() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_to(folder.path()).expect("the models are written");
    folder
}

fn write_to(folder: &Path) -> io::Result<()> {
    let models = folder.join("models");
    fs::create_dir(&models)?;
    for part in ["lib", "models/sentence-transformers"] {
        symlink(runtime().join(part), folder.join(part))?;
    }
    for model in TinyModel::ALL {
        model.write_to(&models)?;
    }
    Ok(())
}
