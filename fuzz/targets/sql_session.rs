//! A hostile server to an SQL session, from the socket to the last statement: whatever it says, each call ends with an
//! answer or an error, in time, and holds little more than what was sent.
//!
//! The first byte decides on the connection string; the rest is what the server says.

#![no_main]

use std::net::SocketAddr;

use lantern::postgres::{ConnectionString, DatabaseError, ServerInstance, Session};
use lantern_fuzz::hostile;
use libfuzzer_sys::fuzz_target;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

const MODES: [&str; 3] = ["disable", "prefer", "require"];
const WANTED: [&str; 4] = ["any", "read-write", "primary", "prefer-standby"];

fuzz_target!(|input: &[u8]| {
    let Some((&choice, script)) = input.split_first() else {
        return;
    };
    hostile::play(script, async |address| {
        if let Err(error) = session(choice, address).await {
            sayable(&error);
        }
    });
});

async fn session(choice: u8, address: SocketAddr) -> Result<(), DatabaseError> {
    let text = format!(
        "host={} port={} user=u password=p dbname=d connect_timeout=4 sslmode={} target_session_attrs={}",
        address.ip(),
        address.port(),
        MODES[usize::from(choice) % MODES.len()],
        WANTED[usize::from(choice >> 4) % WANTED.len()],
    );
    let target: ConnectionString = text.parse().expect("a connection string");
    let session = Session::open(&target).await?;
    // Each of these may fail by itself.
    for failed in [
        session.role().await.err(),
        ServerInstance::of(&session).await.err(),
        read(&session, "SELECT a, b, c FROM t WHERE x = $1", &[&"x"])
            .await
            .err(),
        read(&session, "SELECT v::int FROM t", &[]).await.err(),
    ] {
        if let Some(error) = failed {
            sayable(&error);
        }
    }
    let failed = DatabaseError::during("a statement");
    let statement = session
        .repeated("SELECT a FROM t WHERE x = $1")
        .await
        .map_err(failed)?;
    let failed = DatabaseError::during("a statement");
    session.query(&statement, &[&"x"]).await.map_err(failed)?;
    let failed = DatabaseError::during("a script");
    session
        .batch_execute("SET a = b; SELECT 1")
        .await
        .map_err(failed)
}

async fn read(
    session: &Session,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<(), DatabaseError> {
    let rows = session.query(statement, parameters).await;
    for row in rows.map_err(DatabaseError::during("a query"))? {
        values(&row);
    }
    Ok(())
}

/// Every value as each type that our statements ask for.
fn values(row: &Row) {
    for column in 0..row.len() {
        let _ = row.try_get::<_, Option<String>>(column);
        let _ = row.try_get::<_, Option<i32>>(column);
        let _ = row.try_get::<_, Option<i64>>(column);
        let _ = row.try_get::<_, Option<u32>>(column);
        let _ = row.try_get::<_, Option<bool>>(column);
        let _ = row.try_get::<_, Option<f64>>(column);
        let _ = row.try_get::<_, Vec<Option<String>>>(column);
        let _ = row.try_get::<_, Vec<i16>>(column);
        let _ = row.try_get::<_, Vec<f32>>(column);
    }
    let _ = row.try_get::<_, bool>(row.len());
}

/// What a person and the retries learn from an error.
fn sayable(error: &DatabaseError) {
    let said = error.to_string();
    let _ = (
        error.is_transient(),
        error.is_access_refusal(),
        error.code(),
    );
    assert!(!said.is_empty());
}
