//! A hostile server to a replication connection, from the socket to the end of the stream: whatever it says, each call
//! ends with an answer or an error, in time, and holds little more than what was sent.
//!
//! The first byte decides on the connection string; the rest is what the server says.

#![no_main]

use std::net::SocketAddr;

use lantern::postgres::{ConnectionString, connector, tls};
use lantern::replication::pgoutput::decode;
use lantern::replication::{Frame, Lsn, ReplicationConnection, ReplicationError, SlotName};
use lantern_fuzz::hostile;
use libfuzzer_sys::fuzz_target;

const MODES: [&str; 3] = ["disable", "prefer", "require"];

fuzz_target!(|input: &[u8]| {
    let Some((&choice, script)) = input.split_first() else {
        return;
    };
    hostile::play(script, async |address| {
        if let Err(error) = session(choice, address).await {
            let _ = (error.to_string(), error.code(), error.is_link_failure());
        }
    });
});

async fn session(choice: u8, address: SocketAddr) -> Result<(), ReplicationError> {
    let text = format!(
        "host={} port={} user=u password=p dbname=d connect_timeout=4 sslmode={}",
        address.ip(),
        address.port(),
        MODES[usize::from(choice) % MODES.len()],
    );
    let target: ConnectionString = text.parse().expect("a connection string");
    let tls = tls::connector(target.tls()).expect("TLS without files");
    let config = target.config();
    let opened = connector::open(&target, &tls, async |socket, tls| {
        ReplicationConnection::connect(socket, tls, &config, &[("DateStyle", "ISO")]).await
    });
    let mut connection = match opened.await {
        Ok(login) => login?,
        Err(failure) => return Err(ReplicationError::Config(failure.to_string())),
    };
    connection.identify_system().await?;
    if let Err(error) = connection.simple_query("SELECT slot FROM slots").await
        && error.code().is_none()
    {
        return Err(error);
    }
    let slot = SlotName::try_from("fuzz").expect("a slot name");
    let mut stream = connection
        .start_replication(&slot, Lsn::ZERO, &["fuzz"])
        .await?;
    loop {
        match stream.next().await? {
            Frame::XLogData {
                wal_end, payload, ..
            } => {
                let _ = decode(&payload).map_err(|error| error.to_string());
                stream.send_status(wal_end, false).await?;
            }
            Frame::Keepalive { wal_end, .. } => stream.send_status(wal_end, false).await?,
        }
    }
}
