//! Prints each change of a publication, and confirms what it has printed.
//!
//! ```sh
//! cargo run --example tail -- localhost:5432 'user=me password=secret dbname=app' my_publication
//! ```
//!
//! The server needs `wal_level = logical`, and the role the attribute REPLICATION. The slot is temporary: the server
//! drops it when the connection ends. For TLS, pass a connector in place of `NoTls`.

use std::{collections::HashMap, error::Error, io::Write, pin::pin};

use lantern::replication::pgoutput::{Message, RelationId, RelationSchema, decode};
use lantern::replication::{Frame, Lsn, LsnTracker, ReplicationConnection, SlotName};
use tokio::net::TcpStream;
use tokio_postgres::{Config, NoTls};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, config, publication] = &arguments[..] else {
        return Err("usage: tail HOST:PORT CONNECTION_STRING PUBLICATION".into());
    };
    let socket = TcpStream::connect(address).await?;
    let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
    tail(
        socket,
        &config.parse()?,
        publication,
        std::io::stdout(),
        ctrl_c,
    )
    .await
}

/// Prints changes to `out` until `stop` completes.
///
/// # Errors
/// Whatever the connection, the server or `out` reports.
pub async fn tail(
    socket: TcpStream,
    config: &Config,
    publication: &str,
    mut out: impl Write,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn Error>> {
    let mut connection = ReplicationConnection::connect(socket, NoTls, config, &[]).await?;

    let slot = SlotName::try_from(format!("tail_{}", connection.process_id()))?;
    let create = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput");
    connection.simple_query(&create).await?;
    let mut stream = connection
        .start_replication(&slot, Lsn::ZERO, &[publication])
        .await?;

    let mut relations = HashMap::new();
    let mut tracker = LsnTracker::new(Lsn::ZERO);
    let mut transaction = None;
    let mut stop = pin!(stop);
    loop {
        let frame = tokio::select! {
            frame = stream.next() => frame?,
            () = &mut stop => return Ok(stream.finish().await?),
        };
        match frame {
            Frame::Keepalive { wal_end, .. } => tracker.keepalive(wal_end),
            Frame::XLogData { payload, .. } => match decode(&payload)? {
                Message::Begin { .. } => transaction = Some(tracker.begin()),
                Message::Relation(body) => drop(relations.insert(body.id, body.to_owned())),
                Message::Commit { end_lsn, .. } => tracker.commit(end_lsn),
                change => {
                    // A row is outstanding until it is processed. Here that is at once. Where tasks finish rows in any
                    // order, the tracker confirms a transaction when all rows up to its end are finished.
                    if let (Some(ticket), Some(line)) = (transaction, describe(&relations, change))
                    {
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

/// One line for a changed row: `insert docs id=1 body=hello`. NULL and a long text that did not change have no text.
fn describe(
    relations: &HashMap<RelationId, RelationSchema>,
    change: Message<'_>,
) -> Option<String> {
    let (verb, id, row) = match change {
        Message::Insert { relation, new } => ("insert", relation, new),
        Message::Update { relation, new, .. } => ("update", relation, new),
        Message::Delete { relation, key, old } => ("delete", relation, key.or(old)?),
        _ => return None,
    };
    // The server sends a Relation message before the first row of a table.
    let table = relations.get(&id)?;
    let texts = table.columns.iter().zip(row);
    let texts =
        texts.filter_map(|(column, value)| Some(format!(" {}={}", column.name, value.as_str()?)));
    Some(format!(
        "{verb} {}{}",
        table.name,
        texts.collect::<String>()
    ))
}
