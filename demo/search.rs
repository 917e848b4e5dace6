//! Questions to the articles, answered by `lantern-cli search` as a user would call it.

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::database::Job;
use crate::paths::Paths;

/// None of them uses the words of what it should find.
pub const QUESTIONS: [&str; 3] = [
    "how to build a home that survives when the ground shakes",
    "creatures that cross half the planet without a map",
    "many people sharing the cost of one person's bad luck",
];

/// The table that the command prints.
pub async fn ask(paths: &Paths, jobs: &str, job: &Job, question: &str) -> Result<String> {
    let output = Command::new(&paths.binary)
        .args(["search", "--uri", jobs, "--table", "jobs", "--job", &job.id().to_string()])
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
