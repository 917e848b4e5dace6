//! A device that runs out of memory, and one that is lost. What happens to `faulty:memory` and `faulty:lost` is decided by
//! files that the daemon's failpoints name.

use std::fs;
use std::path::PathBuf;

use testkit::jobs::{Job, insert_job};
use testkit::tiny_model::TinyModel;
use testkit::wait::TIMEOUT;
use testkit::{Scene, TestDatabase, data_path, server};

use crate::{TABLES, program};

/// A daemon of one job on this device.
struct DeviceScene {
    scene: Scene,
    /// What happens to the device.
    event: PathBuf,
    _folder: tempfile::TempDir,
}

impl DeviceScene {
    /// These texts may be written.
    async fn new(device: &str, failpoint: &str, texts: &[String]) -> Self {
        let folder = data_path::with_tiny_models();
        let event = folder.path().join("event");
        let program = program().with_data_path(folder.path()).with_env(
            "FAILPOINTS",
            &format!("{failpoint}=return({})", event.display()),
        );
        let database = TestDatabase::with_vector(server::shared()).await;
        let mut scene = Scene::without_vectors(program, database).await;
        scene.sql(TABLES).await;
        scene
            .sql("CREATE TABLE truth (body text PRIMARY KEY, vector vector)")
            .await;
        for text in texts {
            let vector = TinyModel::One.vector(text);
            let insert = "INSERT INTO truth VALUES ($1, $2::real[]::vector)";
            scene.execute(insert, &[text, &vector]).await;
        }
        let job = Job {
            embedding_model: TinyModel::One.name(),
            ..Job::on(&scene.database, "notes", "body", "embedding")
        };
        insert_job(&scene.client, job).await;
        scene.put(1, &texts[0]).await;
        scene.spawn_daemon_with(&["--execution-provider", device]);
        scene.wait_for_backfill().await;
        Self {
            scene,
            event,
            _folder: folder,
        }
    }

    /// Writes all texts in one transaction.
    async fn write_all(&self) {
        self.scene
            .sql(
                "INSERT INTO notes SELECT 10 + row_number() OVER (ORDER BY length(body), body), body FROM truth \
                 ON CONFLICT DO NOTHING",
            )
            .await;
    }

    fn lines(&mut self, part: &str) -> usize {
        self.scene.daemon().log().matches(part).count()
    }

    async fn wait_for_line(&mut self, part: &str) {
        self.scene.daemon().wait_for_line(part, TIMEOUT).await;
    }

    async fn assert_no_failed_row(&self) {
        let table = self
            .scene
            .value("SELECT to_regclass('jobs_failures')")
            .await;
        if !table.is_empty() {
            let failed = self.scene.value("SELECT count(*) FROM jobs_failures").await;
            assert_eq!(failed, "0");
        }
    }
}

/// Texts of 1 to 30 words.
fn texts() -> Vec<String> {
    let text = |number: usize| {
        let words = (0..=number % 30).map(|word| format!("w{}", 1 + (number * 7 + word * 3) % 400));
        words.collect::<Vec<_>>().join(" ")
    };
    (0..200).map(text).collect()
}

const TOO_LITTLE: &str = "the device has too little memory for a batch of";

#[tokio::test]
async fn a_batch_that_does_not_fit_is_halved_and_later_ones_are_smaller() {
    let mut texts = texts();
    let long = vec!["w9"; 60].join(" ");
    texts.push(long);
    let mut device = DeviceScene::new("faulty:memory", "device-memory", &texts).await;
    // Enough for the texts but the last.
    fs::write(&device.event, "40").unwrap();
    device.write_all().await;
    device.wait_for_line(TOO_LITTLE).await;
    device
        .wait_for_line("has no memory for 60 tokens of the model chaos/one")
        .await;
    device.assert_no_failed_row().await;

    fs::write(&device.event, "60").unwrap();
    device.scene.wait_for_vectors("notes", "body").await;
    device.assert_no_failed_row().await;
    assert_eq!(
        device.lines(TOO_LITTLE),
        1,
        "{}",
        device.scene.daemon().log()
    );
}

const LOST: &str = "the device does not compute any more";
const COMPUTES_AGAIN: &str = "the device computes again";

#[tokio::test]
async fn rows_wait_for_a_device_that_is_lost() {
    let mut device = DeviceScene::new("faulty:lost", "device-lost", &texts()).await;
    fs::write(&device.event, "").unwrap();
    device.write_all().await;
    device.wait_for_line(LOST).await;
    // The vector of one text is known: that of the row that was there before.
    let written = "SELECT count(DISTINCT body) FROM notes WHERE embedding IS NOT NULL";
    assert_eq!(device.scene.value(written).await, "1");

    fs::remove_file(&device.event).unwrap();
    device.scene.wait_for_vectors("notes", "body").await;
    device.wait_for_line(COMPUTES_AGAIN).await;
    device.assert_no_failed_row().await;
    let log = device.scene.daemon().log();
    assert_eq!(
        (device.lines(LOST), device.lines(COMPUTES_AGAIN)),
        (1, 1),
        "{log}"
    );
    assert_eq!(device.lines("batch failed"), 0, "{log}");
}

#[tokio::test]
async fn a_daemon_ends_while_its_device_is_lost() {
    let mut device = DeviceScene::new("faulty:lost", "device-lost", &texts()).await;
    fs::write(&device.event, "").unwrap();
    device.write_all().await;
    device.wait_for_line(LOST).await;
    device.scene.stop_daemon().await;
}

#[tokio::test]
async fn the_size_of_batches_is_measured_on_a_device_alone() {
    let loaded = async |provider: &str| {
        let mut device = DeviceScene::new(provider, "unused", &texts()[..1]).await;
        let daemon = device.scene.daemon();
        daemon.wait_for_line("model loaded", TIMEOUT).await
    };
    let line = loaded("faulty:device").await;
    let tokens = line.split("batch_tokens=").nth(1).expect(&line);
    let digits: String = tokens.chars().take_while(char::is_ascii_digit).collect();
    let tokens: usize = digits.parse().unwrap();
    let is_size = tokens.is_power_of_two() && (1024..=65_536).contains(&tokens);
    assert!(is_size, "{line}");
    for processor in ["cpu", "faulty"] {
        let line = loaded(processor).await;
        assert!(!line.contains("batch_tokens"), "{line}");
    }
}
