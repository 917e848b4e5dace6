//! Requests to the hub: who is asked, who gets the token, and what an answer means.
//!
//! Redirects are followed here and not by the HTTP client: the hub answers with headers about a file in the redirect
//! itself, and the token must not reach the host of the storage.

use std::time::Duration;

use reqwest::header::{HeaderMap, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};

use super::error::DownloadFailure;
use super::settings::{HubSettings, Token};
use crate::embedding::https::{self, innermost};

/// The hub redirects once to the storage, and once more for a repository that was renamed.
const MAX_REDIRECTS: usize = 5;

/// A connection pool to one hub.
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Url,
    token: Option<Token>,
    stall_timeout: Duration,
}

impl Client {
    /// Reads the certificates of the system. Blocks for as long as that takes.
    pub(super) fn new(settings: &HubSettings) -> Result<Self, DownloadFailure> {
        let endpoint = parse_endpoint(&settings.endpoint)?;
        let http = https::client(&[])
            .and_then(|client| client.build().map_err(|error| innermost(&error)))
            .map_err(|reason| DownloadFailure::Unexpected {
                what: format!("cannot set up HTTPS ({reason})"),
            })?;
        Ok(Self {
            http,
            endpoint,
            token: settings.token.clone(),
            stall_timeout: settings.stall_timeout,
        })
    }

    /// How long a server may send nothing.
    pub(super) fn stall_timeout(&self) -> Duration {
        self.stall_timeout
    }

    /// The URL of a path on the hub, whose segments are given unencoded.
    pub(super) fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Gets a URL, from this byte on, through redirects to whichever host. Any answer but success is an error.
    pub(super) async fn get(&self, url: Url, from: u64) -> Result<Response, DownloadFailure> {
        let mut url = url;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(Method::GET, &url, from).await?;
            let Some(target) = redirection(&response)? else {
                return self.checked(response);
            };
            url = target;
        }
        Err(too_many_redirects())
    }

    /// The headers with which the hub describes a file. Redirects within the hub are followed, those to a storage are not:
    /// the hub's own answer has what is asked for.
    pub(super) async fn head(&self, url: Url) -> Result<HeaderMap, DownloadFailure> {
        let mut url = url;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(Method::HEAD, &url, 0).await?;
            match redirection(&response)? {
                None => return Ok(self.checked(response)?.headers().clone()),
                Some(target) if target.origin() != self.endpoint.origin() => {
                    return Ok(response.headers().clone());
                }
                Some(target) => url = target,
            }
        }
        Err(too_many_redirects())
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        from: u64,
    ) -> Result<Response, DownloadFailure> {
        let mut request = self.http.request(method, url.clone());
        // Storage hosts need no token: their URLs are signed.
        if let Some(token) = &self.token
            && url.origin() == self.endpoint.origin()
        {
            request = request.bearer_auth(token.expose());
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        match tokio::time::timeout(self.stall_timeout, request.send()).await {
            Ok(response) => response.map_err(DownloadFailure::request),
            Err(_) => Err(DownloadFailure::Unreachable {
                reason: format!("nothing for {} s", self.stall_timeout.as_secs()),
            }),
        }
    }

    fn checked(&self, response: Response) -> Result<Response, DownloadFailure> {
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(self.refusal(status, response.headers())),
        }
    }

    /// What a status means. The hub gives its reason in `X-Error-Code` (`huggingface_hub`, `hf_raise_for_status`). It
    /// answers 401 for a repository that does not exist, unless a token is sent.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap) -> DownloadFailure {
        let code = headers
            .get("x-error-code")
            .and_then(|code| code.to_str().ok());
        let missing = || DownloadFailure::NoRepository {
            repository: String::new(),
        };
        match (status, code) {
            (_, Some("GatedRepo")) => DownloadFailure::Gated {
                page: self.endpoint.to_string(),
            },
            (_, Some("RepoNotFound")) => missing(),
            (_, Some("RevisionNotFound")) => DownloadFailure::NoRevision {
                revision: String::new(),
            },
            (_, Some("EntryNotFound")) => DownloadFailure::NoFile {
                file: String::new(),
                graphs: Vec::new(),
            },
            (StatusCode::UNAUTHORIZED, _) if self.token.is_some() => DownloadFailure::TokenRefused,
            (StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND, _) => missing(),
            (StatusCode::FORBIDDEN, _) => DownloadFailure::Gated {
                page: self.endpoint.to_string(),
            },
            (StatusCode::TOO_MANY_REQUESTS, _) => DownloadFailure::TooManyRequests {
                retry_after: retry_after(headers),
            },
            (status, _) if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                DownloadFailure::OutOfOrder {
                    status: status.as_u16(),
                }
            }
            (status, _) => DownloadFailure::Unexpected {
                what: format!("the answer has status {}", status.as_u16()),
            },
        }
    }
}

/// The endpoint as it may be shown, without user and password.
pub(super) fn shown_endpoint(settings: &HubSettings) -> String {
    let Ok(mut url) = parse_endpoint(&settings.endpoint) else {
        return "HF_ENDPOINT".into();
    };
    let _ = url.set_username("").and(url.set_password(None));
    url.set_query(None);
    url.to_string().trim_end_matches('/').to_owned()
}

fn parse_endpoint(text: &str) -> Result<Url, DownloadFailure> {
    let url = Url::parse(text).ok();
    url.filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host())
        .ok_or_else(|| DownloadFailure::Unexpected {
            what: "HF_ENDPOINT is not a URL such as https://huggingface.co".into(),
        })
}

/// Where an answer redirects to; never from an encrypted connection to a plain one.
fn redirection(response: &Response) -> Result<Option<Url>, DownloadFailure> {
    if !response.status().is_redirection() {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION);
    let target = location
        .and_then(|location| location.to_str().ok())
        .and_then(|location| response.url().join(location).ok());
    let from = response.url().scheme();
    target
        .filter(|target| target.scheme() == from || target.scheme() == "https")
        .map(Some)
        .ok_or_else(|| DownloadFailure::Unexpected {
            what: "the answer is a redirect to nowhere, or to an unencrypted host".into(),
        })
}

fn too_many_redirects() -> DownloadFailure {
    DownloadFailure::Unexpected {
        what: "the answers are redirects without end".into(),
    }
}

/// Seconds, as the hub writes them; the other form, a date, is not used by it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}
