//! Questions to the articles, answered by `lantern-cli search` as a user would call it.

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::database::Job;
use crate::paths::Paths;

/// None of them shares a word that matters with the text it should find. The second is answered best by a row that came
/// in while the daemon was listening.
pub const QUESTIONS: [&str; 3] = [
    "how to protect a home from tremors",
    "wildlife on very long journeys over the sea",
    "help for people who cannot see or hear",
];

/// The table that the command prints.
pub async fn ask(paths: &Paths, jobs: &str, job: &Job, question: &str) -> Result<String> {
    let output = Command::new(&paths.binary)
        .args([
            "search",
            "--uri",
            jobs,
            "--table",
            "jobs",
            "--job",
            &job.id().to_string(),
        ])
        .args(["--limit", "5", "--columns", "title", "--data-path"])
        .arg(&paths.data)
        .arg(question)
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run lantern-cli search")?;
    ensure!(
        output.status.success(),
        "lantern-cli search ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
