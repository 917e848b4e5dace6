//! `lantern-cli healthcheck`, as a container runs it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use nix::sys::signal::Signal;
use testkit::client::execute;
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill, wait_for_failure};
use testkit::server;
use testkit::wait::{TIMEOUT, wait_until};

use super::daemon::{address_of, wait_for_state};
use crate::support::{program, start_daemon};

/// Asks a daemon; returns the exit status, what is printed and what is said.
async fn healthcheck(listen: &str, arguments: &[&str]) -> (i32, String, String) {
    let program = program().with_env("LANTERN_LISTEN", listen);
    let output = program.run(&[&["healthcheck"], arguments].concat()).await;
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    let status = output.status.code().expect("it ends by itself");
    (status, text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_daemon_is_asked_whether_it_works_and_whether_its_jobs_do() {
    let (database, client) = articles(server::shared()).await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    // Everywhere, as in a container.
    let daemon = start_daemon(
        &database,
        &["--listen", "0.0.0.0:0", "--listen-without-token"],
    );
    let address = address_of(&daemon).await;
    let listen = format!("0.0.0.0:{}", address.port());
    wait_for_state(SocketAddr::new([127, 0, 0, 1].into(), address.port())).await;
    wait_for_backfill(&client, job).await;
    let said = healthcheck(&listen, &[]).await;
    assert_eq!((said.0, said.2.as_str()), (0, ""), "{said:?}");
    wait_until("it is ready", TIMEOUT, async || {
        let said = healthcheck(&listen, &["--ready"]).await;
        if said.1 == "ready: 1 job at work\n" {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;

    execute(&client, "ALTER TABLE articles RENAME TO elsewhere").await;
    wait_for_failure(&client, job).await;
    wait_until("it is not ready", TIMEOUT, async || {
        let said = healthcheck(&listen, &["--ready"]).await;
        let expected = said.0 == 1 && said.1.is_empty() && said.2.contains("not ready");
        if expected { Ok(()) } else { Err(said) }
    })
    .await;
    assert_eq!(healthcheck(&listen, &[]).await.0, 0);

    daemon.signal(Signal::SIGSTOP);
    let hung = healthcheck(&listen, &["--timeout", "200ms"]).await;
    daemon.signal(Signal::SIGCONT);
    assert_eq!(hung.0, 1);
    assert!(
        hung.2.contains("no answer from http://127.0.0.1:"),
        "{hung:?}"
    );
}

#[tokio::test]
async fn where_no_daemon_answers_the_message_says_so() {
    let nothing = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nothing.local_addr().expect("a port").to_string();
    drop(nothing);
    let (status, _, said) = healthcheck(&address, &[]).await;
    assert_eq!(status, 1);
    let expected =
        format!("cannot ask http://{address}/healthz; does a daemon run with --listen {address}?");
    assert!(
        said.contains(&expected) && said.contains("refused"),
        "{said}"
    );
}

#[tokio::test]
async fn another_program_at_the_port_is_not_taken_for_a_daemon() {
    for answer in [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n\u{1b}[2Jno",
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    ] {
        let other = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = other.local_addr().expect("a port").to_string();
        thread::spawn(move || {
            let (mut stream, _) = other.accept().expect("a client");
            stream.write_all(answer.as_bytes()).expect("it reads");
        });
        let (status, printed, said) = healthcheck(&address, &[]).await;
        assert_eq!((status, printed.as_str()), (1, ""), "{said}");
        assert!(!said.is_empty() && !said.contains('\u{1b}'), "{said:?}");
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    let (status, _, said) = healthcheck("nonsense", &[]).await;
    assert_eq!(status, 2);
    assert!(said.contains("IP address and a port"), "{said}");
}
