//! The property behind all waits: the row that is read after one has the vector of its text.
//!
//! `LANTERN_WAIT_ROUNDS=1000 cargo test --test integration -- wait::property --nocapture` plays more rounds, and prints how
//! long the waits took.

use std::cell::Cell;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use testkit::Scene;
use testkit::random::Random;
use testkit::scene::VOCABULARY;
use testkit::statistics::quantile;
use testkit::wait::TIMEOUT;

use super::{CALL, create_function};
use crate::support::{notes_scene, program};

/// The rows that the rounds write in turn. Others write to rows behind them.
const ROWS: u64 = 10;
/// Rows of others.
const OTHER_ROWS: u64 = 50;
/// Between two transactions of others.
const PAUSE: Duration = Duration::from_millis(30);
/// How long a daemon runs, in milliseconds, before it is killed: since its start, or since its job streams. On a slow machine
/// the first alone would let none of them write anything.
const LIFE: std::ops::Range<u64> = 300..2500;

#[tokio::test]
async fn the_row_that_is_read_after_a_wait_has_the_vector_of_its_text() {
    let rounds = std::env::var("LANTERN_WAIT_ROUNDS");
    let rounds = rounds.map_or(40, |rounds| rounds.parse().expect("a number"));
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.kill_daemon();
    scene.sql("CREATE TABLE other (n int)").await;
    create_function(&scene).await;
    let kills = Cell::new(0);
    let waits = tokio::select! {
        waits = play(&scene, rounds, &kills) => waits,
        never = write_meanwhile(&scene) => match never {},
        never = kill_daemons(&scene, &kills) => match never {},
    };
    eprintln!("{} daemons killed; {}", kills.get(), waits.report());
}

/// How long the waits took, in milliseconds.
#[derive(Default)]
struct Waits {
    function: Vec<f64>,
    command: Vec<f64>,
}

impl Waits {
    fn report(&self) -> String {
        let of = |name, waits: &Vec<f64>| {
            let [median, p95, longest] =
                [0.5, 0.95, 1.0].map(|share| quantile(waits.clone(), share));
            let count = waits.len();
            format!(
                "{count} by {name}: median {median:.0} ms, p95 {p95:.0} ms, longest {longest:.0} ms"
            )
        };
        format!(
            "{}; {}",
            of("function", &self.function),
            of("command", &self.command)
        )
    }
}

/// Writes a text, waits for it in one of the two ways, and reads the vector of the row: in so many rounds, and until a
/// daemon was killed meanwhile.
async fn play(scene: &Scene, rounds: u64, kills: &Cell<u32>) -> Waits {
    let mut random = Random::new(1);
    let mut waits = Waits::default();
    let uri = scene.database.uri();
    let wait = ["wait", "--uri", &uri, "--job", "1", "--timeout", "90s"];
    for round in (0..).take_while(|round| *round < rounds || kills.get() == 0) {
        let id = i32::try_from(round % ROWS).expect("small");
        // Never the text that the row has: then a vector that is older than the text is a wrong one.
        let texts = &VOCABULARY[..5];
        let text = texts[((round / ROWS) % 2 * 2 + random.below(2)) as usize];
        scene.put(id, text).await;
        let begin = Instant::now();
        let took = || begin.elapsed().as_secs_f64() * 1000.0;
        if random.percent(50) {
            assert_eq!(scene.value(CALL).await, "true", "round {round}");
            waits.function.push(took());
        } else {
            program().stdout_of(&wait).await;
            waits.command.push(took());
        }
        let row = format!("(SELECT ctid, * FROM notes WHERE id = {id})");
        assert_eq!(
            scene.wrong_vectors(&row, "body").await,
            "",
            "round {round}: {text:?}"
        );
    }
    waits
}

/// Keeps the daemon busy, with rows of the same table and of another one.
async fn write_meanwhile(scene: &Scene) -> Infallible {
    let mut random = Random::new(2);
    let client = scene.session("").await;
    loop {
        let texts = random.pick(&VOCABULARY[..5]);
        let id = i32::try_from(ROWS + random.below(OTHER_ROWS)).expect("small");
        let end = if random.percent(20) {
            "ROLLBACK"
        } else {
            "COMMIT"
        };
        client
            .batch_execute("BEGIN; INSERT INTO other VALUES (1)")
            .await
            .expect("it writes");
        let write =
            "INSERT INTO notes (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = $2";
        client
            .execute(write, &[&id, texts])
            .await
            .expect("it writes");
        tokio::time::sleep(PAUSE).await;
        client.batch_execute(end).await.expect("it ends");
    }
}

/// Starts a daemon and ends it, again and again, most often by SIGKILL.
async fn kill_daemons(scene: &Scene, kills: &Cell<u32>) -> Infallible {
    let mut random = Random::new(3);
    let uri = scene.database.uri();
    loop {
        // Each vector is computed: from memory, it would often be there before anyone can ask.
        let mut daemon = program().start_daemon(&["--uri", &uri, "--cache-size", "0"]);
        if random.percent(50) {
            daemon.wait_for_line("streaming from", TIMEOUT).await;
        }
        tokio::time::sleep(Duration::from_millis(random.within(LIFE))).await;
        if random.percent(80) {
            daemon.kill();
            kills.set(kills.get() + 1);
        } else {
            daemon.terminate().await;
        }
    }
}
