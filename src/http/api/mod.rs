//! The models for programs: texts in, vectors out, in the shapes that clients of OpenAI and of text-embeddings-inference
//! know.
//!
//! ```text
//!  request ──▶ admission ──▶ body ──▶ openai │ tei ──▶ embedding ──▶ engine's queue, before any backfill
//!              429, 413      408, 413  what is asked     tokens, roles      │
//!  answer  ◀── json or base64, made beside the server's thread ◀────────────┘
//! ```
//!
//! A request is one flow of the engine: it shares batches and the cache with all others, and when its client goes away
//! its future is dropped, and its texts leave the queue.
//!
//! | file | holds |
//! | --- | --- |
//! | `routes` | the paths |
//! | `admission` | how much is worked on at a time |
//! | [`limits`] | how much one request may ask |
//! | `body` | reading a request |
//! | `input` | texts and token arrays |
//! | `embedding` | from what is asked to vectors |
//! | `openai`, `models` | `/v1/embeddings`, `/v1/models` |
//! | `tei` | `/embed`, `/info`, `/health` |
//! | `error` | errors in both shapes |

mod admission;
mod body;
mod embedding;
mod error;
mod input;
pub mod limits;
mod models;
mod openai;
mod routes;
mod tei;

use tokio_util::sync::CancellationToken;

use crate::embedding::Engine;
use crate::status::ServedModels;
use admission::Admission;

pub(super) use error::{ApiError, Dialect, Problem};
pub(super) use routes::{probes, routes};

/// What requests need to get vectors.
pub struct Api {
    /// Computes them.
    engine: Engine,
    /// With which models.
    models: ServedModels,
    /// No further request is taken.
    stop: CancellationToken,
    admission: Admission,
}

impl Api {
    /// Answers with these models until `stop`.
    pub fn new(engine: Engine, models: ServedModels, stop: CancellationToken) -> Self {
        Self {
            engine,
            models,
            stop,
            admission: Admission::new(),
        }
    }
    /// Whether there is a model to work with.
    fn is_ready(&self) -> bool {
        !self.models.is_empty()
    }
}
