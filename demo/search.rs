//! Questions to the articles, answered by `lantern-cli search` as a user would call it.

use anyhow::{Result, ensure};
use testkit::Program;

use crate::database::Job;
use crate::paths::Paths;

/// None of them shares a significant word with the text that it should find. The best answer to the second is a row
/// that arrived while the daemon was running.
pub const QUESTIONS: [&str; 3] = [
    "how to protect a home from tremors",
    "wildlife on very long journeys over the sea",
    "help for people who cannot see or hear",
];

/// The table that the command prints.
pub async fn ask(paths: &Paths, jobs: &str, job: &Job, question: &str) -> Result<String> {
    let program = Program::new(&paths.binary).with_data_path(&paths.data);
    let id = job.id().to_string();
    let output = program
        .run(
            &[
                &["search", "--uri", jobs, "--table", "jobs", "--job", &id][..],
                &["--limit", "5", "--columns", "title", question],
            ]
            .concat(),
        )
        .await;
    ensure!(
        output.status.success(),
        "lantern-cli search ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
