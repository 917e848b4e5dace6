//! A model of a server, under the options of a job.

use std::sync::Arc;

use super::options::RemoteOptions;
use super::service::RemoteService;
use super::window::Window;
use crate::embedding::role::TextRole;
use crate::embedding::scheduler::Scheduled;

/// A model of a server: how it is used, and the service that has it.
pub(crate) struct RemoteModel {
    options: RemoteOptions,
    dimensions: usize,
    identity: String,
    /// What tells its vectors from others, for each role.
    of_queries: String,
    of_documents: String,
    /// Where the job has named a tokenizer.
    window: Option<Window>,
    service: Arc<RemoteService>,
}

impl RemoteModel {
    /// A model whose vectors have so many dimensions, as the service has shown.
    pub(super) fn new(
        options: RemoteOptions,
        dimensions: usize,
        window: Option<Window>,
        service: Arc<RemoteService>,
    ) -> Self {
        // A list in JSON, so that no two lists are one text.
        let joined = |role| serde_json::Value::from(options.identity_of(role)).to_string();
        Self {
            dimensions,
            identity: options.identity(),
            of_queries: joined(TextRole::Query),
            of_documents: joined(TextRole::Document),
            options,
            window,
            service,
        }
    }

    /// What is sent for a text, and whether it is less than the text.
    pub(super) fn fit(&self, text: &Arc<str>) -> (Arc<str>, bool) {
        match &self.window {
            Some(window) => window.fit(text),
            None => (text.clone(), false),
        }
    }

    pub(crate) fn options(&self) -> &RemoteOptions {
        &self.options
    }

    /// The length of every vector.
    pub(crate) fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// See [`Model::identity`](crate::embedding::Model::identity).
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    pub(crate) fn service(&self) -> &Arc<RemoteService> {
        &self.service
    }
}

impl Scheduled for RemoteModel {
    /// Nothing is done to a text before it is sent.
    type Ready = std::convert::Infallible;

    /// Some providers are told the role once for all texts of a request.
    const MIXES_ROLES: bool = false;

    fn identity_of(&self, role: TextRole) -> [&str; 2] {
        match role {
            TextRole::Query => ["remote", &self.of_queries],
            TextRole::Document => ["remote", &self.of_documents],
        }
    }
}
