//! Prints each change of a publication, and confirms what it has printed.
//!
//! ```sh
//! cargo run --example tail -- localhost:5432 'user=me password=secret dbname=app' my_publication
//! ```
//!
//! The server needs `wal_level = logical`, and the role the attribute REPLICATION. The slot is temporary: the server
//! drops it when the connection ends. For TLS, pass a connector in place of `NoTls`.

use std::{collections::HashMap, error::Error, io::Write};

use lantern::replication::pgoutput::{Message, RelationId, RelationSchema, decode};
use lantern::replication::{Frame, Lsn, LsnTracker, ReplicationConnection, SlotName};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, config, publication] = &arguments[..] else {
        return Err("usage: tail HOST:PORT CONNECTION_STRING PUBLICATION".into());
    };
    let socket = TcpStream::connect(address).await?;
    let connection = ReplicationConnection::connect(socket, NoTls, &config.parse()?, &[]).await?;
    tail(connection, publication, std::io::stdout()).await
}

/// Prints changes to `out` until the connection ends. Cancellation safe: what was not confirmed is sent again.
///
/// # Errors
/// Whatever the connection, the server or `out` reports.
pub async fn tail(
    mut connection: ReplicationConnection,
    publication: &str,
    mut out: impl Write,
) -> Result<(), Box<dyn Error>> {
    let slot = SlotName::try_from(format!("tail_{}", connection.process_id()))?;
    let create = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput");
    connection.simple_query(&create).await?;
    let publications = [publication];
    let stream = connection.start_replication(&slot, Lsn::ZERO, &publications);
    let mut stream = stream.await?;

    let (mut tables, mut transaction) = (Tables::new(), None);
    let mut tracker = LsnTracker::new(Lsn::ZERO);
    loop {
        match stream.next().await? {
            Frame::Keepalive { wal_end, .. } => tracker.keepalive(wal_end),
            Frame::XLogData { payload, .. } => match decode(&payload)? {
                Message::Begin { .. } => transaction = Some(tracker.begin()),
                Message::Relation(body) => drop(tables.insert(body.id, body.to_owned())),
                Message::Commit { end_lsn, .. } => tracker.commit(end_lsn),
                change => {
                    // A row is outstanding until it is processed. Here that is at once. Where tasks finish rows in any
                    // order, the tracker confirms a transaction when all rows up to its end are finished.
                    if let (Some(ticket), Some(line)) = (transaction, describe(&tables, change)) {
                        tracker.row(ticket);
                        writeln!(out, "{line}")?;
                        tracker.finish(ticket);
                    }
                }
            },
        }
        stream.send_status(tracker.confirmed(), false).await?;
    }
}

/// What the server said of each table before its first row.
type Tables = HashMap<RelationId, RelationSchema>;

/// One line for a changed row: `insert docs id=1 body=hello`. NULL and a long text that did not change have no text.
fn describe(tables: &Tables, change: Message<'_>) -> Option<String> {
    let (verb, id, row) = match change {
        Message::Insert { relation, new } => ("insert", relation, new),
        Message::Update { relation, new, .. } => ("update", relation, new),
        Message::Delete { relation, key, old } => ("delete", relation, key.or(old)?),
        _ => return None,
    };
    let table = tables.get(&id)?;
    let mut line = format!("{verb} {}", table.name);
    for (column, value) in table.columns.iter().zip(row) {
        value
            .as_str()
            .iter()
            .for_each(|text| line += &format!(" {}={text}", column.name));
    }
    Some(line)
}
