//! The settings of a private server.

use std::path::PathBuf;

/// How to run a [`PrivatePostgres`](super::PrivatePostgres).
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Holds everything that the server keeps: the database itself in `data`, `server.log`, the superuser's `password`
    /// and the Unix socket. Created and initialized if it does not exist. See also
    /// [`default_directory`](super::default_directory).
    pub data_directory: PathBuf,
    /// The TCP port on 127.0.0.1. `None`: the port of the last start if it is free, else any free port.
    pub port: Option<u16>,
    /// Configuration parameters, such as `("max_connections", "400")`. They take precedence over the built-in ones.
    pub settings: Vec<(String, String)>,
    /// Whether committed transactions survive a crash of the machine. `false` is faster.
    pub durable: bool,
}

impl ServerOptions {
    /// A durable server in `data_directory`, on the port of its last start.
    pub fn new(data_directory: impl Into<PathBuf>) -> Self {
        Self {
            data_directory: data_directory.into(),
            port: None,
            settings: Vec::new(),
            durable: true,
        }
    }
}
