//! What a model consists of on the disk.
//!
//! [`model_files`] reads the configuration that sentence-transformers writes, [`modules`] its list of steps,
//! [`tasks`] what its texts may be for. [`identity`] hashes what decides vectors.

pub(super) mod external_data;
pub(super) mod folder;
pub(super) mod identity;
pub(super) mod model_files;
pub(super) mod modules;
pub(super) mod tasks;
