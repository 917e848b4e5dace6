//! The thread of the server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::api::Api;
use super::connections::{Connections, Serving};
use super::listen::{Listen, ListenError};
use super::page::Page;
use super::rendered::Rendered;
use super::routes::{self, Content};
use super::shared::Shared;
use crate::status::StatusBoard;

/// The most connections at a time: each is an open file, of which a process may have 1,024 by default. For a further
/// one, one that waits for a request is closed; otherwise it waits in the queue of the system.
const MAX_CONNECTIONS: usize = 256;
/// How long such a connection may take to end before another one is closed.
const CLOSING_TIME: Duration = Duration::from_millis(100);
/// The pause after the system has refused a connection, as when there are too many open files.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// The server. It ends when the value is dropped.
pub struct HttpServer {
    address: SocketAddr,
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Listens and answers with what is on the board. `stop` says that the daemon is told to stop, which `/readyz`
    /// passes on.
    ///
    /// # Errors
    /// The address cannot be used, or others could read without a token.
    pub fn start(
        listen: Listen,
        board: StatusBoard,
        stop: CancellationToken,
    ) -> Result<HttpServer, ListenError> {
        Self::start_with(listen, Some(board), None, stop)
    }

    /// As [`HttpServer::start`], with models for programs, if there are any, and without a board, if there are no jobs.
    ///
    /// # Errors
    /// Those of [`HttpServer::start`].
    pub fn start_with(
        listen: Listen,
        board: Option<StatusBoard>,
        api: Option<Api>,
        stop: CancellationToken,
    ) -> Result<HttpServer, ListenError> {
        let listener = listen.bind()?;
        let address = listener.local_addr().map_err(ListenError::Start)?;
        let access = Access {
            is_local: listen.address.is_local(),
            token: listen.token,
        };
        let shared = board.map(|board| Shared {
            board,
            stop,
            started: Instant::now(),
            page: Page::new(),
            metrics: Rendered::default(),
            status: Rendered::default(),
        });
        let content = Content {
            shared: shared.map(Arc::new),
            api: api.map(Arc::new),
        };
        let end = CancellationToken::new();
        let serving = Serving {
            router: routes::router(content, access),
            tls: listen.tls.map(|identity| identity.acceptor()),
            connections: Connections::default(),
            end: end.clone(),
        };
        let thread = run(listener, serving).map_err(ListenError::Start)?;
        Ok(HttpServer {
            address,
            end,
            thread: Some(thread),
        })
    }

    /// Where it listens, with the port that it has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpServer {
    /// Requests that are worked on are answered first.
    fn drop(&mut self) {
        self.end.cancel();
        let ended = self.thread.take().map(JoinHandle::join);
        if matches!(ended, Some(Err(_))) {
            tracing::error!("the HTTP server has panicked");
        }
    }
}

/// Starts the thread that serves this listener.
fn run(listener: std::net::TcpListener, serving: Serving) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let work = move || {
        let served = runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            let mut tasks = JoinSet::new();
            let end = serving.end.clone();
            end.run_until_cancelled(accept(&listener, &serving, &mut tasks))
                .await;
            drop(listener);
            while tasks.join_next().await.is_some() {}
            io::Result::Ok(())
        });
        if let Err(error) = served {
            tracing::error!("the HTTP server ends: {error}");
        }
    };
    thread::Builder::new()
        .name("lantern-http".into())
        .spawn(work)
}

/// Takes connections for as long as it is polled.
async fn accept(listener: &TcpListener, serving: &Serving, tasks: &mut JoinSet<()>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(place) = free_place(&places, serving).await else {
                    return;
                };
                tasks.spawn(serving.clone().serve(stream, place));
            }
            Err(error) => {
                tracing::debug!("a connection of the HTTP server is refused: {error}");
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

/// A place for a connection, for which others that wait for a request are closed.
async fn free_place(places: &Arc<Semaphore>, serving: &Serving) -> Option<OwnedSemaphorePermit> {
    loop {
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Some(place);
        }
        serving.connections.close_longest_idle();
        let freed = timeout(CLOSING_TIME, places.clone().acquire_owned());
        if let Ok(place) = freed.await {
            return place.ok();
        }
    }
}
