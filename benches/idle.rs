//! What an idle daemon costs: the real binary with the default model loaded and jobs that have nothing to do.
//!
//! Counts the processor time (user and system) of the daemon, and of the server's processes that work for it, from `/proc`
//! over a minute. Run: `cargo bench --bench idle` (after `make setup`); `-- JOBS SECONDS` for other figures.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lantern::embedded::{Installation, PrivatePostgres};
use lantern::postgres::{ConnectionString, Session};

/// Jobs are started and the caches of the server warm after this.
const SETTLING: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    let figures: Vec<u32> = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let jobs = figures.first().copied().unwrap_or(10);
    let seconds = figures.get(1).copied().unwrap_or(60);
    let data_path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime");
    let installation = Installation::find(&data_path).expect("run `make setup` first");
    let settings = [("max_replication_slots", "100"), ("max_wal_senders", "100")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let server =
        PrivatePostgres::start_temporary(&installation, settings.into()).expect("a server");
    let uri = server.uri("postgres");
    let database: ConnectionString = uri.parse().expect("a connection string");
    let session = Session::open(&database).await.expect("a session");
    prepare(&session, &uri, jobs).await;
    let daemon = start_daemon(&uri, &data_path);
    streaming(&session, jobs).await;
    tokio::time::sleep(SETTLING).await;

    let postmaster = postmaster(&session).await;
    let (before, begin) = (
        [used(daemon.id()), used_by_children(postmaster)],
        Instant::now(),
    );
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    let (after, took) = (
        [used(daemon.id()), used_by_children(postmaster)],
        begin.elapsed(),
    );
    let share = |side: usize| {
        let used = after[side].saturating_sub(before[side]);
        100.0 * used.as_secs_f64() / took.as_secs_f64()
    };
    println!(
        "{jobs} idle jobs for {:.0} s, in percent of one core",
        took.as_secs_f64()
    );
    println!("{:>8} {:>8}", "daemon", "server");
    println!("{:>7.2}% {:>7.2}%", share(0), share(1));
}

async fn prepare(session: &Session, uri: &str, jobs: u32) {
    let mut script = format!(
        "SET search_path = public; CREATE EXTENSION vector SCHEMA public; {}",
        include_str!("../sql/jobs.sql")
    );
    for job in 1..=jobs {
        script.push_str(&format!(
            "CREATE TABLE t{job} (id INT PRIMARY KEY, body TEXT);
             INSERT INTO t{job} VALUES (1, 'one row');
             INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model)
             VALUES ('{uri}', 'public', 't{job}', 'body', 'v', 'sentence-transformers/all-MiniLM-L6-v2');"
        ));
    }
    session.batch_execute(&script).await.expect("prepared");
}

/// Ends with the bench, however that ends.
struct Daemon(Child);

impl Daemon {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_daemon(uri: &str, data_path: &Path) -> Daemon {
    let process = Command::new(env!("CARGO_BIN_EXE_lantern-cli"))
        .args(["start-daemon", "--log-level", "warn"])
        .env("LANTERN_URI", uri)
        .env("LANTERN_DATA_PATH", data_path)
        .stdin(Stdio::null())
        .spawn()
        .expect("lantern-cli starts");
    Daemon(process)
}

async fn streaming(session: &Session, jobs: u32) {
    let ready = "SELECT count(*) FROM public.jobs WHERE init_finished_at IS NOT NULL";
    loop {
        let row = session.query_one(ready, &[]).await.expect("an answer");
        if row.get::<_, i64>(0) == i64::from(jobs) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The process that started this session's: the postmaster, the parent of all that work for the server.
async fn postmaster(session: &Session) -> u32 {
    let row = session.query_one("SELECT pg_backend_pid()", &[]).await;
    let backend: i32 = row.expect("an answer").get(0);
    let parent = fields(backend.unsigned_abs()).get(1).cloned();
    let parent = parent.and_then(|parent| parent.parse().ok());
    parent.expect("a process id")
}

/// What proc(5) says of a process in `stat`, from the third field on: the name before it may hold anything.
fn fields(process: u32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().map(str::to_owned).collect()
}

/// Processor time of a process so far: `utime` and `stime`, in ticks.
fn used(process: u32) -> Duration {
    let fields = fields(process);
    let ticks: u32 = [11, 12]
        .iter()
        .filter_map(|field| fields.get(*field)?.parse::<u32>().ok())
        .sum();
    let hertz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    let hertz = hertz.ok().flatten().unwrap_or(100);
    Duration::from_secs(ticks.into()) / u32::try_from(hertz).unwrap_or(100)
}

fn used_by_children(process: u32) -> Duration {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .map(used)
        .sum()
}
