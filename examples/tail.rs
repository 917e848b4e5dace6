//! Prints each change of a publication, and confirms what it has printed.
//!
//! ```sh
//! cargo run --example tail -- 'host=localhost user=me password=secret dbname=app' my_publication
//! ```
//!
//! The server needs `wal_level = logical`, and the role the attribute REPLICATION. The slot is temporary: the server
//! drops it when the connection ends. For TLS, pass a connector in place of `NoTls`.

use std::{collections::HashMap, error::Error, io::Write, pin::pin};

use lantern::replication::pgoutput::{Message, RelationId, RelationSchema, Value, decode};
use lantern::replication::{Frame, Lsn, LsnTracker, ReplicationConnection, SlotName};
use tokio::net::TcpStream;
use tokio_postgres::{Config, NoTls, config::Host};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, publication] = &arguments[..] else {
        return Err("usage: tail CONNECTION_STRING PUBLICATION".into());
    };
    let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
    tail(&config.parse()?, publication, std::io::stdout(), ctrl_c).await
}

/// Prints changes to `out` until `stop` completes.
///
/// # Errors
/// Whatever the connection, the server or `out` reports.
pub async fn tail(
    config: &Config,
    publication: &str,
    mut out: impl Write,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn Error>> {
    let [Host::Tcp(host)] = config.get_hosts() else {
        return Err("name one host".into());
    };
    let port = *config.get_ports().first().unwrap_or(&5432);
    let socket = TcpStream::connect((host.as_str(), port)).await?;
    let mut connection = ReplicationConnection::connect(socket, NoTls, config, &[]).await?;

    let slot = SlotName::try_from(format!("tail_{}", connection.process_id()))?;
    let create = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput");
    connection.simple_query(&create).await?;
    let publications = [publication];
    let start = connection.start_replication(&slot, Lsn::ZERO, &publications);
    let mut stream = start.await?;

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

/// One line for a changed row, without its NULLs: `update docs id=1 -> id=2 body=hello`.
fn describe(
    relations: &HashMap<RelationId, RelationSchema>,
    change: Message<'_>,
) -> Option<String> {
    let (verb, id, rows) = match change {
        Message::Insert { relation, new } => ("insert", relation, [None, Some(new)]),
        // The old key, if the update changed it, or the whole old row under REPLICA IDENTITY FULL.
        Message::Update {
            relation,
            key,
            old,
            new,
        } => ("update", relation, [key.or(old), Some(new)]),
        Message::Delete { relation, key, old } => ("delete", relation, [key.or(old), None]),
        _ => return None,
    };
    // The server sends a Relation message before the first row of a table.
    let table = relations.get(&id)?;
    let rows = rows.into_iter().flatten().map(|row| {
        let columns = table.columns.iter().zip(row);
        let values = columns.filter_map(|(column, value)| match value {
            Value::Null => None,
            Value::UnchangedToast => Some(format!("{}=(unchanged)", column.name)),
            value => Some(format!("{}={}", column.name, value.as_str()?)),
        });
        values.collect::<Vec<_>>().join(" ")
    });
    let rows = rows.collect::<Vec<_>>().join(" -> ");
    Some(format!("{verb} {} {rows}", table.name))
}
