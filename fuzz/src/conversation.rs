//! What the client says and learns, in the same words to a real server (`examples/capture.rs`) and to a made-up one.

use lantern::replication::{
    Frame, Lsn, ReplicationConnection, ReplicationError, ReplicationStream, SlotName,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::Config;

use crate::transport::{drive, once};

/// The names of the slot and of the publication.
pub const NAME: &str = "fuzz";
/// An answer with a NULL, an empty value and no row limit to speak of.
pub const QUERY: &str = "SELECT 1, NULL, '', repeat('x', 40) FROM generate_series(1, 3)";

/// What a client has learned, for comparing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Learned {
    pub rows: Vec<Vec<Option<String>>>,
    pub frames: Vec<Frame>,
    pub end: String,
}

/// Whom to log in as.
pub fn config(user: &str) -> Config {
    let mut config = Config::new();
    config.user(user).password("swordfish").dbname("postgres");
    config
}

/// From the startup message to the beginning of the stream.
///
/// # Errors
/// Where the server ends it before that. `rows` has what came until then.
pub async fn open(
    transport: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    config: &Config,
    rows: &mut Vec<Vec<Option<String>>>,
) -> Result<ReplicationStream, ReplicationError> {
    let mut connection =
        ReplicationConnection::over(transport, config, &[("DateStyle", "ISO")]).await?;
    rows.push(vec![
        connection.parameter("server_version").map(str::to_owned),
    ]);
    connection.identify_system().await?;
    rows.extend(connection.simple_query(QUERY).await?);
    let slot = SlotName::try_from(NAME).expect("a slot name");
    connection
        .start_replication(&slot, Lsn::ZERO, &[NAME])
        .await
}

/// All of a conversation with a server that says what it says whatever it hears.
pub fn replay(
    transport: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    config: &Config,
) -> Learned {
    let mut rows = Vec::new();
    let stream = drive(open(transport, config, &mut rows));
    let learned = match stream {
        Ok(stream) => read_to_end(stream),
        Err(error) => Learned {
            end: format!("{error:?}"),
            ..Learned::default()
        },
    };
    Learned { rows, ..learned }
}

/// Reads until the stream ends, and answers each frame. Every wait is given up at every pause and taken up again.
pub fn read_to_end(mut stream: ReplicationStream) -> Learned {
    let mut frames = Vec::new();
    loop {
        let Some(next) = once(stream.next()) else {
            continue;
        };
        match next {
            Ok(frame) => {
                let end = match &frame {
                    Frame::XLogData { wal_end, .. } | Frame::Keepalive { wal_end, .. } => *wal_end,
                };
                frames.push(owned(frame));
                // The writing side of a replay never fails.
                if let Some(sent) = once(stream.send_status(end, false)) {
                    sent.expect("a status update is sent");
                }
            }
            Err(error) => {
                return Learned {
                    frames,
                    end: format!("{error:?}"),
                    ..Learned::default()
                };
            }
        }
    }
}

/// A copy that does not keep the buffer of its read.
fn owned(frame: Frame) -> Frame {
    match frame {
        Frame::XLogData {
            wal_start,
            wal_end,
            payload,
        } => Frame::XLogData {
            wal_start,
            wal_end,
            payload: payload.to_vec().into(),
        },
        keepalive => keepalive,
    }
}
