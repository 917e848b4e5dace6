//! Which requests are answered, and the headers of every answer.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::Response;

use super::answer;
use super::api::{ApiError, Dialect, Problem};
use super::token::Token;

/// Paths that answer without a token too, and then tell no names.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/health"];

const BASIC: &str = r#"Basic realm="lantern-cli", charset="UTF-8""#;
const BEARER: &str = r#"Bearer realm="lantern-cli""#;

/// Who may ask.
pub(super) struct Access {
    pub token: Option<Token>,
    /// Only programs on this machine can reach the server.
    pub is_local: bool,
}

/// Whether a request has presented what there is to present.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Visitor {
    /// It may read everything.
    Admitted,
    /// It may ask how the daemon is.
    Unknown,
}

/// Why a request is not answered.
enum Refusal {
    /// It is for another name than this machine's.
    ForeignHost,
    /// It has no token, or another one.
    NoToken,
}

/// Lets requests pass, and refuses others with what to do.
pub(super) async fn check(
    State(access): State<Arc<Access>>,
    mut request: Request,
    next: Next,
) -> Response {
    let response = match admit(&access, &request) {
        Ok(visitor) => {
            request.extensions_mut().insert(visitor);
            next.run(request).await
        }
        Err(Refusal::ForeignHost) => foreign_host(request.uri().path()),
        Err(Refusal::NoToken) => unauthorized(request.uri().path()),
    };
    with_security_headers(response)
}

fn admit(access: &Access, request: &Request) -> Result<Visitor, Refusal> {
    let Some(token) = &access.token else {
        return match !access.is_local || names_this_machine(request.uri(), request.headers()) {
            true => Ok(Visitor::Admitted),
            false => Err(Refusal::ForeignHost),
        };
    };
    let authorization = request.headers().get(header::AUTHORIZATION);
    if authorization.is_some_and(|value| token.is_in(value.as_bytes())) {
        return Ok(Visitor::Admitted);
    }
    match PROBES.contains(&request.uri().path()) {
        true => Ok(Visitor::Unknown),
        false => Err(Refusal::NoToken),
    }
}

/// Whether the request is for an address or for `localhost`. A page of any site can ask a server of the visitor's own
/// machine under the site's name, once that name leads to 127.0.0.1 (DNS rebinding); its browser then takes the answer
/// for the site's own. Programs without a `Host` are no browsers.
fn names_this_machine(uri: &Uri, headers: &HeaderMap) -> bool {
    let authority = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => match headers.get(header::HOST).map(HeaderValue::to_str) {
            Some(Ok(host)) => Some(host),
            Some(Err(_)) => return false,
            None => None,
        },
    };
    authority.is_none_or(is_local_name)
}

fn is_local_name(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

const FOREIGN_HOST: &str = "this server answers requests for localhost or an IP address alone; for another name, \
                            start it with --listen-token-file";

fn foreign_host(path: &str) -> Response {
    match Dialect::of_path(path) {
        Some(dialect) => ApiError::new(Problem::Misdirected, FOREIGN_HOST).response(dialect),
        None => answer::text(StatusCode::MISDIRECTED_REQUEST, format!("{FOREIGN_HOST}\n")),
    }
}

const NO_TOKEN: &str =
    "a token is needed: send it as \"Authorization: Bearer TOKEN\", or as the password of any user";

/// What is asked for. A browser asks its user for a password where it is told of `Basic`; the page's own requests are
/// not to open that dialog again and again once the token is another one, and programs have no user.
fn unauthorized(path: &str) -> Response {
    let dialect = Dialect::of_path(path);
    let mut refusal = match dialect {
        Some(dialect) => ApiError::new(Problem::Unauthorized, NO_TOKEN).response(dialect),
        None => answer::text(StatusCode::UNAUTHORIZED, format!("{NO_TOKEN}\n")),
    };
    let challenges = match path {
        "/api/status" => &[BEARER][..],
        _ if dialect.is_some() => &[BEARER],
        _ => &[BASIC, BEARER],
    };
    for challenge in challenges {
        let challenge = HeaderValue::from_static(challenge);
        refusal
            .headers_mut()
            .append(header::WWW_AUTHENTICATE, challenge);
    }
    refusal
}

/// No other site may show, read or keep an answer.
fn with_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_names_of_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:9187",
            "127.0.0.1:9187",
            "[::1]:9187",
            "10.0.0.7",
        ] {
            assert!(is_local_name(host), "{host}");
        }
        for host in [
            "",
            ":9187",
            "evil.example",
            "evil.example:9187",
            "localhost.evil.example",
            "[evil",
            "1.2.3",
        ] {
            assert!(!is_local_name(host), "{host}");
        }
    }
}
