//! What the benchmarks share beside the [`testkit`]: a server with a session of the product, a daemon on it, the model
//! without anything around it.

#![allow(dead_code, reason = "each benchmark needs a part of it")]

pub mod bare;
pub mod passages;
pub mod server;
pub mod stage;
pub mod writer;

use testkit::Program;

/// The program that is measured, with what `make setup` has fetched.
pub fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_lantern-cli"))
}

/// An environment variable with which a daemon drops each text instead of embedding it (see `src/failpoint.rs`). The
/// capture runs at its own pace then, and leaves the processors to the users.
pub const WITHOUT_INFERENCE: (&str, &str) = ("FAILPOINTS", "batcher-lets-go=return");
