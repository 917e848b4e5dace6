//! The thread of the server, and the limits of its connections.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::listen::{Listen, ListenError};
use super::page::Page;
use super::rendered::Rendered;
use super::routes;
use super::shared::Shared;
use crate::status::StatusBoard;

/// The most connections at a time. Further ones wait in the queue of the system.
const MAX_CONNECTIONS: usize = 64;
/// How long the head of a request may take, or a connection wait for one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of the head of a request.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// After this time a connection takes no further request.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(60);
/// How long the last answer of such a connection may take. Who reads more slowly is cut off.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
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
        let listener = listen.bind()?;
        let address = listener.local_addr().map_err(ListenError::Start)?;
        let shared = Shared {
            board,
            stop,
            is_local: listen.address.is_local(),
            token: listen.token,
            started: Instant::now(),
            page: Page::new(),
            metrics: Rendered::default(),
            status: Rendered::default(),
        };
        let router = routes::router(Arc::new(shared));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ListenError::Start)?;
        let end = CancellationToken::new();
        let ended = end.clone();
        let serving = move || {
            let served = runtime.block_on(async {
                let listener = TcpListener::from_std(listener)?;
                ended.run_until_cancelled(accept(listener, router)).await;
                io::Result::Ok(())
            });
            if let Err(error) = served {
                tracing::error!("the HTTP server ends: {error}");
            }
        };
        let thread = thread::Builder::new().name("lantern-http".into());
        let thread = thread.spawn(serving).map_err(ListenError::Start)?;
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
    fn drop(&mut self) {
        self.end.cancel();
        // Its tasks only wait, so this takes a moment.
        let ended = self.thread.take().map(JoinHandle::join);
        if matches!(ended, Some(Err(_))) {
            tracing::error!("the HTTP server has panicked");
        }
    }
}

/// Takes connections for as long as it is polled.
async fn accept(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    serve(stream, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("a connection of the HTTP server is refused: {error}");
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

/// Answers the requests of a connection. An error is the client's: it left, or sent what is no request.
async fn serve(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if let Ok(ended) = timeout(MAX_CONNECTION_AGE, connection.as_mut()).await {
        return debug(ended);
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = timeout(LAST_ANSWER_TIMEOUT, connection).await {
        debug(ended);
    }
}

fn debug(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!("a connection of the HTTP server has ended: {error}");
    }
}
