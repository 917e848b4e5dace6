//! One request over HTTP, and an answer of a bounded size.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};

use super::address::is_loopback;
use super::error::RemoteFailure;
use super::options::RemoteOptions;
use crate::embedding::https::{self, innermost};

/// What is read of an answer without vectors.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// A connection without an answer to a ping for that long is closed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// An answer, whatever its status.
pub(super) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// The connection pools of a fleet.
pub(super) struct Clients {
    public: Client,
    /// For servers of this machine, past any proxy.
    local: Client,
}

impl Clients {
    /// Reads the certificates of the system. Blocks for as long as that takes.
    pub(super) fn new() -> Result<Self, RemoteFailure> {
        let build = |is_local: bool| -> Result<Client, String> {
            let builder = https::client(&["h2", "http/1.1"])?
                .http2_adaptive_window(true)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .tcp_nodelay(true);
            let builder = if is_local {
                builder.no_proxy()
            } else {
                builder
            };
            builder.build().map_err(|error| innermost(&error))
        };
        let setup = |reason: String| RemoteFailure::Setup { reason };
        Ok(Self {
            public: build(false).map_err(setup)?,
            local: build(true).map_err(setup)?,
        })
    }

    /// The one for a server.
    pub(super) fn of(&self, server: &Url) -> Client {
        match is_loopback(server) {
            true => self.local.clone(),
            false => self.public.clone(),
        }
    }
}

/// The headers of every request under these options.
pub(super) fn headers(options: &RemoteOptions) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut add = |name: &str, value: &str| {
        // Both were checked when the options were read.
        if let (Ok(name), Ok(mut value)) =
            (name.parse::<HeaderName>(), HeaderValue::from_str(value))
        {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    };
    for (name, value) in &options.headers {
        add(name, value.expose());
    }
    // After those of the row, in place of which it goes.
    if let Some(key) = options.key() {
        match options.key_header.as_str() {
            "authorization" => add("authorization", &format!("Bearer {}", key.expose())),
            name => add(name, key.expose()),
        }
    }
    headers
}

/// Sends a request and reads its answer, within the time that the options allow.
///
/// Cancellation safe: a dropped request is canceled.
pub(super) async fn post(
    client: &Client,
    url: &Url,
    options: &RemoteOptions,
    body: Bytes,
    max_bytes: usize,
) -> Result<Reply, RemoteFailure> {
    let exchange = async {
        let request = client
            .post(url.clone())
            .headers(headers(options))
            .body(body);
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        read(response, max_bytes).await
    };
    let timeout = options.timeout;
    tokio::time::timeout(timeout, exchange)
        .await
        .unwrap_or(Err(RemoteFailure::Timeout { timeout }))
}

async fn read(mut response: Response, max_bytes: usize) -> Result<Reply, RemoteFailure> {
    let status = response.status();
    let limit = if status.is_success() {
        max_bytes
    } else {
        MAX_ERROR_BYTES
    };
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| unreachable(&error))?
    {
        if body.len() + chunk.len() > limit {
            if status.is_success() {
                return Err(RemoteFailure::Garbled {
                    reason: format!(
                        "it is longer than {limit} bytes, more than the vectors can be"
                    ),
                });
            }
            body.extend_from_slice(&chunk[..limit - body.len()]);
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Reply {
        status: status.as_u16(),
        headers: std::mem::take(response.headers_mut()),
        body,
    })
}

fn unreachable(error: &reqwest::Error) -> RemoteFailure {
    RemoteFailure::Unreachable {
        reason: innermost(error),
    }
}
