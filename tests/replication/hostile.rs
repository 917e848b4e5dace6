//! Servers of other protocols, and messages that claim to be longer than they are. Found by fuzzing.

use lantern::postgres::sqlstate::classify;
use lantern::replication::{ReplicationConnection, ReplicationError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_postgres::Config;

/// A client, and the other end of its connection.
async fn log_in(
    answer: &[u8],
) -> (
    Result<ReplicationConnection, ReplicationError>,
    DuplexStream,
) {
    let (client, mut server) = tokio::io::duplex(1024);
    server.write_all(answer).await.unwrap();
    let mut config = Config::new();
    config.user("me");
    let login = ReplicationConnection::over(client, &config, &[]).await;
    (login, server)
}

#[tokio::test]
async fn a_server_of_another_protocol_is_recognized_at_once() {
    for answer in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "220 smtp.example.org\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let (login, _server) = log_in(answer.as_bytes()).await;
        let error = login.err().expect("no login");
        assert!(
            error.to_string().contains("is this a PostgreSQL server?"),
            "{error}"
        );
        assert!(!error.is_link_failure());
    }
}

#[tokio::test]
async fn a_malformed_sqlstate_is_an_error_like_any_other() {
    for code in ["", "5", "57", "é", "57P01X"] {
        let fields = format!("SFATAL\0C{code}\0Mgo away\0\0");
        let length = u32::try_from(fields.len() + 4).unwrap();
        let answer = [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat();
        let (login, _server) = log_in(&answer).await;
        let error = login.err().expect("no login");
        assert!(error.to_string().starts_with("go away"), "{error}");
        assert!(!classify(error.code().unwrap()).is_transient(), "{code}");
    }
}

/// The most memory that this process has ever asked for, in KiB.
fn peak_virtual_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmPeak:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_message_takes_no_memory_before_it_arrives() {
    // AuthenticationOk and ReadyForQuery, then a DataRow of 1.9 GiB of which nothing arrives.
    let (login, mut server) = log_in(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await;
    let mut connection = login.unwrap();
    let before = peak_virtual_memory();
    server.write_all(b"D\x7A\0\0\0\0\x01").await.unwrap();
    let answering = tokio::spawn(async move { connection.simple_query("SELECT 1").await });
    // Reads the startup message and the query, so that the client has sent both and waits for the row.
    let mut heard = Vec::new();
    while !heard.ends_with(b"SELECT 1\0") {
        server.read_buf(&mut heard).await.unwrap();
    }
    drop(server);
    let error = answering.await.unwrap().unwrap_err();
    assert!(matches!(error, ReplicationError::Closed), "{error}");
    assert!(peak_virtual_memory() < before + 1_000_000);
}

/// Says `beginning`, then `message` over and over until the client has had enough.
async fn hear_without_end(beginning: &'static [u8], message: Vec<u8>) -> ReplicationError {
    let (client, mut server) = tokio::io::duplex(1 << 20);
    let saying = tokio::spawn(async move {
        server.write_all(beginning).await.unwrap();
        let many = message.repeat(1 + (1 << 18) / message.len());
        while server.write_all(&many).await.is_ok() {}
    });
    let mut config = Config::new();
    config.user("me");
    let talking = async {
        let mut connection = ReplicationConnection::over(client, &config, &[]).await?;
        connection.simple_query("SELECT 1").await
    };
    let error = talking.await.expect_err("nobody hears all of it");
    saying.await.unwrap();
    error
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let logged_in = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    let before = peak_virtual_memory();
    for answer in [
        // Rows without a column, of NULLs, and of a text.
        message(b'D', b"\0\0"),
        message(b'D', &[&[0, 2][..], &[0xff; 8]].concat()),
        message(b'D', &[b"\0\x01\0\0\x40\0", &[b'x'; 1 << 14][..]].concat()),
        // One error of 100 MB.
        message(b'E', &[b"M", &vec![b'x'; 100 << 20][..], b"\0\0"].concat()),
    ] {
        let error = hear_without_end(logged_in, answer).await.to_string();
        assert!(error.contains("no PostgreSQL server sends"), "{error}");
    }
    assert!(peak_virtual_memory() < before + 2_000_000);
}

#[tokio::test]
async fn settings_without_end_are_given_up() {
    let logged_in = b"R\0\0\0\x08\0\0\0\0";
    let one = message(b'S', &["n".repeat(20_000).as_bytes(), b"\0on\0"].concat());
    let error = hear_without_end(logged_in, one).await.to_string();
    assert!(error.contains("no PostgreSQL server sends"), "{error}");
}
