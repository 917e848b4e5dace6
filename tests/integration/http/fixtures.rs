//! Jobs in every state, and a server that shows them.

use std::net::SocketAddr;

use lantern::http::{HttpServer, Listen, ListenAddress, Token};
use lantern::status::board::{FailedRow, Snapshot};
use lantern::status::daemon_status::DaemonStatus;
use lantern::status::job_status::{JobState, ScanStatus, SlotStatus};
use lantern::status::lag::WalStatus;
use lantern::status::record::{DaemonName, Totals};
use lantern::status::{JobStatus, StatusBoard};
use tokio_util::sync::CancellationToken;

/// A table whose name has all that a format or a page gives a meaning to.
pub const ODD_TABLE: &str =
    "public.\"quoted\" \\ back\nslash</td><script>document.title='owned'</script>{x=\"1\"} 表";

/// A server, its board, and the switch that tells the daemon to stop.
pub struct Shown {
    pub server: HttpServer,
    pub board: StatusBoard,
    pub stop: CancellationToken,
}

impl Shown {
    /// For programs of this machine.
    pub fn start() -> Shown {
        Shown::at("127.0.0.1:0", None)
    }

    /// At an address, for those with this token, or for all.
    pub fn at(address: &str, token: Option<&str>) -> Shown {
        let (board, stop) = (StatusBoard::default(), CancellationToken::new());
        let listen = Listen {
            address: address.parse::<ListenAddress>().expect("an address"),
            token: token.map(|text| Token::new(text).expect("a token")),
            without_token: true,
            tls: None,
        };
        let server = HttpServer::start(listen, board.clone(), stop.clone());
        let server = server.unwrap_or_else(|error| panic!("{error}"));
        Shown {
            server,
            board,
            stop,
        }
    }

    /// Where to ask.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The address of a path, for a browser.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }
}

/// The daemon of the snapshot.
pub fn daemon() -> DaemonName {
    DaemonName {
        host: "db-1.example.net".into(),
        pid: 4242,
        version: "0.1.0".into(),
    }
}

/// A snapshot of these jobs and failures.
pub fn snapshot(jobs: Vec<JobStatus>, failures: Vec<FailedRow>) -> Snapshot {
    let running = jobs.iter().filter(|job| job.daemon.is_some()).count();
    Snapshot {
        daemon: DaemonStatus {
            name: daemon(),
            jobs_table: "\"public\".\"jobs\"".into(),
            uptime_seconds: 273_845.25,
            memory_bytes: Some(412 << 20),
            running_jobs: running,
            jobs_database_error: None,
            inference_threads: 4,
            inference_share: 0.4,
            texts: 120_000,
            computed_texts: 90_000,
        },
        jobs,
        failures,
    }
}

/// A job that streams.
pub fn streaming(id: &str, table: &str) -> JobStatus {
    JobStatus {
        id: id.into(),
        table: table.into(),
        source: Some("title".into()),
        destination: Some("title_embedding".into()),
        chunk_table: None,
        model: Some("sentence-transformers/all-MiniLM-L6-v2".into()),
        provider: Some("cpu".into()),
        servers: Vec::new(),
        devices: Vec::new(),
        state: JobState::Streaming,
        reason: None,
        daemon: Some(daemon()),
        as_of: Some(1_795_734_000.5),
        backfill_percent: 100,
        scan: None,
        coverage: None,
        rows_per_second: Some(48.25),
        rows_today: Some(182_340),
        lag_bytes: Some(3 << 20),
        lag_seconds: Some(0.35),
        slot: Some(SlotStatus {
            name: format!("lantern_3f2a_{id}_9c1b"),
            wal_status: WalStatus::Reserved,
            retained_bytes: 18 << 20,
            confirmed_lsn: "2A/5B3C1D80".into(),
        }),
        index_state: None,
        quarantined_rows: Some(0),
        totals: Some(Totals {
            rows_written: 182_344,
            passages_written: 0,
            rows_superseded: 12,
            rows_quarantined: 2,
            texts: 182_358,
            cache_hits: 1_204,
            texts_truncated: 3,
            tokens: 5_470_740,
            batches: 6_100,
            requests: 0,
            inference_seconds: 4_321.5,
            estimated_cost: 0.0,
            write_backs: 5_800,
            write_back_seconds: 34.75,
        }),
    }
}

/// A job that embeds the rows that exist.
pub fn backfilling(id: &str, table: &str) -> JobStatus {
    JobStatus {
        state: JobState::Backfilling,
        backfill_percent: 42,
        scan: Some(ScanStatus {
            rows_done: 420_000,
            rows_total: 1_000_000,
            rows_per_second: 1_250.0,
            seconds_left: Some(464.0),
        }),
        rows_per_second: Some(1_250.0),
        lag_seconds: Some(42.0),
        ..streaming(id, table)
    }
}

/// A job that no daemon runs, with old figures.
pub fn idle(id: &str, table: &str, state: JobState, reason: &str) -> JobStatus {
    JobStatus {
        state,
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        daemon: None,
        rows_per_second: None,
        lag_seconds: None,
        ..streaming(id, table)
    }
}

/// A row that could not be written.
pub fn failure(job: &str, key: &str, error: &str) -> FailedRow {
    FailedRow {
        job: job.into(),
        key: key.into(),
        error: error.into(),
        attempts: 1,
        failed_at: "2026-11-26 14:03:11+00".into(),
    }
}
