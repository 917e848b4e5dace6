//! Models elsewhere: texts are sent to servers of OpenAI, Cohere, Voyage, Ollama, or what speaks like one of them.
//!
//! ```text
//!  services ── sender ──▶ fleet ──▶ servers
//!  └ model      └ scheduler, batches
//! ```
//!
//! A [`Fleet`] stands for the servers of one service: it decides which of them gets a batch and when, and what a failure
//! means. It knows nothing of jobs or queues. A `sender` sends it what the jobs that share a key have in their queue.

mod address;
mod answer;
mod batch;
mod breaker;
mod error;
mod exchange;
mod fleet;
mod headers;
mod in_flight;
mod limit_headers;
mod limits;
mod memory;
mod model;
mod numbers;
mod options;
mod parts;
mod patience;
mod probe;
mod provider;
mod request;
mod row;
mod secret;
mod sender;
mod servers;
mod services;
mod shorten;
mod spread;
mod transport;
mod tried;
mod turns;
mod verdict;
mod window;
mod words;

pub use batch::RemoteVector;
pub use error::{RemoteError, RemoteFailure};
pub use fleet::Fleet;
pub(crate) use model::RemoteModel;
pub(crate) use numbers::estimate_tokens;
pub use options::{RemoteOptions, ServiceKey};
pub use patience::Patience;
pub use servers::ServerState;
pub(crate) use services::RemoteServices;
pub(crate) use window::Window;
