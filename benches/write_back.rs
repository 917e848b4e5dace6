//! Write-backs a second into a `vector(384)` column when vectors are ready, next to the same UPDATE done inside the server.
//!
//! Both write the same rows in transactions of the same size, in turn, on one private PostgreSQL with durable commits.
//! Run: `cargo bench --bench write_back` (after `make setup`).

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lantern::embedded::{Installation, PrivatePostgres};
use lantern::pipeline::row::{Key, Origin, Row, Source};
use lantern::pipeline::target::{
    DestinationColumn, KeyColumn, SourceColumn, TargetTable, TextForm,
};
use lantern::pipeline::writer::{Outcome, ReadyRow, Writer};
use lantern::postgres::{ConnectionString, Session};

const ROWS: usize = 20_480;
const BATCH: usize = 512;
const DIMENSIONS: usize = 384;
const ROUNDS: usize = 5;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let installation = Installation::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime"))
        .expect("run `make setup` first");
    let durable = [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("shared_buffers", "256MB"),
    ];
    let settings = durable
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .to_vec();
    let server = PrivatePostgres::start_temporary(&installation, settings).expect("a server");
    let database: ConnectionString = server.uri("postgres").parse().expect("a connection string");
    let session = Session::open(&database).await.expect("a session");
    prepare(&session).await;
    let target = Arc::new(target(&session).await);
    let writer = Writer::open(&database, target, DIMENSIONS)
        .await
        .expect("a writer");

    println!(
        "{ROWS} rows of vector({DIMENSIONS}) in transactions of {BATCH}, {ROUNDS} rounds in turn"
    );
    println!(
        "{:>24} {:>24} {:>8}",
        "write-back (rows/s)", "inside the server", "ratio"
    );
    let mut ratios = Vec::new();
    for round in 0..=ROUNDS {
        let ours = write_back(&writer, round).await;
        let inside = inside_the_server(&session).await;
        if round > 0 {
            println!("{ours:>24.0} {inside:>24.0} {:>8.2}", ours / inside);
            ratios.push(ours / inside);
        }
        session
            .batch_execute("VACUUM public.target")
            .await
            .expect("vacuum");
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
}

async fn prepare(session: &Session) {
    session
        .batch_execute(&format!(
            "CREATE EXTENSION vector SCHEMA public;
             CREATE TABLE public.target (id INT PRIMARY KEY, body TEXT, v public.vector({DIMENSIONS})) WITH (fillfactor = 50);
             INSERT INTO public.target SELECT i, 'the text of row ' || i || repeat(' and more of it', 20) FROM generate_series(1, {ROWS}) i;
             CREATE TABLE public.ready AS
               SELECT i AS id, (SELECT array_agg(random()::real) FROM generate_series(1, {DIMENSIONS}) WHERE i > 0)::public.vector AS v
               FROM generate_series(1, {ROWS}) i;
             ALTER TABLE public.ready ADD PRIMARY KEY (id)"
        ))
        .await
        .expect("tables");
    session
        .batch_execute("VACUUM ANALYZE public.target, public.ready")
        .await
        .expect("vacuum");
    session
        .batch_execute("CHECKPOINT")
        .await
        .expect("checkpoint");
}

async fn target(session: &Session) -> TargetTable {
    let oid = session
        .query_one("SELECT 'public.target'::regclass::oid", &[])
        .await
        .expect("the oid")
        .get(0);
    TargetTable {
        oid,
        schema: "public".into(),
        name: "target".into(),
        partitioned: false,
        key: vec![KeyColumn {
            name: "id".into(),
            type_name: "integer".into(),
        }],
        identity_full: false,
        source: SourceColumn {
            name: "body".into(),
            form: TextForm::Plain,
            published: true,
        },
        destination: DestinationColumn {
            name: "v".into(),
            type_name: format!("public.vector({DIMENSIONS})"),
            vector_schema: Some("public".into()),
        },
        fingerprint: None,
    }
}

/// Rows a second through the daemon's writer; every row has to be written.
async fn write_back(writer: &Writer, round: usize) -> f64 {
    let more = " and more of it".repeat(20);
    let batches: Vec<Vec<ReadyRow>> = (0..ROWS / BATCH)
        .map(|batch| {
            (0..BATCH)
                .map(|position| {
                    let id = batch * BATCH + position + 1;
                    let text = format!("the text of row {id}{more}");
                    let row = Row::new(
                        Key::new([id.to_string().into()]),
                        Source::Text(text.into()),
                        Origin::Backfill,
                    );
                    let vector = (0..DIMENSIONS)
                        .map(|d| ((id * 31 + d * 7 + round) % 1000) as f32 / 1000.0)
                        .collect();
                    ReadyRow {
                        row,
                        vector: Some(vector),
                    }
                })
                .collect()
        })
        .collect();
    let began = Instant::now();
    for batch in &batches {
        let outcomes = writer
            .write(&batch.iter().collect::<Vec<_>>())
            .await
            .expect("a write-back");
        assert!(
            outcomes.iter().all(|outcome| *outcome == Outcome::Written),
            "every row is written"
        );
    }
    ROWS as f64 / began.elapsed().as_secs_f64()
}

/// The same UPDATE with vectors that the server already has.
async fn inside_the_server(session: &Session) -> f64 {
    let began = Instant::now();
    for batch in 0..ROWS / BATCH {
        let (from, to) = (batch * BATCH + 1, (batch + 1) * BATCH);
        session
            .batch_execute(&format!(
                "UPDATE public.target t SET v = r.v FROM public.ready r WHERE r.id = t.id AND r.id BETWEEN {from} AND {to}"
            ))
            .await
            .expect("an update");
    }
    ROWS as f64 / began.elapsed().as_secs_f64()
}
