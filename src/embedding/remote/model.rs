//! A model of a server, under the options of a job, and the service that has it.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::fleet::Fleet;
use super::in_flight::InFlight;
use super::options::RemoteOptions;
use super::servers::ServerState;
use super::window::Window;
use crate::embedding::error::EmbeddingError;
use crate::embedding::local::tokenizer::TextTokenizer;
use crate::embedding::role::TextRole;
use crate::embedding::schedule::scheduler::{Scheduled, Scheduler};

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

    /// That of the model of this machine that the job names, if it names one.
    pub(crate) fn tokenizer(&self) -> Option<&TextTokenizer> {
        self.window.as_ref().map(Window::tokenizer)
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

/// One set of servers with one key. It ends when the last model of it is dropped.
pub(crate) struct RemoteService {
    pub(super) fleet: Arc<Fleet>,
    pub(super) scheduler: Arc<Scheduler<RemoteModel>>,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) end: CancellationToken,
    pub(super) requests: Handle,
}

impl RemoteService {
    /// Embeds a first text; returns the length of the vectors.
    ///
    /// Cancellation safe: the request is dropped.
    ///
    /// # Errors
    /// Those of the text.
    pub(super) async fn probe(&self, options: &RemoteOptions) -> Result<usize, EmbeddingError> {
        let (fleet, options) = (self.fleet.clone(), options.clone());
        // On the runtime of all requests: the connection that it opens is kept there.
        let probe = self
            .requests
            .spawn(async move { fleet.probe(&options).await });
        match AbortOnDropHandle::new(probe).await {
            Ok(probed) => Ok(probed?),
            Err(_) => Err(EmbeddingError::ShutDown),
        }
    }

    /// At most so many requests at a time from now on.
    pub(super) fn set_max_in_flight(&self, most: usize) {
        self.in_flight.set_most(most);
    }

    /// The servers as a person sees them.
    pub(crate) fn servers(&self) -> Vec<ServerState> {
        self.fleet.servers()
    }

    /// Why no text can be sent to any of the servers now; `None` while one of them takes texts.
    pub(crate) fn held_up(&self) -> Option<String> {
        let reason = |state: &ServerState| Some(format!("{}: {}", state.server, state.trouble()?));
        let states = self.servers();
        let reasons: Option<Vec<String>> = states.iter().map(reason).collect();
        reasons.map(|reasons| reasons.join("; "))
    }

    pub(crate) fn scheduler(&self) -> &Arc<Scheduler<RemoteModel>> {
        &self.scheduler
    }
}

impl Drop for RemoteService {
    fn drop(&mut self) {
        self.end.cancel();
        self.scheduler.shut_down();
    }
}

impl Scheduled for RemoteModel {
    /// Nothing is done to a text before it is sent.
    type Ready = Infallible;

    /// Some providers are told the role once for all texts of a request.
    fn mixes_roles(&self) -> bool {
        false
    }

    fn identity_of(&self, role: TextRole) -> [&str; 2] {
        match role {
            TextRole::Query => ["remote", &self.of_queries],
            TextRole::Document => ["remote", &self.of_documents],
        }
    }
}
