//! Models for programs over HTTP, by `lantern-cli serve` and by a daemon with its jobs' models: byte by byte here, and
//! with the official clients in `document`.

mod daemon;
mod document;
mod hostile;
mod limits;
mod openai;
pub mod serve;
mod tei;
mod tls;
mod whole;
