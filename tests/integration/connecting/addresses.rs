//! Addresses of servers: a Unix socket, an IPv6 address, an address with a host name.

use super::secure_server::SecureServer;
use crate::support::program;

#[tokio::test]
async fn sockets_addresses_and_names_are_all_reached() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let directory = target.server.socket_directory().expect("a socket");
    let directory = directory.to_str().expect("a path").to_owned();
    let encoded = directory.replace('/', "%2F");
    let (port, database) = (secure.port(), target.database.name());
    let root = secure.authority.root().display().to_string();
    let places = [
        (
            "socket_in_a_url",
            target.uri("anybody", &encoded, "sslmode=require"),
        ),
        (
            "socket_as_an_option",
            format!("postgresql:///{database}?host={directory}&port={port}&user=anybody"),
        ),
        (
            "socket_as_a_keyword",
            format!("host={directory} port={port} user=anybody dbname='{database}'"),
        ),
        ("ipv6", target.uri("anybody", "[::1]", "")),
        (
            "ipv6_as_a_keyword",
            format!("hostaddr=::1 port={port} user=anybody dbname={database} sslmode=require"),
        ),
        (
            "address_under_a_name",
            target.uri(
                "anybody",
                "localhost",
                &format!("hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={root}"),
            ),
        ),
    ];
    let mut jobs = Vec::new();
    for (table, uri) in &places {
        jobs.push(target.job(table, uri).await);
    }
    // The jobs table is found by a socket too.
    let uri = &places[0].1;
    let certificates = secure.authority.root().with_file_name("");
    let certificates = certificates.to_str().expect("a path");
    let arguments = ["--table", "jobs", "--tls-directory", certificates];
    let _daemon = program().start_daemon(&[&["--uri", uri], &arguments[..]].concat());
    for (job, (table, _)) in jobs.into_iter().zip(&places) {
        target.wait_for_stream(job, table).await;
    }
}
