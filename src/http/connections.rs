//! The connections of the server, and what one of them may take.
//!
//! Programs keep connections for their next request, so most of them wait. When there is no room for a further one, the
//! connection that has waited longest is closed, as HTTP allows at any time between requests: neither a pool of a client
//! nor one that never sends a request keeps monitoring out.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection waits for a request, and the head of that may take. Longer than clients keep connections that
/// they do not use: otherwise one may send a request just when its connection is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The most bytes of the head of a request.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// How long a client may take no byte of an answer.
const STALLED_TIMEOUT: Duration = Duration::from_secs(30);
/// After this time a connection takes no further request.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(600);
/// How long the last answer of such a connection may take.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// How long requests that are worked on when the server ends may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long answers that are made may take then to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The open connections, by their numbers, in the order in which they came.
#[derive(Clone, Default)]
pub(super) struct Connections(Arc<Mutex<BTreeMap<u64, Connection>>>);

struct Connection {
    /// Since when it waits for a request; `None` while one is worked on.
    idle_since: Option<Instant>,
    close: CancellationToken,
}

/// One connection among the others. It leaves them when the value is dropped.
struct Member {
    all: Connections,
    number: u64,
    close: CancellationToken,
}

/// Marks a connection as busy for as long as it lives.
struct Busy(Arc<Member>);

impl Connections {
    /// Closes the connection that has waited longest for a request, if any waits.
    pub fn close_longest_idle(&self) {
        let all = self.lock();
        let idle = all
            .values()
            .filter_map(|connection| Some((connection.idle_since?, connection)));
        if let Some((_, connection)) = idle.min_by_key(|(since, _)| *since) {
            connection.close.cancel();
        }
    }

    fn join(&self) -> Arc<Member> {
        let close = CancellationToken::new();
        let mut all = self.lock();
        let number = all.last_key_value().map_or(0, |(number, _)| number + 1);
        let idle_since = Some(Instant::now());
        let connection = Connection {
            idle_since,
            close: close.clone(),
        };
        all.insert(number, connection);
        let all = self.clone();
        Arc::new(Member { all, number, close })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn busy(self: &Arc<Self>) -> Busy {
        self.set_idle(None);
        Busy(self.clone())
    }

    fn set_idle(&self, since: Option<Instant>) {
        if let Some(connection) = self.all.lock().get_mut(&self.number) {
            connection.idle_since = since;
        }
    }

    fn is_idle(&self) -> bool {
        let all = self.all.lock();
        all.get(&self.number)
            .is_none_or(|connection| connection.idle_since.is_some())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.all.lock().remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set_idle(Some(Instant::now()));
    }
}

/// The router, which tells when a connection is busy.
struct Watched {
    router: TowerToHyperService<Router>,
    member: Arc<Member>,
}

impl Service<Request<Incoming>> for Watched {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let busy = self.member.busy();
        let answer = self.router.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(busy);
            answer
        })
    }
}

/// What all connections have in common.
#[derive(Clone)]
pub(super) struct Serving {
    pub router: Router,
    pub tls: Option<TlsAcceptor>,
    pub connections: Connections,
    /// The server ends: what is worked on is finished.
    pub end: CancellationToken,
}

impl Serving {
    /// Answers the requests of a connection, which keeps its place until it is closed.
    pub async fn serve(self, stream: TcpStream, _place: OwnedSemaphorePermit) {
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(STALLED_TIMEOUT));
        let member = self.connections.join();
        let close = member.close.clone();
        let answering = async {
            let Some(tls) = &self.tls else {
                return self.answer(stream, &member).await;
            };
            match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.answer(stream, &member).await,
                Ok(Err(error)) => tracing::debug!("a TLS handshake has failed: {error}"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        };
        close.run_until_cancelled(answering).await;
    }

    async fn answer(&self, stream: impl AsyncRead + AsyncWrite + Unpin, member: &Arc<Member>) {
        let service = Watched {
            router: TowerToHyperService::new(self.router.clone()),
            member: member.clone(),
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let old = sleep(MAX_CONNECTION_AGE);
        let ends = tokio::select! {
            ended = connection.as_mut() => return debug(ended),
            () = self.end.cancelled() => true,
            () = old => false,
        };
        connection.as_mut().graceful_shutdown();
        if ends {
            if let Ok(ended) = timeout(FLUSH_TIMEOUT, connection.as_mut()).await {
                return debug(ended);
            }
            if member.is_idle() {
                return;
            }
        }
        let limit = if ends {
            DRAIN_TIMEOUT
        } else {
            LAST_ANSWER_TIMEOUT
        };
        if let Ok(ended) = timeout(limit, connection).await {
            debug(ended);
        }
    }
}

/// An error is the client's: it left, or sent what is no request.
fn debug(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!("a connection of the HTTP server has ended: {error}");
    }
}
