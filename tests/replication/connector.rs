//! The connector: which of several servers, which of its addresses, with TLS or without. And a walsender that is
//! reached through the same connector.

use std::time::{Duration, Instant};

use lantern::postgres::{ConnectionString, DatabaseError, Session, connector, tls};
use lantern::replication::ReplicationConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::postgres::server;

/// A port at which no server listens.
async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

async fn open(connection_string: &str) -> Result<Session, DatabaseError> {
    Session::open(&connection_string.parse().unwrap()).await
}

async fn failure(connection_string: &str) -> DatabaseError {
    open(connection_string)
        .await
        .err()
        .expect("a failure to connect")
}

#[tokio::test]
async fn the_next_server_is_tried_if_one_is_unreachable() {
    let ports = format!("{},{}", closed_port().await, server().port());
    let session = open(&format!(
        "host=127.0.0.1,127.0.0.1 port={ports} user=postgres"
    ))
    .await
    .unwrap();
    assert_eq!(session.server().servers().len(), 1);
    assert_eq!(session.server().first_server().port, server().port());
}

#[tokio::test]
async fn the_search_ends_at_a_server_that_refuses_the_login() {
    let ports = format!("{},{}", server().port(), closed_port().await);
    let hosts = format!("host=127.0.0.1,127.0.0.1 port={ports} dbname=postgres");
    let error = failure(&format!("{hosts} user=scram password=wrong")).await;
    assert_eq!(error.code().unwrap().code(), "28P01", "{error}");
    assert!(!error.is_transient());
    assert!(!error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn an_unreachable_server_is_named_and_transient() {
    let port = closed_port().await;
    let error = failure(&format!("host=127.0.0.1 port={port} user=postgres")).await;
    let message = error.to_string();
    assert!(message.contains(&format!("127.0.0.1:{port}")), "{message}");
    assert!(message.contains("Connection refused"), "{message}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_server_that_does_not_answer_fails_after_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let begin = Instant::now();
    let hosts = format!("host=127.0.0.1 port={port}");
    let error = failure(&format!("{hosts} user=postgres connect_timeout=1")).await;
    assert!(error.to_string().contains("no answer within 1s"), "{error}");
    assert!(error.is_transient());
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn target_session_attrs_decides_which_server_will_do() {
    let host = format!("host=127.0.0.1 port={} user=postgres", server().port());
    open(&format!("{host} target_session_attrs=read-write"))
        .await
        .unwrap();
    let error = failure(&format!("{host} target_session_attrs=standby")).await;
    assert!(error.to_string().contains("no standby"), "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_server_that_sends_a_malformed_sqlstate_is_a_permanent_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        client.read_u8().await.unwrap();
        let refusal = b"E\0\0\0\x18SFATAL\0C5\0Mgo away\0\0";
        client.write_all(refusal).await.unwrap();
        // Waits for the client to hang up, so that it reads the refusal before a reset.
        let _ = client.read_to_end(&mut Vec::new()).await;
    });
    let host = format!("host=127.0.0.1 port={port} user=postgres sslmode=disable");
    let error = failure(&host).await;
    assert!(
        error.to_string().contains("go away (SQLSTATE 5)"),
        "{error}"
    );
    assert!(!error.is_transient());
}

/// A server whose TLS is broken: it accepts SSLRequest and answers the handshake with another protocol. Connections
/// without TLS pass through to the real server. Returns its port.
async fn server_with_broken_tls() -> u16 {
    // It starts here, not within the time limit of a connection.
    self::server();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut start = [0; 8];
            client.read_exact(&mut start).await.unwrap();
            // The code of SSLRequest (manual: "Message Formats").
            if start[4..] == 80_877_103_i32.to_be_bytes() {
                client.write_all(b"S").await.unwrap();
                client.read_u8().await.unwrap();
                client
                    .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    .await
                    .unwrap();
                continue;
            }
            tokio::spawn(async move {
                let address = ("127.0.0.1", self::server().port());
                let mut server = TcpStream::connect(address).await.unwrap();
                server.write_all(&start).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_failed_handshake_falls_back_to_no_tls_under_prefer_alone() {
    let port = server_with_broken_tls().await;
    let host = format!("host=127.0.0.1 port={port} user=postgres");
    let session = open(&format!("{host} sslmode=prefer")).await.unwrap();
    // The walsender then goes without TLS too.
    assert_eq!(session.server().tls().encryption, tls::Encryption::Disable);
    assert!(log_in_for_replication(session.server()).await.is_some());
    let error = failure(&format!("{host} sslmode=require")).await;
    assert!(error.to_string().contains("TLS"), "{error}");
}

async fn log_in_for_replication(server: &ConnectionString) -> Option<ReplicationConnection> {
    let tls = tls::connector(server.tls()).await.unwrap();
    let opened = connector::open(server, &tls, async |opened| {
        ReplicationConnection::connect(opened.socket, opened.tls, &opened.config, &[]).await
    });
    opened.await.ok()?.ok()
}

/// The same guard is below both clients.
#[tokio::test]
async fn a_walsender_gets_no_answer_that_require_auth_forbids() {
    // AuthenticationCleartextPassword; behind a NoticeResponse, which the replication client skips; and
    // AuthenticationMD5Password.
    let questions: [&'static [u8]; 3] = [
        b"R\0\0\0\x08\0\0\0\x03",
        b"N\0\0\0\x08MHi\0R\0\0\0\x08\0\0\0\x03",
        b"R\0\0\0\x0c\0\0\0\x05salt",
    ];
    for question in questions {
        for methods in ["scram-sha-256", "!password,!md5"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let told = tokio::spawn(async move {
                let (mut client, _) = listener.accept().await.unwrap();
                let length = client.read_u32().await.unwrap();
                client
                    .read_exact(&mut vec![0; length as usize - 4])
                    .await
                    .unwrap();
                client.write_all(question).await.unwrap();
                let mut told = Vec::new();
                client.read_to_end(&mut told).await.map(|_| told)
            });
            let text = format!(
                "host=127.0.0.1 port={port} user=me password=secret sslmode=disable require_auth={methods}"
            );
            let server: ConnectionString = text.parse().unwrap();
            assert!(log_in_for_replication(&server).await.is_none());
            assert_eq!(told.await.unwrap().unwrap_or_default(), b"", "{question:?}");
        }
    }
}

/// What another protocol answers is refused at its first bytes, instead of being waited for.
#[tokio::test]
async fn a_server_of_another_protocol_is_recognized_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        client.read_u8().await.unwrap();
        client
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        std::future::pending::<()>().await;
    });
    let host = format!("host=127.0.0.1 port={port} user=me sslmode=disable");
    let error = failure(&host).await.to_string();
    assert!(error.contains("none of a PostgreSQL server"), "{error}");
}

#[tokio::test]
async fn a_walsender_is_reached_at_the_server_of_a_session() {
    let ports = format!("{},{}", closed_port().await, server().port());
    let session = open(&format!(
        "host=localhost,localhost port={ports} user=postgres"
    ))
    .await
    .unwrap();
    let mut connection = log_in_for_replication(session.server()).await.unwrap();
    assert!(connection.identify_system().await.is_ok());
    assert_eq!(
        connection.parameter("application_name"),
        Some("lantern-cli")
    );
}
