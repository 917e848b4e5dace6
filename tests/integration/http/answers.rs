//! Who is answered, and with what.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lantern::http::{HttpServer, Listen, ListenError};
use lantern::status::StatusBoard;
use lantern::status::job_status::JobState;
use lantern::status::record::DaemonName;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::fixtures::{Shown, backfilling, daemon, idle, snapshot, streaming};
use super::requests::{get, send};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn every_answer_forbids_other_sites_to_show_read_or_keep_it() {
    let shown = Shown::start();
    shown
        .board
        .publish(snapshot(vec![streaming("1", "public.articles")], vec![]));
    for (path, status, kind) in [
        ("/", 200, "text/html; charset=utf-8"),
        ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", 200, "text/plain; charset=utf-8"),
        ("/readyz", 200, "text/plain; charset=utf-8"),
        ("/api/status", 200, "application/json"),
        ("/nowhere", 404, "text/plain; charset=utf-8"),
        ("/../etc/passwd", 404, "text/plain; charset=utf-8"),
    ] {
        let answer = get(shown.address(), path, &["Origin: http://evil.example"]);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, kind),
            "{path}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(
            answer.header("cross-origin-resource-policy"),
            "same-origin",
            "{path}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; "),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
    }
}

#[test]
fn only_reading_is_allowed() {
    let shown = Shown::start();
    let address = shown.address();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let request =
            format!("{method} /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let answer = send(address, &request);
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, "GET,HEAD"),
            "{method}"
        );
    }
    let head = send(
        address,
        format!("HEAD / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
    );
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

/// A page of a site whose name leads to 127.0.0.1 asks under that name.
#[test]
fn a_request_for_another_name_is_refused_on_this_machine() {
    let shown = Shown::start();
    shown.board.publish(snapshot(vec![], vec![]));
    for host in ["localhost", "LocalHost:80", "127.0.0.1:9187", "[::1]:9187"] {
        let answer = get(shown.address(), "/metrics", &[&format!("Host: {host}")]);
        assert_eq!(answer.status, 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:9187",
        "localhost.evil.example",
        "",
    ] {
        for path in ["/", "/metrics", "/readyz", "/api/status"] {
            let answer = get(shown.address(), path, &[&format!("Host: {host}")]);
            assert_eq!(answer.status, 421, "{host} {path}");
            assert!(!answer.body.contains("lantern_"), "{host} {path}");
            assert!(
                answer.body.contains("--listen-token-file"),
                "{}",
                answer.body
            );
        }
    }
    let absolute =
        "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(send(shown.address(), absolute).status, 421);
    // Programs without a Host are no browsers.
    assert_eq!(
        send(shown.address(), "GET /healthz HTTP/1.0\r\n\r\n").status,
        200
    );
}

#[test]
fn with_a_token_nothing_is_told_without_it() {
    let shown = Shown::at("127.0.0.1:0", Some(TOKEN));
    let failed = idle(
        "7",
        "public.secret_table",
        JobState::Failed,
        "a secret reason",
    );
    shown.board.publish(snapshot(vec![failed], vec![]));
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let basic = "Authorization: Basic dXNlcjowMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZg==";
    let wrong = format!("Authorization: Bearer {}", TOKEN.replace('0', "1"));
    for path in ["/", "/metrics", "/api/status", "/nowhere"] {
        for headers in [vec![], vec![wrong.as_str()], vec!["Authorization: Basic !"]] {
            let answer = get(shown.address(), path, &headers);
            assert_eq!(answer.status, 401, "{path} {headers:?}");
            let challenges = answer.head.matches("www-authenticate: ").count();
            let expected = if path == "/api/status" { 1 } else { 2 };
            assert_eq!(challenges, expected, "{}", answer.head);
            assert!(!answer.body.contains("secret"), "{path}: {}", answer.body);
        }
        for authorization in [bearer.as_str(), basic] {
            // Under any name: a browser keeps the token for the name that it was given for.
            let answer = get(
                shown.address(),
                path,
                &[authorization, "Host: metrics.example"],
            );
            assert_ne!(answer.status, 401, "{path} {authorization}");
        }
    }
    // A probe needs none, and is told no names.
    assert_eq!(get(shown.address(), "/healthz", &[]).body, "alive\n");
    let probe = get(shown.address(), "/readyz", &[]);
    assert_eq!(
        (probe.status, probe.body.as_str()),
        (503, "not ready: 0 jobs at work, 1 not\n")
    );
    let admitted = get(shown.address(), "/readyz", &[&bearer]);
    assert!(
        admitted
            .body
            .ends_with("job 7 (public.secret_table) has failed: a secret reason\n"),
        "{}",
        admitted.body
    );
}

#[test]
fn a_port_that_others_reach_needs_a_token() {
    let start = |address: &str, without_token| {
        let listen = Listen {
            address: address.parse().unwrap(),
            token: None,
            without_token,
            tls: None,
        };
        HttpServer::start(listen, StatusBoard::default(), CancellationToken::new())
    };
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.7:9187"] {
        let Err(error @ ListenError::Exposed(_)) = start(address, false) else {
            panic!("{address}");
        };
        let error = error.to_string();
        for remedy in [
            "--listen-token-file",
            "LANTERN_LISTEN_TOKEN",
            "127.0.0.1",
            "--listen-without-token",
        ] {
            assert!(error.contains(remedy), "{error}");
        }
    }
    // Told so, it answers everyone, whatever name they use.
    let server = start("0.0.0.0:0", true).unwrap_or_else(|error| panic!("{error}"));
    let address = ([127, 0, 0, 1], server.address().port()).into();
    assert_eq!(
        get(address, "/healthz", &["Host: metrics.example"]).status,
        200
    );
}

#[test]
fn it_listens_on_ipv6_too() {
    let shown = Shown::at("[::1]:0", None);
    assert_eq!(get(shown.address(), "/healthz", &[]).body, "alive\n");
}

#[test]
fn readiness_names_each_job_that_is_not_at_work() {
    let shown = Shown::start();
    let answer = || {
        let answer = get(shown.address(), "/readyz", &[]);
        (answer.status, answer.body)
    };
    assert_eq!(
        answer(),
        (503, "the daemon has not read its jobs table yet\n".into())
    );
    shown.board.publish(snapshot(vec![], vec![]));
    assert_eq!(answer(), (200, "ready: 0 jobs at work\n".into()));

    let mut elsewhere = streaming("3", "public.c");
    elsewhere.daemon = Some(DaemonName { pid: 1, ..daemon() });
    elsewhere.state = JobState::Interrupted;
    let mut of_an_unknown_daemon = streaming("4", "public.d");
    of_an_unknown_daemon.daemon = None;
    let canceled = idle("5", "public.e", JobState::Canceled, "");
    let well = vec![
        streaming("1", "public.a"),
        backfilling("2", "public.b"),
        elsewhere,
        of_an_unknown_daemon,
        canceled,
    ];
    shown.board.publish(snapshot(well.clone(), vec![]));
    assert_eq!(answer(), (200, "ready: 2 jobs at work\n".into()));

    let mut starting = streaming("8", "public.h");
    starting.state = JobState::Starting;
    let ill = vec![
        idle("6", "public.f", JobState::Failed, "no such\nmodel"),
        idle("7", "public.g", JobState::Waiting, ""),
        starting,
        idle("9", "public.i", JobState::Stopped, ""),
    ];
    shown.board.publish(snapshot([well, ill].concat(), vec![]));
    let lines = "not ready: 2 jobs at work, 4 not\n\
                 job 6 (public.f) has failed: no such\\nmodel\n\
                 job 7 (public.g) no daemon has started it: no reason is known\n\
                 job 8 (public.h) starts: no reason is known\n\
                 job 9 (public.i) no daemon runs it: no reason is known\n";
    assert_eq!(answer(), (503, lines.into()));

    shown.stop.cancel();
    assert_eq!(
        answer(),
        (503, "not ready: the daemon is asked to stop\n".into())
    );
    assert_eq!(get(shown.address(), "/healthz", &[]).status, 200);
}

#[test]
fn the_state_is_told_as_json_with_the_last_minutes() {
    let shown = Shown::start();
    assert_eq!(get(shown.address(), "/api/status", &[]).status, 503);
    assert_eq!(get(shown.address(), "/metrics", &[]).status, 503);
    let mut job = streaming("1", "public.articles");
    job.rows_per_second = Some(12.345_678);
    shown.board.publish(snapshot(vec![job.clone()], vec![]));
    // Later ones of the same seconds are no samples.
    job.rows_per_second = Some(99.0);
    shown.board.publish(snapshot(vec![job], vec![]));
    let answer = get(shown.address(), "/api/status", &[]);
    let status: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(status["jobs"][0]["rows_per_second"], 99.0);
    assert_eq!(status["daemon"]["name"]["pid"], 4242);
    assert_eq!(
        status["history"]["1"]["rows_per_second"],
        serde_json::json!([12.35])
    );
    assert!(status["published"].as_f64().unwrap() > 1.7e9, "{status}");
}

/// Connections without a request and requests without an end are limited, and the server ends at once all the same.
#[test]
fn idle_and_endless_requests_hold_nothing_up() {
    let shown = Shown::start();
    let address = shown.address();
    let mut idle: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(address).expect("the queue has room"))
        .collect();
    // A head without an end is cut off where it is too long.
    let endless = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nX: {}",
        "x".repeat(1 << 20)
    );
    let _ = idle[0].write_all(endless.as_bytes());
    let _ = idle[0].set_read_timeout(Some(Duration::from_secs(30)));
    let mut answer = [0; 12];
    if idle[0].read_exact(&mut answer).is_ok() {
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
    let begin = Instant::now();
    drop(shown);
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    // Not whether the address is free: another test may have it by now.
    let _ = idle[1].set_read_timeout(Some(Duration::from_secs(5)));
    let closed = idle[1].read(&mut answer);
    let is_closed = match &closed {
        Ok(read) => *read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    assert!(is_closed, "{closed:?}");
}
