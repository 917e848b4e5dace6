//! Models that come from a hub: what is downloaded, what goes wrong on the way, and what a job makes of it.

mod at_first_use;
mod faults;
mod names;
mod refusals;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;
use testkit::hub::Hub;
use testkit::paths::runtime;
use testkit::tiny_model::{Export, TinyModel};
use testkit::{Program, data_path};

use crate::support::program;

/// A hub that has the tiny models, and a machine that has none.
struct Scene {
    hub: Hub,
    data: TempDir,
    /// The files of the models, to publish changes of them.
    source: TempDir,
    /// The commit of the first model.
    commit: String,
}

const MODEL: TinyModel = TinyModel::One;
const ID: &str = "chaos/one";

impl Scene {
    fn new() -> Self {
        let source = data_path::with_tiny_models();
        let hub = Hub::start();
        let commit = hub.publish(ID, &source.path().join("models").join(ID));
        let data = tempfile::tempdir().expect("a folder");
        symlink(runtime().join("lib"), data.path().join("lib")).expect("a link");
        Self {
            hub,
            data,
            source,
            commit,
        }
    }

    /// The files of the published model.
    fn published(&self) -> PathBuf {
        self.source.path().join("models").join(ID)
    }

    /// Publishes the model again, after a change of its files; returns the commit.
    fn publish(&self, change: impl FnOnce(&Path)) -> String {
        change(&self.published());
        self.hub.publish(ID, &self.published())
    }

    /// A machine that is connected to the hub alone.
    fn program(&self) -> Program {
        program()
            .with_data_path(self.data.path())
            .connected_to(&self.hub)
            .with_env("HF_HUB_DOWNLOAD_TIMEOUT", "2")
    }

    /// The cache of the model on that machine.
    fn cache(&self) -> PathBuf {
        self.data.path().join("models/models--chaos--one")
    }

    /// The folder of the model at a commit.
    fn snapshot(&self, commit: &str) -> PathBuf {
        self.cache().join("snapshots").join(commit)
    }

    /// Pulls the model; returns what was printed.
    async fn pull(&self, model: &str) -> String {
        self.program().stdout_of(&["pull", model]).await
    }
}

/// Why a command failed.
fn refusal(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// The vector that `embed` prints for a text, by this model.
async fn embed(program: &Program, model: &str, text: &str) -> Vec<f32> {
    let arguments = ["embed", "--format", "json", "--model", model, text];
    let printed = program.stdout_of(&arguments).await;
    serde_json::from_str(&printed).expect("a vector")
}

fn assert_right(vector: &[f32], text: &str) {
    let right = MODEL.vector(text);
    let pairs = vector.iter().zip(&right);
    let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(
        vector.len() == right.len() && difference < 1e-5,
        "{vector:?} and {right:?}"
    );
}

/// Puts the weights of a model into a file with this name beside its graph.
fn with_weights_in(folder: &Path, file: &'static str) {
    let written = MODEL.write_graph_to(folder, Export::WeightsIn(file));
    written.expect("it is written");
}

/// The files below a folder that are no links, by their paths from it.
fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(place) = folders.pop() {
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else {
                let path = path.strip_prefix(folder).expect("it is below");
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
