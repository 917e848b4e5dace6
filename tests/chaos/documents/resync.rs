//! `resync` beside the daemons.

use std::time::Duration;

use tokio_postgres::Error;

use crate::faults::client;
use crate::testbed::Testbed;

/// A command that waits for a daemon is given up.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs it so many times in a row, with these variables in its environment. Other faults may make it fail, which is logged
/// alone.
pub async fn run(
    testbed: &Testbed,
    all: bool,
    times: usize,
    variables: &[(&str, &str)],
) -> Result<(), Error> {
    let job = "SELECT min(id)::text FROM jobs";
    let job = client(testbed).await?.query_one(job, &[]).await?;
    if let Some(job) = job.get::<_, Option<String>>(0) {
        let mut arguments = vec!["resync", "--job", &job];
        arguments.extend(all.then_some("--all"));
        for _ in 0..times {
            let run = testbed.config.run_with(variables, &arguments);
            let done = tokio::time::timeout(COMMAND_TIMEOUT, run).await;
            testbed.log(&format!("resync: {done:?}"));
        }
    }
    Ok(())
}
