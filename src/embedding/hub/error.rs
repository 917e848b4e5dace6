//! Why a model could not be downloaded, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::embedding::https::innermost;
use crate::embedding::name::ModelName;

/// A model could not be downloaded.
#[derive(Debug, Clone, thiserror::Error)]
#[error("model {} cannot be downloaded from {endpoint}: {failure}{}", .name.as_written(), Hint(.hint))]
pub struct DownloadError {
    /// The model.
    pub name: ModelName,
    /// The hub, without what is secret in its URL.
    pub endpoint: String,
    /// What went wrong.
    pub failure: DownloadFailure,
    /// What the name may have been meant to be.
    pub hint: Option<String>,
}

struct Hint<'a>(&'a Option<String>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// What went wrong with a download. Each message is a cause and a remedy.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DownloadFailure {
    /// The publishers want their terms accepted first.
    #[error(
        "its publishers ask for consent to their terms; accept them on {page}, and set HF_TOKEN to a token of that account"
    )]
    Gated {
        /// The page with the terms.
        page: String,
    },
    /// There is no such repository, or none that this user may see.
    #[error(
        "there is no repository {repository}, or it is private; check the name, or set HF_TOKEN to a token that may read it"
    )]
    NoRepository {
        /// The repository.
        repository: String,
    },
    /// The hub does not know the token.
    #[error("the token is refused; set HF_TOKEN to a valid one, or unset it for a public model")]
    TokenRefused,
    /// The repository has no such branch, tag or commit.
    #[error(
        "its repository has no revision {revision}; name a branch, a tag or a commit of it behind the @"
    )]
    NoRevision {
        /// What was asked for.
        revision: String,
    },
    /// The repository lacks a file.
    #[error("its repository has no file {file}{}", Graphs(.graphs))]
    NoFile {
        /// What was asked for.
        file: String,
        /// The graphs that it has.
        graphs: Vec<String>,
    },
    /// The repository has no graph to run.
    #[error(
        "its repository has no ONNX export (looked for {}){}; create one with `optimum-cli export onnx --model {repository} \
         FOLDER`, put it into the model folder as {repository}, or use a repository that has one",
        .looked_for.join(", "),
        Graphs(.graphs)
    )]
    NoGraph {
        /// The repository.
        repository: String,
        /// The files that were looked for.
        looked_for: Vec<String>,
        /// The graphs that it has under other names.
        graphs: Vec<String>,
    },
    /// The disk is too small.
    #[error(
        "{} has no room for it: {needed} MB are needed, {free} MB are free; make room, or set HF_HUB_CACHE to a folder on \
         another disk",
        .folder.display()
    )]
    NoSpace {
        /// The folder for downloads.
        folder: PathBuf,
        /// Megabytes that the download still needs.
        needed: u64,
        /// Megabytes that are free.
        free: u64,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}; check the disk, and that this user may write there", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
    /// The hub was not reached, or did not answer.
    #[error(
        "no answer ({reason}); check the network, HTTPS_PROXY and HF_ENDPOINT, or copy the model into the model folder"
    )]
    Unreachable {
        /// The innermost error.
        reason: String,
    },
    /// The connection ended in the middle of a file, again and again.
    #[error(
        "the connection was cut at {file} ({reason}); what has arrived is kept, and the next attempt continues there"
    )]
    Cut {
        /// The file.
        file: String,
        /// The innermost error.
        reason: String,
    },
    /// Too many requests.
    #[error(
        "the hub has had too many requests from here (429); wait a while, or set HF_TOKEN, which raises the limit"
    )]
    TooManyRequests {
        /// How long to wait, if the hub says so.
        retry_after: Option<Duration>,
    },
    /// The hub is out of order.
    #[error(
        "the hub has a failure of its own (status {status}), which should pass; try again later"
    )]
    OutOfOrder {
        /// The HTTP status.
        status: u16,
    },
    /// Any other answer.
    #[error("{what}; check that HF_ENDPOINT is a hub")]
    Unexpected {
        /// What was answered.
        what: String,
    },
    /// What was received is not what was published.
    #[error(
        "{file} arrived damaged, twice: its checksum is {found} and not {expected}; look for a proxy that changes downloads, \
         or try again"
    )]
    WrongChecksum {
        /// The file.
        file: String,
        /// The published checksum.
        expected: String,
        /// The one of what was received.
        found: String,
    },
}

/// The graphs that there are instead.
struct Graphs<'a>(&'a [String]);

impl fmt::Display for Graphs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            graphs => write!(
                f,
                "; it has {}: choose one with a colon behind the model's name",
                graphs.join(", ")
            ),
        }
    }
}

impl DownloadFailure {
    /// Whether waiting helps, without a change by a person.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Cut { .. }
                | Self::TooManyRequests { .. }
                | Self::OutOfOrder { .. }
        )
    }

    pub(super) fn write(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Write {
            path: path.into(),
            source: Arc::new(source),
        }
    }

    /// The error of a request. Its URL stays out of the message: that of a storage host is a key to the file.
    pub(super) fn request(error: reqwest::Error) -> Self {
        Self::Unreachable {
            reason: innermost(&error.without_url()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_tried_again_where_waiting_helps() {
        let file = || "model.onnx".to_owned();
        let transient = [
            DownloadFailure::Unreachable { reason: file() },
            DownloadFailure::TooManyRequests { retry_after: None },
            DownloadFailure::OutOfOrder { status: 503 },
        ];
        assert!(transient.iter().all(DownloadFailure::is_transient));
        let permanent = [
            DownloadFailure::TokenRefused,
            DownloadFailure::NoRevision { revision: file() },
            DownloadFailure::Unexpected { what: file() },
        ];
        assert!(!permanent.iter().any(DownloadFailure::is_transient));
    }

    #[test]
    fn a_repository_without_the_usual_graph_names_those_that_it_has() {
        let error = DownloadError {
            name: "acme/own".parse().unwrap(),
            endpoint: "https://hub".into(),
            failure: DownloadFailure::NoGraph {
                repository: "acme/own".into(),
                looked_for: vec!["model.onnx".into(), "onnx/model.onnx".into()],
                graphs: vec!["onnx/model_int8.onnx".into()],
            },
            hint: None,
        };
        let sentence = error.to_string();
        assert!(
            sentence.starts_with(
                "model acme/own cannot be downloaded from https://hub: its repository has no ONNX export \
                 (looked for model.onnx, onnx/model.onnx); it has onnx/model_int8.onnx: choose one"
            ),
            "{sentence}"
        );
    }
}
