//! Where things are in the checkout.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the checkout: the package's folder is `tests/testkit`.
pub fn checkout() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .ancestors()
        .nth(2)
        .expect("the package is two folders below the root")
}

/// What `make setup` has fetched: models, ONNX Runtime and PostgreSQL. The data path of the daemons under test.
pub fn runtime() -> PathBuf {
    checkout().join(".runtime")
}

/// The text of a file in the checkout, by its path from the root.
///
/// # Panics
///
/// Where it cannot be read.
pub fn read(path: &str) -> String {
    let path = checkout().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
