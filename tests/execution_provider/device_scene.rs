//! A daemon of one job on a device of the provider with faults. What happens to the device is decided by files that the
//! daemon's failpoints name.

use std::path::PathBuf;

use testkit::jobs::{Job, insert_job};
use testkit::tiny_model::TinyModel;
use testkit::wait::TIMEOUT;
use testkit::{Program, Scene, TestDatabase, data_path, server};

use crate::{TABLES, program};

/// What the log says when a batch did not fit.
pub const TOO_LITTLE: &str = "the device has too little memory for a batch of";
/// What it says when a device is lost.
pub const LOST: &str = "the device does not compute any more";
/// What it says when it is back.
pub const COMPUTES_AGAIN: &str = "the device computes again";

/// A daemon of one job on a device.
pub struct DeviceScene {
    pub scene: Scene,
    pub program: Program,
    folder: tempfile::TempDir,
}

impl DeviceScene {
    /// Each of these failpoints returns the path of a file, which does not exist yet, or what stands behind `=`. These texts
    /// may be written.
    pub async fn new(device: &str, failpoints: &[&str], texts: &[String]) -> Self {
        let folder = data_path::with_tiny_models();
        let actions = failpoints
            .iter()
            .map(|failpoint| match failpoint.split_once('=') {
                Some((name, value)) => format!("{name}=return({value})"),
                None => format!(
                    "{failpoint}=return({})",
                    folder.path().join(failpoint).display()
                ),
            });
        let actions: Vec<String> = actions.collect();
        let program = program()
            .with_data_path(folder.path())
            .with_env("FAILPOINTS", &actions.join(";"));
        let database = TestDatabase::with_vector(server::shared()).await;
        let mut scene = Scene::without_vectors(program.clone(), database).await;
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
        let arguments = ["--execution-provider", device, "--yield", "off"];
        scene.spawn_daemon_with(&arguments);
        scene.wait_for_backfill().await;
        Self {
            scene,
            program,
            folder,
        }
    }

    /// The file that a failpoint names.
    pub fn file(&self, failpoint: &str) -> PathBuf {
        self.folder.path().join(failpoint)
    }

    /// Writes all texts in one transaction.
    pub async fn write_all(&self) {
        self.scene
            .sql(
                "INSERT INTO notes SELECT 10 + row_number() OVER (ORDER BY length(body), body), body FROM truth \
                 ON CONFLICT DO NOTHING",
            )
            .await;
    }

    pub fn lines(&mut self, part: &str) -> usize {
        self.scene.daemon().log().matches(part).count()
    }

    pub async fn wait_for_line(&mut self, part: &str) {
        self.scene.daemon().wait_for_line(part, TIMEOUT).await;
    }

    pub async fn assert_no_failed_row(&self) {
        let table = self
            .scene
            .value("SELECT to_regclass('jobs_failures')")
            .await;
        if !table.is_empty() {
            let failed = self.scene.value("SELECT count(*) FROM jobs_failures").await;
            assert_eq!(failed, "0");
        }
    }

    /// What `lantern-cli status` prints with these arguments.
    pub async fn status(&self, arguments: &[&str]) -> String {
        let uri = self.scene.database.uri();
        let arguments = [&["status", "--uri", &uri], arguments].concat();
        let output = self.program.run(&arguments).await;
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Texts of 1 to 30 words.
pub fn texts() -> Vec<String> {
    some_texts(200)
}

/// So many of them.
pub fn some_texts(count: usize) -> Vec<String> {
    let text = |number: usize| {
        let words = (0..=number % 30).map(|word| format!("w{}", 1 + (number * 7 + word * 3) % 400));
        words.collect::<Vec<_>>().join(" ")
    };
    let mut texts: Vec<String> = (0..count).map(text).collect();
    texts.sort();
    texts.dedup();
    texts
}
