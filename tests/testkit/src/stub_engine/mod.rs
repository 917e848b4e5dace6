//! A server of embeddings that computes a vector from each text and nothing else, and misbehaves when told to.
//!
//! It speaks the APIs of OpenAI and Voyage (`/v1/embeddings`), Cohere (`/v2/embed`) and Ollama (`/api/embed`), over HTTP, or
//! over TLS with a certificate of its own. A stub has a thread, so it works in any test.
//!
//! ```no_run
//! use testkit::StubEngine;
//! use testkit::stub_engine::{Act, Behavior};
//!
//! let stub = StubEngine::start();
//! stub.set(Behavior { dimensions: 384, ..Behavior::default() });
//! stub.script([Act::error(503, "overloaded"), Act::CutAfter(100)]);
//! println!("base_url: {}", stub.url());
//! ```

mod behavior;
mod embed;
mod serve;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

pub use behavior::{Act, Behavior};
pub use embed::vector_of;
pub use state::Seen;

use state::State;

/// A server of embeddings. Stops when it is dropped.
pub struct StubEngine {
    state: Arc<State>,
    address: SocketAddr,
    tls: Option<Certificate>,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

struct Certificate {
    file: NamedTempFile,
    acceptor: TlsAcceptor,
}

impl StubEngine {
    /// A stub on a free port of this machine.
    pub fn start() -> Self {
        Self::on(None)
    }

    /// The same over TLS, with HTTP/2 where the client offers it. [`Self::certificate`] is what a client must trust.
    pub fn start_tls() -> Self {
        Self::on(Some(certificate()))
    }

    fn on(tls: Option<Certificate>) -> Self {
        let mut stub = Self {
            state: Arc::default(),
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            tls,
            running: None,
        };
        stub.restart();
        stub
    }

    /// What `base_url` is for it: OpenAI's clients and ours add the path.
    pub fn url(&self) -> String {
        match self.tls {
            Some(_) => format!("https://localhost:{}", self.address.port()),
            None => format!("http://127.0.0.1:{}", self.address.port()),
        }
    }

    /// A file with the certificate, in PEM.
    ///
    /// # Panics
    ///
    /// If it has none, because it was started without TLS.
    pub fn certificate(&self) -> &Path {
        self.tls.as_ref().expect("the stub has TLS").file.path()
    }

    /// Changes how it answers requests that the script says nothing about.
    pub fn set(&self, behavior: Behavior) {
        self.state.set(behavior);
    }

    /// Changes some of that.
    pub fn change(&self, change: impl FnOnce(&mut Behavior)) {
        let mut behavior = self.state.behavior();
        change(&mut behavior);
        self.state.set(behavior);
    }

    /// What it does with the next requests, one after the other.
    pub fn script(&self, acts: impl IntoIterator<Item = Act>) {
        self.state.extend(acts);
    }

    /// How many acts of the script are left.
    pub fn script_len(&self) -> usize {
        self.state.script_len()
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen()
    }

    /// Keeps no requests from now on, but counts them: for a benchmark.
    pub fn forget(&self) {
        self.state.forget();
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Texts that got a vector so far.
    pub fn embedded(&self) -> u64 {
        self.state.embedded.load(Ordering::Relaxed)
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// The most requests that were there at the same time.
    pub fn max_in_flight(&self) -> usize {
        self.state.max_in_flight()
    }

    /// Stops listening and closes all connections, as a server that is killed.
    ///
    /// # Panics
    ///
    /// If the stub has panicked.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            // The receiver is gone if the thread has panicked, which `join` tells.
            let _ = running.stop.send(());
            running.thread.join().expect("the stub has not panicked");
        }
    }

    /// Listens on the same port again.
    ///
    /// # Panics
    ///
    /// If another program has taken the port.
    pub fn restart(&mut self) {
        self.stop();
        let (stop, stopped) = oneshot::channel();
        let (ready, bound) = mpsc::channel();
        let state = self.state.clone();
        let tls = self.tls.as_ref().map(|tls| tls.acceptor.clone());
        let address = self.address;
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::bind(address).await.expect("the port is free");
                let bound = listener.local_addr().expect("a listener has an address");
                ready.send(bound).expect("the test waits for it");
                tokio::select! {
                    () = serve::accept(listener, tls, state) => {}
                    _ = stopped => {}
                }
            });
        });
        self.address = bound.recv().expect("the stub listens");
        self.running = Some(Running { stop, thread });
    }
}

impl Drop for StubEngine {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.stop.send(());
            let _ = running.thread.join();
        }
    }
}

fn certificate() -> Certificate {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), made.cert.pem()).expect("the certificate is written");
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the versions of TLS")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("the key is that of the certificate");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Certificate {
        file,
        acceptor: TlsAcceptor::from(Arc::new(config)),
    }
}
