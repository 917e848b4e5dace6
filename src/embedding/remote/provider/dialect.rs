//! What providers have in common: what is asked, and what is answered.

use std::num::NonZeroUsize;

use super::embedding::Embedding;

/// What is known of a provider.
pub(in super::super) struct Facts {
    /// The `runtime` of a job.
    pub name: &'static str,
    /// Where the provider is, unless `base_url` says otherwise.
    pub server: &'static str,
    /// The path below a host.
    pub path: &'static str,
    /// Whether a `base_url` with a path has the version in it, as the official clients expect it.
    pub base_has_version: bool,
    /// The most texts of a request that the provider takes.
    pub max_inputs: usize,
    /// The most tokens of a request that any of its models takes.
    pub max_tokens: usize,
    /// Texts of a request, unless `max_batch` says otherwise.
    pub batch: usize,
    /// Tokens of a request, unless `max_batch_tokens` says otherwise.
    pub batch_tokens: usize,
    /// Requests at the same time at one server, unless `max_in_flight` says otherwise.
    pub in_flight: usize,
    /// `input_type` of queries and of documents.
    pub input_types: Option<(&'static str, &'static str)>,
    /// Whether the provider cuts texts that are too long if asked to.
    pub cuts: bool,
    /// Whether vectors come as base64, unless `encoding_format` says otherwise.
    pub base64: bool,
    /// Whether `base64` may be asked for.
    pub has_base64: bool,
}

/// What is asked of a provider.
pub(in super::super) struct Call<'a> {
    pub model: &'a str,
    pub dimensions: Option<NonZeroUsize>,
    pub input_type: Option<&'a str>,
    pub base64: bool,
    pub inputs: &'a [&'a str],
    /// Whether the provider shall cut what is too long, instead of refusing it.
    pub cut: bool,
}

/// What a provider answered: as many vectors as it sent, in its own order of texts.
pub(in super::super) struct Parsed {
    /// The place of its text, where the provider says it, and the vector.
    pub vectors: Vec<(Option<usize>, Embedding)>,
    /// Tokens that the provider counted.
    pub tokens: Option<u64>,
}
