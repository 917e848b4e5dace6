//! Models of servers: OpenAI, Cohere, Voyage, Ollama, and all who speak one of their protocols.

mod model;
mod service;
mod services;
mod skeleton;
mod fleet {
    pub(super) use super::skeleton::*;
}
mod options {
    pub(super) use super::skeleton::*;
}
mod error {
    pub(super) use super::skeleton::*;
}

pub(crate) use model::RemoteModel;
pub(crate) use services::RemoteServices;
pub use skeleton::{RemoteError, RemoteOptions};
