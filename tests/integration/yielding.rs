//! Inference leaves the processors to others that use them.

use std::process::{Child, Command};

use testkit::scene::TIDES;
use testkit::wait::TIMEOUT;

use crate::support::{notes_scene, program};

/// A process that uses a whole core until it is dropped.
struct Busy(Child);

impl Busy {
    fn start() -> Busy {
        let spin = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn();
        Busy(spin.expect("a shell"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Enough texts for some seconds.
const BACKLOG: &str = "INSERT INTO notes (id, body) \
    SELECT n, (SELECT string_agg(format('word%s', (n * 7 + m) % 1000), ' ') FROM generate_series(1, 60) m) \
    FROM generate_series(1000, 1149) n";

#[tokio::test]
async fn inference_yields_to_others_and_every_vector_is_right() {
    let mut scene = notes_scene().await;
    scene.sql(BACKLOG).await;
    let busy = Busy::start();
    scene.spawn_daemon_with(&[
        "--log-level",
        "debug",
        "--yield",
        "on",
        "--yield-floor",
        "20",
    ]);
    let yields = "inference yields to others, who use";
    scene.daemon().wait_for_line(yields, TIMEOUT).await;
    // A graph that rests in its midst computes the same.
    scene.write(&[TIDES]).await;
    let right = "SELECT count(*) FROM notes n JOIN truth USING (body) WHERE n.embedding <-> truth.vector < 0.0001";
    scene.wait_for(right, "1").await;
    drop(busy);
    scene
        .wait_for("SELECT count(*) FROM notes WHERE embedding IS NULL", "0")
        .await;
    assert_eq!(scene.failures().await, "");
}

#[tokio::test]
async fn with_yield_off_it_takes_what_it_gets() {
    let mut scene = notes_scene().await;
    scene.sql(BACKLOG).await;
    let _busy = Busy::start();
    scene.spawn_daemon_with(&["--log-level", "debug", "--yield", "off"]);
    scene
        .wait_for("SELECT count(*) FROM notes WHERE embedding IS NULL", "0")
        .await;
    let log = scene.daemon().log();
    assert!(!log.contains("yields"), "{log}");
}

#[tokio::test]
async fn values_that_mean_nothing_are_refused() {
    for (option, value, expected) in [
        ("--yield", "sometimes", "[possible values: on, off]"),
        ("--yield-floor", "0", "0 is not in 1..=100"),
        ("--yield-floor", "101", "101 is not in 1..=100"),
        (
            "--cache-size",
            "64",
            "expected 0, or a whole number with a unit",
        ),
        (
            "--cache-size",
            "lots",
            "expected 0, or a whole number with a unit",
        ),
    ] {
        let refused = program().run(&["start-daemon", option, value]).await;
        let message = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}
