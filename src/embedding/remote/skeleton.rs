#![allow(warnings)]
use crate::embedding::options::InvalidOptions;
use crate::embedding::role::TextRole;
use std::sync::Arc;
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RemoteOptions;
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServiceKey;
impl RemoteOptions {
    pub const RUNTIMES: [&'static str; 4] = ["openai", "cohere", "voyage", "ollama"];
    pub fn new(
        runtime: &str,
        model: &str,
        parameters: Option<&str>,
    ) -> Result<RemoteOptions, InvalidOptions> {
        todo!()
    }
    pub fn servers(&self) -> &[reqwest::Url] {
        todo!()
    }
    pub fn has_default_servers(&self) -> bool {
        todo!()
    }
    pub fn key_variable(&self) -> Option<&str> {
        todo!()
    }
    pub fn has_key(&self) -> bool {
        todo!()
    }
    pub fn with_key(self, key: String) -> Result<RemoteOptions, InvalidOptions> {
        todo!()
    }
    pub fn model(&self) -> &str {
        todo!()
    }
    pub fn runtime(&self) -> &'static str {
        todo!()
    }
    pub fn identity_of(&self, role: TextRole) -> Vec<String> {
        todo!()
    }
    pub fn identity(&self) -> String {
        todo!()
    }
    pub fn decides_vectors(key: &str) -> bool {
        todo!()
    }
    pub fn service_key(&self) -> ServiceKey {
        todo!()
    }
    pub fn max_in_flight(&self) -> usize {
        todo!()
    }
    pub fn max_batch(&self) -> usize {
        todo!()
    }
    pub fn max_batch_tokens(&self) -> usize {
        todo!()
    }
    pub fn price_per_million(&self) -> Option<f64> {
        todo!()
    }
}
pub(crate) fn estimate_tokens(text: &str) -> usize {
    todo!()
}
pub(crate) struct Fleet;
impl Fleet {
    pub(crate) fn new(options: &RemoteOptions) -> Result<Fleet, RemoteError> {
        todo!()
    }
    pub(crate) async fn ready(&self) {
        todo!()
    }
    pub(crate) async fn embed_each(
        &self,
        options: &RemoteOptions,
        role: TextRole,
        texts: &[Arc<str>],
    ) -> Result<Vec<Result<RemoteVector, RemoteError>>, RemoteError> {
        todo!()
    }
    pub(crate) async fn probe(&self, options: &RemoteOptions) -> Result<usize, RemoteError> {
        todo!()
    }
}
pub(crate) struct RemoteVector {
    pub vector: Vec<f32>,
    pub is_truncated: bool,
    pub tokens: u64,
}
#[derive(Clone, Debug, thiserror::Error)]
#[error("x")]
pub struct RemoteError;
impl RemoteError {
    pub fn is_transient(&self) -> bool {
        todo!()
    }
    pub fn is_refusal(&self) -> bool {
        todo!()
    }
    pub fn concerns_one_text(&self) -> bool {
        todo!()
    }
}
