//! The servers of one service, shared by all models and jobs of it.
//!
//! ```text
//!  embed_each ─▶ batch ─▶ request ─▶ turn ─▶ exchange ─▶ server
//!                  ▲         ▲                   │
//!                  │         └── again ──────────┤  what passes: at another server first
//!                  └── in parts ─────────────────┘  what the texts may be the cause of
//! ```

use reqwest::{Client, Url};
use tokio::sync::Semaphore;

use super::address::{endpoint, shown_host};
use super::error::{RemoteError, RemoteFailure};
use super::memory::Memory;
use super::options::RemoteOptions;
use super::patience::Patience;
use super::servers::ServerState;
use super::transport::Clients;
use super::turns::Turns;

/// Requests at a server that repeat one, at the same time.
const RETRIES: usize = 2;

/// The servers of one service: connections, breakers, limits.
pub struct Fleet {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) turns: Turns,
    pub(super) memory: Memory,
    /// A permit to repeat a request, so that a storm of refusals is not answered by one of requests.
    pub(super) retries: Semaphore,
    /// A permit to send the probe text.
    pub(super) checks: Semaphore,
    pub(super) patience: Patience,
}

/// One server.
pub(super) struct Endpoint {
    /// The provider and the host.
    pub name: String,
    pub url: Url,
    pub client: Client,
}

impl Fleet {
    /// A fleet of the servers that the options name. Reads certificates, and may block for as long as that takes.
    ///
    /// # Errors
    ///
    /// If HTTPS cannot be used here.
    pub fn new(options: &RemoteOptions) -> Result<Self, RemoteError> {
        Self::with_patience(options, Patience::default())
    }

    /// The same with other times: for tests.
    #[doc(hidden)]
    pub fn with_patience(options: &RemoteOptions, patience: Patience) -> Result<Self, RemoteError> {
        let facts = options.provider.facts();
        let clients = Clients::new().map_err(|failure| RemoteError {
            server: facts.name.into(),
            failure,
        })?;
        let endpoint = |server: &Url| Endpoint {
            name: format!("{} at {}", facts.name, shown_host(server)),
            url: endpoint(server, facts),
            client: clients.of(server),
        };
        let endpoints: Vec<_> = options.servers().iter().map(endpoint).collect();
        Ok(Self {
            turns: Turns::new(endpoints.len(), &patience),
            memory: Memory::default(),
            retries: Semaphore::new(RETRIES * endpoints.len()),
            checks: Semaphore::new(1),
            endpoints,
            patience,
        })
    }

    /// Pends while the limits of the provider allow no further batch.
    ///
    /// Cancellation safe.
    pub async fn ready(&self) {
        self.turns.ready().await;
    }

    /// Requests and answers of each server, and whether it is left out.
    pub fn servers(&self) -> Vec<ServerState> {
        let names = self.endpoints.iter().map(|endpoint| endpoint.name.as_str());
        self.turns.states(names)
    }

    /// An error of a server.
    pub(super) fn error(&self, server: usize, failure: RemoteFailure) -> RemoteError {
        RemoteError {
            server: self.endpoints[server].name.clone(),
            failure,
        }
    }

    /// Why there is no turn at any server.
    pub(super) fn trouble(&self) -> RemoteError {
        let (server, failure) = self.turns.reason().unwrap_or_else(|| {
            let reason = "its limits allow no request for now".into();
            (0, RemoteFailure::Unreachable { reason })
        });
        self.error(server, failure)
    }
}
