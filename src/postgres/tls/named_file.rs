//! A file of certificates or of a key, and who named it.

use std::path::{Path, PathBuf};

/// A file that a connection string names, or that is its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedFile {
    /// Named by the operator. An error says what is wrong with it.
    Operators(PathBuf),
    /// Named by a jobs row, whose author must not learn by it which files there are on this machine.
    Jobs {
        /// As the row has it.
        path: PathBuf,
        /// The keyword by which it is named.
        keyword: &'static str,
        /// The operator's folder of files that jobs may use. Without one there are none.
        below: Option<PathBuf>,
    },
}

impl NamedFile {
    /// The path, as it was given.
    pub fn path(&self) -> &Path {
        match self {
            NamedFile::Operators(path) | NamedFile::Jobs { path, .. } => path,
        }
    }

    /// Allows a file that a jobs row names if it is below this folder.
    pub(super) fn allow_below(&mut self, folder: &Path) {
        if let NamedFile::Jobs { below, .. } = self {
            *below = Some(folder.to_owned());
        }
    }
}
