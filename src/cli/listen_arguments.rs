//! `--listen` and what belongs to it: where the daemon shows itself over HTTP, and to whom.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};
use tokio_util::sync::CancellationToken;

use crate::embedding::Engine;
use crate::http::{Api, HttpServer, Listen, ListenAddress, Token};
use crate::postgres::plain_file;
use crate::status::StatusBoard;

/// Has the token itself. There is no option for it: others see the arguments of a process.
const TOKEN_VARIABLE: &str = "LANTERN_LISTEN_TOKEN";

/// What the daemon shows over HTTP.
#[derive(Args)]
pub struct ListenArguments {
    /// Show a status page (/), metrics for Prometheus (/metrics) and health checks (/healthz, /readyz), and the models
    /// of the running jobs for programs (/v1/embeddings, /embed), over HTTP at this address, such as 127.0.0.1:9187.
    /// Beyond this machine that needs a token [default: show nothing]
    #[arg(long, env = "LANTERN_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<ListenAddress>,

    #[command(flatten)]
    access: AccessArguments,
}

/// Who may ask.
#[derive(Args)]
pub struct AccessArguments {
    /// File with a token that requests must have: as "Authorization: Bearer TOKEN", or as the password of any user. The
    /// environment variable LANTERN_LISTEN_TOKEN can have the token itself
    #[arg(long, env = "LANTERN_LISTEN_TOKEN_FILE", value_name = "FILE")]
    listen_token_file: Option<PathBuf>,

    /// Ask for no token beyond this machine either, as in a network where everyone may use the models and read names of
    /// tables, keys of rows and errors
    #[arg(
        long,
        env = "LANTERN_LISTEN_WITHOUT_TOKEN",
        action = ArgAction::SetTrue,
        value_parser = FalseyValueParser::new()
    )]
    listen_without_token: bool,
}

impl ListenArguments {
    /// Starts the server, if one was asked for, and logs where it is. It ends when the value is dropped.
    ///
    /// # Errors
    /// The address cannot be used, the token cannot be used or read, or others could read without one.
    pub fn start(
        &self,
        board: &StatusBoard,
        engine: &Engine,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<HttpServer>> {
        let Some(address) = self.listen else {
            return Ok(None);
        };
        let listen = self.access.listen(address)?;
        let who = who(&listen);
        let api = Api::new(engine.clone(), board.models().clone(), stop.clone());
        let server = HttpServer::start_with(listen, Some(board.clone()), Some(api), stop.clone())?;
        let address = server.address();
        tracing::info!("status page and metrics at http://{address}/ ({who})");
        Ok(Some(server))
    }
}

/// Who may ask, for the log.
pub(super) fn who(listen: &Listen) -> &'static str {
    match (&listen.token, listen.address.is_local()) {
        (Some(_), _) => "with a token",
        (None, true) => "from this machine",
        (None, false) => "without a token",
    }
}

impl AccessArguments {
    /// What a server at this address is started with.
    ///
    /// # Errors
    /// The token cannot be used or read.
    pub fn listen(&self, address: ListenAddress) -> anyhow::Result<Listen> {
        Ok(Listen {
            address,
            token: self.token()?,
            without_token: self.listen_without_token,
            tls: None,
        })
    }

    fn token(&self) -> anyhow::Result<Option<Token>> {
        let variable = env::var_os(TOKEN_VARIABLE);
        match (&self.listen_token_file, variable) {
            (Some(_), Some(_)) => {
                bail!("--listen-token-file and {TOKEN_VARIABLE} both give a token: use one of them")
            }
            (Some(path), None) => read(path).map(Some),
            (None, Some(text)) => {
                let token = Token::new(&text.to_string_lossy()).context(TOKEN_VARIABLE)?;
                Ok(Some(token))
            }
            (None, None) => Ok(None),
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Token> {
    let option = || format!("--listen-token-file {}", path.display());
    let file = plain_file::read(path).with_context(option)?;
    if file.metadata.permissions().mode() & 0o004 != 0 {
        tracing::warn!(
            "every user of this machine can read the token in {0}; run: chmod o= {0}",
            path.display()
        );
    }
    Token::new(&String::from_utf8_lossy(&file.content)).with_context(option)
}
