//! Where a server may be: a Unix socket, an IPv6 address, an address under a name.

use super::secure_server::SecureServer;
use crate::support::Daemon;

#[tokio::test]
async fn sockets_addresses_and_names_are_all_reached() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let scene = secure.scene().await;
    let directory = scene.server.socket_directory().expect("a socket");
    let directory = directory.to_str().expect("a path").to_owned();
    let encoded = directory.replace('/', "%2F");
    let (port, database) = (secure.port(), scene.database.name());
    let root = secure.authority.root().display().to_string();
    let places = [
        (
            "socket_in_a_url",
            scene.uri("anybody", &encoded, "sslmode=require"),
        ),
        (
            "socket_as_an_option",
            format!("postgresql:///{database}?host={directory}&port={port}&user=anybody"),
        ),
        (
            "socket_as_a_keyword",
            format!("host={directory} port={port} user=anybody dbname='{database}'"),
        ),
        ("ipv6", scene.uri("anybody", "[::1]", "")),
        (
            "ipv6_as_a_keyword",
            format!("hostaddr=::1 port={port} user=anybody dbname={database} sslmode=require"),
        ),
        (
            "address_under_a_name",
            scene.uri(
                "anybody",
                "localhost",
                &format!("hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={root}"),
            ),
        ),
    ];
    let mut jobs = Vec::new();
    for (table, uri) in &places {
        jobs.push(scene.job(table, uri).await);
    }
    // The jobs table is found by a socket too.
    let uri = &places[0].1;
    let _daemon = Daemon::start_with(&["--uri", uri, "--table", "jobs"]);
    for (job, (table, _)) in jobs.into_iter().zip(&places) {
        scene.streams(job, table).await;
    }
}
