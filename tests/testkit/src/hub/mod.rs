//! A Hugging Face hub on localhost, with the storage host that it redirects to: the interface that downloads use, for
//! repositories of a test's own, with faults on demand.
//!
//! ```text
//!  GET  /api/models/{id}/revision/{revision}?blobs=true    commit and files
//!  HEAD, GET /{id}/resolve/{commit}/{file}                 a small file; a large one (.onnx) redirects to the storage
//!  GET  {storage}/{checksum}?signature=…                   the large file
//! ```

mod answer;
mod http;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// A hub with its storage. It answers until the process ends.
pub struct Hub {
    shared: Arc<Shared>,
    port: u16,
}

/// What has been asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The header `Range`.
    pub range: Option<String>,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// Whether it reached the storage, not the hub.
    pub at_storage: bool,
}

/// What goes wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status with this header.
    Status(u16, &'static str, &'static str),
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// Nothing more comes after so many bytes of the body.
    StallAfter(usize),
    /// A byte of the body is another one.
    Damaged,
    /// Each kilobyte takes so long.
    Slow(Duration),
    /// The range is not heeded.
    NoRange,
}

/// Who may see a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Anyone.
    Public,
    /// Who has this token. For others it does not exist.
    Private(&'static str),
    /// Who has this token, whose owner has accepted the terms.
    Gated(&'static str),
}

struct Shared {
    storage_port: u16,
    state: Mutex<State>,
    at_work: AtomicU64,
}

#[derive(Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    faults: Vec<(String, Fault)>,
    requests: Vec<Request>,
    /// Whether the list of files has sizes and checksums.
    lists_blobs: bool,
}

struct Repository {
    access: Access,
    /// By revision, the newest first.
    commits: Vec<Commit>,
}

struct Commit {
    hash: String,
    files: BTreeMap<String, Vec<u8>>,
}

impl Hub {
    /// Starts a hub without repositories.
    ///
    /// # Panics
    ///
    /// Where no port is free.
    pub fn start() -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port_of = |listener: &TcpListener| listener.local_addr().expect("an address").port();
        let (hub, storage) = (listen(), listen());
        let port = port_of(&hub);
        let shared = Arc::new(Shared {
            storage_port: port_of(&storage),
            state: Mutex::new(State {
                lists_blobs: true,
                ..State::default()
            }),
            at_work: AtomicU64::new(0),
        });
        for (listener, at_storage) in [(hub, false), (storage, true)] {
            let shared = shared.clone();
            thread::spawn(move || serve(&listener, &shared, at_storage));
        }
        Self { shared, port }
    }

    /// The value of `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Publishes the files of a folder as the newest commit of a repository; returns the commit.
    ///
    /// # Panics
    ///
    /// Where the folder cannot be read.
    pub fn publish(&self, id: &str, folder: &Path) -> String {
        let mut files = BTreeMap::new();
        read_files(folder, "", &mut files);
        let mut hash = Sha1::new();
        for (path, content) in &files {
            hash.update(path);
            hash.update(content);
        }
        let hash = hex(&hash.finalize());
        let commit = Commit {
            hash: hash.clone(),
            files,
        };
        let mut state = self.shared.lock();
        let repository = state.repositories.entry(id.to_owned());
        let repository = repository.or_insert_with(|| Repository {
            access: Access::Public,
            commits: Vec::new(),
        });
        repository.commits.insert(0, commit);
        hash
    }

    /// Limits who may see a repository.
    ///
    /// # Panics
    ///
    /// Where it was not published.
    pub fn restrict(&self, id: &str, access: Access) {
        let mut state = self.shared.lock();
        let repository = state.repositories.get_mut(id);
        repository.expect("it was published").access = access;
    }

    /// Leaves sizes and checksums out of lists, as some mirrors do.
    pub fn list_names_only(&self) {
        self.shared.lock().lists_blobs = false;
    }

    /// The next answer whose path contains this text has a fault. Several of one text come in this order.
    pub fn fail(&self, path: &str, fault: Fault) {
        self.shared.lock().faults.push((path.to_owned(), fault));
    }

    /// What has been asked for so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// How often the storage was asked for a file, which it has only of large ones.
    pub fn downloads_of_graphs(&self) -> usize {
        let requests = self.requests();
        requests.iter().filter(|request| request.at_storage).count()
    }

    /// Number of answers that are being sent.
    pub fn at_work(&self) -> u64 {
        self.shared.at_work.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>, at_storage: bool) {
    for connection in listener.incoming().flatten() {
        let shared = shared.clone();
        thread::spawn(move || {
            shared.at_work.fetch_add(1, Ordering::SeqCst);
            // A client may go away in the middle.
            let _ = http::answer(&connection, |request| {
                answer::answer(&shared, request, at_storage)
            });
            shared.at_work.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn read_files(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let entry = entry.expect("the folder is readable");
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            read_files(&entry.path(), &format!("{path}/"), files);
        } else {
            files.insert(path, fs::read(entry.path()).expect("the file is readable"));
        }
    }
}

/// What the hub calls a file: the SHA-256 of a large one, and the object id that git has for others.
fn etag(path: &str, content: &[u8]) -> String {
    if is_large(path) {
        return hex(&Sha256::digest(content));
    }
    let mut hash = Sha1::new_with_prefix(format!("blob {}\0", content.len()));
    hash.update(content);
    hex(&hash.finalize())
}

fn is_large(path: &str) -> bool {
    let ending = Path::new(path).extension();
    ending.is_some_and(|ending| ending == "onnx" || ending == "bin")
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value| char::from_digit(u32::from(value), 16).expect("a digit");
    let digits = |byte: &u8| [digit(byte >> 4), digit(byte & 15)];
    bytes.iter().flat_map(digits).collect()
}
