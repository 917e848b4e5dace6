//! Another model for a column: a second job fills a column beside the first one, and takes over its name.

mod crashes;
mod dependents;
mod ends;
mod readers;
mod rights;
mod shapes;
mod swap;

use testkit::jobs::{Job, insert_job};
use testkit::tiny_model::TinyModel;
use testkit::{Program, Scene, TestDatabase, data_path, server};
use tokio_postgres::error::SqlState;

use crate::support::program;

/// The optional columns of the jobs table that a change of the model needs, and those that tests look at.
const COLUMNS: &str = "ALTER TABLE jobs ADD replaces int, ADD replaced_by int, ADD accept_failures bool, \
    ADD runtime text, ADD runtime_params jsonb, ADD column_type text, ADD fingerprint_column text, \
    ADD create_index text, ADD index_params jsonb, ADD index_state text, ADD waits_for text, ADD label text, \
    ADD init_progress int2, ADD last_error text, ADD batch_size int";

/// The columns of `notes` with vectors, in the order of their names.
const VECTOR_COLUMNS: &str = "SELECT string_agg(attname, ' ' ORDER BY attname) FROM pg_attribute \
    WHERE attrelid = 'notes'::regclass AND attnum > 0 AND NOT attisdropped AND attname ~ 'embedding|print'";

/// A database whose models are the tiny ones.
struct Change {
    scene: Scene,
    program: Program,
    /// Holds the models.
    _folder: tempfile::TempDir,
}

impl Change {
    /// With these statements, and a job for `notes.body` with the first model; its destination is `embedding`.
    async fn new(tables: &str, options: &[(&str, &str)]) -> Change {
        let change = Change::without_job(tables).await;
        change.add_job(TinyModel::One, options).await;
        change
    }

    async fn without_job(tables: &str) -> Change {
        let folder = data_path::with_tiny_models();
        let program = program().with_data_path(folder.path());
        let database = TestDatabase::with_vector(server::shared()).await;
        let scene = Scene::without_vectors(program.clone(), database).await;
        scene.sql(COLUMNS).await;
        scene.sql(tables).await;
        Change {
            scene,
            program,
            _folder: folder,
        }
    }

    /// Adds a job for `notes.body` and `embedding`; returns its id.
    async fn add_job(&self, model: TinyModel, options: &[(&str, &str)]) -> i32 {
        let job = Job {
            embedding_model: model.name(),
            options,
            ..Job::on(&self.scene.database, "notes", "body", "embedding")
        };
        insert_job(&self.scene.client, job).await
    }

    /// Adds a job that replaces the first one, with the second model.
    async fn replace(&self, options: &[(&str, &str)]) -> i32 {
        let options = [&[("replaces", "1")], options].concat();
        self.add_job(TinyModel::Two, &options).await
    }

    /// Runs `change-model` with these arguments.
    async fn command(&self, arguments: &[&str]) -> std::process::Output {
        let uri = self.scene.database.uri();
        let arguments = [&["change-model", "--uri", &uri], arguments].concat();
        self.program.run(&arguments).await
    }

    /// What `change-model` prints where it succeeds.
    async fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).await;
        let (out, errors) = texts(&output);
        assert!(output.status.success(), "{arguments:?}: {out}{errors}");
        out
    }

    /// The error of `change-model`.
    async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).await;
        let (out, errors) = texts(&output);
        assert!(!output.status.success(), "{arguments:?}: {out}{errors}");
        errors
    }

    /// Waits until job 1 is replaced.
    async fn wait_for_swap(&self, successor: i32) {
        let replaced = "SELECT max(replaced_by) FROM jobs WHERE id = 1 AND canceled_at";
        self.scene.wait_for(replaced, &successor.to_string()).await;
    }

    /// Waits until there is the column, and each row of `notes` has the vector of its text by this model in it.
    async fn wait_for_vectors(&self, column: &str, model: TinyModel) {
        let ask = async || match self.scene.value(VECTOR_COLUMNS).await {
            columns if columns.split(' ').any(|there| there == column) => {
                self.wrong(column, model).await
            }
            columns => vec![columns],
        };
        testkit::wait::wait_for(column, testkit::wait::TIMEOUT, Vec::new(), ask).await;
    }

    /// The texts of `notes` that do not have the vector of this model.
    async fn wrong(&self, column: &str, model: TinyModel) -> Vec<String> {
        let query = format!("SELECT body, {column}::real[] FROM notes ORDER BY id");
        let rows = match self.scene.client.query(&query, &[]).await {
            Ok(rows) => rows,
            // A change that starts over drops its column and creates it again.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_COLUMN) => {
                return vec![format!("there is no column {column}")];
            }
            Err(error) => panic!("{error:?} in {query}"),
        };
        let is_wrong = |row: &tokio_postgres::Row| {
            let (body, vector): (Option<String>, Option<Vec<f32>>) = (row.get(0), row.get(1));
            match (body.filter(|body| !body.is_empty()), vector) {
                (None, vector) => vector.map(|_| "a vector without a text".to_owned()),
                (Some(body), Some(vector)) if is_of(model, &body, &vector) => None,
                (Some(body), _) => Some(body),
            }
        };
        rows.iter().filter_map(is_wrong).collect()
    }
}

/// Whether a vector is that of the text by this model.
fn is_of(model: TinyModel, body: &str, vector: &[f32]) -> bool {
    let right = model.vector(body);
    let pairs = right.iter().zip(vector);
    vector.len() == right.len() && pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-3
}

fn texts(output: &std::process::Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A text of words that the models know.
fn words(number: usize) -> String {
    format!("w{} w{} w{}", number % 97, number % 89, number % 83)
}

/// Statements that create `notes` with so many rows.
fn notes(rows: usize) -> String {
    let mut script = String::from("CREATE TABLE notes (id int PRIMARY KEY, body text);");
    for id in 1..=rows {
        script.push_str(&format!(
            "INSERT INTO notes VALUES ({id}, '{}');",
            words(id)
        ));
    }
    script
}
