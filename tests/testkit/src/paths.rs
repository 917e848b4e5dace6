//! Where things are in the checkout.

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
