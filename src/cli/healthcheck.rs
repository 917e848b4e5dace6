//! `lantern-cli healthcheck`: asks a running daemon whether it works, for containers that have no other program.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::body::{Body, to_bytes};
use clap::Args;
use humantime::{format_duration, parse_duration};
use hyper::Request;
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{output, stderr};
use crate::http::ListenAddress;
use crate::shown::shown;

/// Of a longer answer the rest is not read. What answers there may be another program.
const MAX_ANSWER: usize = 64 << 10;

/// Ask a daemon that runs with --listen whether it works
///
/// Exits with 0 if it does, and with 1 if it hangs, does not answer or is not there: for the HEALTHCHECK of a container. It
/// needs no token. Orchestrators that speak HTTP ask /healthz and /readyz themselves.
#[derive(Args)]
pub struct HealthCheck {
    /// Where the daemon listens. If that is every address (0.0.0.0 or [::]), it is asked on this machine
    #[arg(
        long,
        env = "LANTERN_LISTEN",
        default_value = "127.0.0.1:9187",
        value_name = "ADDRESS:PORT"
    )]
    listen: ListenAddress,

    /// Ask whether its jobs work, too: each embeds existing rows or follows the changes of its table
    #[arg(long)]
    ready: bool,

    /// How long the answer may take
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = parse_duration)]
    timeout: Duration,
}

/// Asks, and prints the answer.
///
/// # Errors
/// There is no answer, or it is none of a daemon.
pub async fn run(arguments: HealthCheck) -> anyhow::Result<ExitCode> {
    let address = arguments.listen.from_this_machine();
    let path = match arguments.ready {
        true => "/readyz",
        false => "/healthz",
    };
    let asked = timeout(arguments.timeout, ask(address, path)).await;
    let Ok(answer) = asked else {
        bail!(
            "no answer from http://{address}{path} within {}",
            format_duration(arguments.timeout)
        );
    };
    let (is_well, text) = answer.with_context(|| {
        format!("cannot ask http://{address}{path}; does a daemon run with --listen {address}?")
    })?;
    let text: Vec<String> = text.lines().map(shown).collect();
    if is_well {
        output::lines(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    for line in &text {
        stderr::line(line);
    }
    Ok(ExitCode::FAILURE)
}

/// The answer to a GET: whether its status is a success, and its text.
async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(bool, String)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(Body::empty())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = to_bytes(Body::new(answer.into_body()), MAX_ANSWER).await?;
    connection.abort();
    let text = match body.is_empty() {
        true => format!("the answer is {status}"),
        false => String::from_utf8_lossy(&body).into_owned(),
    };
    Ok((status.is_success(), text))
}
