//! Downloads models from the Hugging Face hub, or a server with the same interface.
//!
//! ```text
//!  name ─▶ repository: files at a revision ─▶ needed: which of them ─▶ transfer: one file ─▶ cache: link, pin
//!              └──────────────────── client: requests, redirects, answers ────────┘
//! ```
//!
//! | request | for |
//! | --- | --- |
//! | `GET /api/models/{id}/revision/{revision}?blobs=true` | the commit, and each file with size and checksum |
//! | `HEAD /{id}/resolve/{commit}/{file}` | size and checksum, where a mirror does not list them |
//! | `GET /{id}/resolve/{commit}/{file}` | the file; large ones are redirected to storage of another host |
//!
//! A download leaves nothing behind that looks like a model until it is complete: a file is written beside its place,
//! checked, and renamed; the files of a model become visible in its folder only when all of them are there, the graph
//! last; and only then does `refs/` name the commit.
//!
//! # Why not the crate `hf-hub`
//!
//! Its release 1.0 asks for the default features of its HTTP client, and with them for a second cryptography library
//! beside the one that this program uses, with a C compiler to build it. It brings 280 crates, among them a client for
//! another storage protocol. And what matters here it leaves out: it starts a file again after a cut, and does not compare
//! what it received with the checksum. So requests are made with `reqwest`. The variables, the layout of the cache and the
//! locks are those of `huggingface_hub`, so that Python finds what is downloaded here, and the other way round.

mod cache;
mod client;
mod download;
mod error;
mod event;
mod needed;
mod repository;
mod settings;
mod transfer;

pub(crate) use cache::is_commit;
pub use download::Downloaded;
pub(crate) use download::{Hub, Wanted};
pub use error::{DownloadError, DownloadFailure};
pub use event::DownloadEvent;
pub use settings::HubSettings;
