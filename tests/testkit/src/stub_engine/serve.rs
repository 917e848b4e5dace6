//! The HTTP server of a stub: HTTP/1.1, and HTTP/2 where TLS negotiates it.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::behavior::{Act, Behavior};
use super::embed::{Shape, tokens_of};
use super::state::{Seen, State};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Accepts connections until it is dropped, which closes all of them.
pub(super) async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((socket, _)) = accepted {
                    let _ = socket.set_nodelay(true);
                    state.connections.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(connection(socket, tls.clone(), state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(socket: tokio::net::TcpStream, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let Some(tls) = tls else {
        return serve(socket, false, state).await;
    };
    if let Ok(socket) = tls.accept(socket).await {
        let is_http2 = socket.get_ref().1.alpn_protocol() == Some(b"h2");
        serve(socket, is_http2, state).await;
    }
}

async fn serve(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    is_http2: bool,
    state: Arc<State>,
) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { respond(request, &state).await }
    });
    // A connection ends in an error whenever a test wants it to.
    if is_http2 {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(socket), service).await;
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        let _ = server.serve_connection(TokioIo::new(socket), service).await;
    }
}

async fn respond(request: Request<Incoming>, state: &State) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let shape = Shape::of_path(head.uri.path());
    let texts = shape.map(|shape| shape.texts(&body)).unwrap_or_default();
    let (behavior, act) = state.begin(Seen {
        path: head.uri.path().to_owned(),
        version: format!("{:?}", head.version),
        headers: head.headers.clone(),
        body: body.clone(),
        texts: texts.clone(),
    });
    let _in_flight = state.in_flight();
    let Some(shape) = shape else {
        return Ok(text(404, "Not Found".into()));
    };
    match &act {
        Act::Status(status, headers, body) => return Ok(status_answer(*status, headers, body)),
        Act::Close => return Err(io::Error::other("closed")),
        Act::Hang => return std::future::pending().await,
        Act::Delay(pause) => sleep(*pause).await,
        _ => {}
    }
    if let Some((status, answer)) = refusal(
        shape,
        &body,
        &texts,
        &behavior,
        head.headers.get("authorization"),
    ) {
        return Ok(json(status, answer.to_string()));
    }
    if behavior.throttle_above > 0 && state.current() > behavior.throttle_above {
        let Act::Status(status, headers, body) = Act::throttle(behavior.retry_after_ms) else {
            return Err(io::Error::other("not a status"));
        };
        return Ok(status_answer(status, &headers, &body));
    }
    compute(&texts, &behavior, state).await;
    if state.fails(behavior.failure_rate) {
        return Ok(json(500, shape.error("internal error").to_string()));
    }
    let texts = texts
        .iter()
        .map(|text| first_words(text, behavior.max_text_tokens));
    let texts: Vec<_> = texts.collect();
    state
        .embedded
        .fetch_add(texts.len() as u64, Ordering::Relaxed);
    Ok(body_answer(
        shape.answer(&body, &texts, &behavior, &act),
        &act,
    ))
}

/// Takes the time that a server takes, with as many requests at a time as it has room for.
async fn compute(texts: &[String], behavior: &Behavior, state: &State) {
    let tokens: usize = texts.iter().map(|text| tokens_of(text)).sum();
    let time = behavior.latency + behavior.latency_per_token * tokens as u32;
    if time.is_zero() {
        return;
    }
    let _room = state.room(behavior.concurrency).await;
    sleep(time).await;
}

fn refusal(
    shape: Shape,
    body: &Value,
    texts: &[String],
    behavior: &Behavior,
    authorization: Option<&hyper::header::HeaderValue>,
) -> Option<(u16, Value)> {
    let has = |part: &Option<String>| {
        let part = part.as_ref()?;
        texts.iter().position(|text| text.contains(part))
    };
    if let Some(key) = &behavior.key
        && authorization.and_then(|value| value.to_str().ok()) != Some(&format!("Bearer {key}"))
    {
        return Some((401, shape.error("Incorrect API key provided")));
    }
    if let Some(model) = &behavior.model
        && body["model"] != **model
    {
        return Some((
            404,
            shape.error(&format!("model {} not found", body["model"])),
        ));
    }
    if texts.len() > behavior.max_inputs {
        let message = format!(
            "batch size {} > maximum allowed batch size {}",
            texts.len(),
            behavior.max_inputs
        );
        return Some((413, shape.error(&message)));
    }
    if let Some(place) = has(&behavior.refuse) {
        return Some((400, shape.error(&format!("'$.input[{place}]' is invalid"))));
    }
    if has(&behavior.crash).is_some() {
        return Some((500, shape.error("CUDA error: device-side assert triggered")));
    }
    let longest = texts.iter().map(|text| tokens_of(text)).max()?;
    let is_too_long = longest > behavior.max_text_tokens && !shape.cuts(body);
    is_too_long.then(|| (400, shape.too_long(behavior.max_text_tokens, longest)))
}

fn first_words(text: &str, max: usize) -> String {
    match tokens_of(text) > max {
        true => text
            .split_whitespace()
            .take(max)
            .collect::<Vec<_>>()
            .join(" "),
        false => text.to_owned(),
    }
}

fn body_answer(answer: String, act: &Act) -> Response<Body> {
    match act {
        Act::HalfJson => json(200, answer[..answer.len() / 2].to_owned()),
        Act::CutAfter(bytes) => cut(answer, *bytes),
        Act::Endless => {
            let chunk = Bytes::from(vec![b' '; 1 << 16]);
            let chunks = stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
            let mut response = json(200, String::new());
            *response.body_mut() = BodyExt::boxed_unsync(StreamBody::new(chunks));
            response
        }
        _ => json(200, answer),
    }
}

/// As long as it says, but for the end.
fn cut(answer: String, bytes: usize) -> Response<Body> {
    let length = answer.len();
    let sent = Bytes::from(answer).slice(..bytes.min(length));
    let chunks = stream::unfold(Some(sent), |sent| async {
        match sent {
            Some(sent) => Some((Ok(Frame::data(sent)), None)),
            None => {
                // What was sent leaves first.
                sleep(Duration::from_millis(20)).await;
                Some((Err(io::Error::other("cut")), None))
            }
        }
    });
    let mut response = json(200, String::new());
    response
        .headers_mut()
        .insert("content-length", length.into());
    *response.body_mut() = BodyExt::boxed_unsync(StreamBody::new(chunks));
    response
}

fn status_answer(status: u16, headers: &[(&'static str, String)], body: &str) -> Response<Body> {
    let mut response = text(status, body.to_owned());
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}

fn json(status: u16, body: String) -> Response<Body> {
    let mut response = text(status, body);
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}

fn text(status: u16, body: String) -> Response<Body> {
    let never = |never: Infallible| match never {};
    let mut response = Response::new(Full::new(Bytes::from(body)).map_err(never).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
}
