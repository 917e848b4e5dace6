//! Models that run in this process, on ONNX Runtime.
//!
//! ```text
//!  text ──▶ tokenizer ──▶ session ──▶ pooling, dense, matryoshka ──▶ vector
//!           └── settings: window, prompts ──┘
//! ```
//!
//! A [`base::ModelBase`] is what all options of a model share: session, tokenizer, identity. A [`loaded::LoadedModel`] is one
//! set of options on it. [`worker`] is an inference thread. [`provider`] is what runs a session. A model has one or more
//! [`devices`], the processor or others; an [`assignment`] is a run that one of them was given, and [`recovery`] what
//! becomes of a batch that it does not compute.

pub(super) mod assignment;
pub(super) mod base;
pub(super) mod batch;
pub(super) mod dense;
pub(super) mod device;
pub(super) mod devices;
pub(super) mod loaded;
pub(super) mod matryoshka;
pub(super) mod opening;
pub(super) mod patterns;
pub(super) mod pooling_nodes;
pub(super) mod provider;
pub(super) mod recovery;
pub(super) mod runtime;
pub(super) mod session;
pub(super) mod settings;
pub(super) mod signature;
pub(super) mod tokenizer;
pub(super) mod turns;
pub(super) mod wire;
pub(super) mod word_counts;
pub(super) mod word_rule;
pub(super) mod worker;
