//! `start-daemon --until-caught-up`: a daemon that ends by itself, and its exit status.

use std::process::ExitCode;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};
use humantime::{format_duration, parse_duration};
use tokio_util::sync::CancellationToken;

use super::wait::TIMED_OUT;
use crate::jobs::JobId;
use crate::pipeline::supervisor::catch_up::RunEnd;
use crate::pipeline::supervisor::state::Supervisor;

/// When the daemon ends.
#[derive(Args)]
pub struct CatchUpArguments {
    /// End once everything that was committed is embedded: for cron and CI. Jobs that another daemon runs are not waited
    /// for. Slots stay for the next run, and retain WAL until then. Exits with 0; with 1 if jobs have failed; and with 4
    /// if the daemon was stopped before
    #[arg(
        long,
        env = "LANTERN_UNTIL_CAUGHT_UP",
        action = ArgAction::SetTrue,
        value_parser = FalseyValueParser::new()
    )]
    until_caught_up: bool,

    /// How long --until-caught-up may take, such as 30s, 10m or 1h [default: no limit]
    #[arg(
        long,
        env = "LANTERN_TIMEOUT",
        value_name = "TIME",
        value_parser = parse_duration,
        requires = "until_caught_up"
    )]
    timeout: Option<Duration>,
}

impl CatchUpArguments {
    /// Stops the daemon once its time is over.
    pub fn stop_in_time(&self, stop: CancellationToken) {
        let Some(timeout) = self.timeout else {
            return;
        };
        tokio::spawn(async move {
            tokio::time::sleep(timeout).await;
            tracing::warn!("not caught up within {}", format_duration(timeout));
            stop.cancel();
        });
    }

    /// The daemon that was asked for.
    pub fn apply(&self, supervisor: Supervisor) -> Supervisor {
        match self.until_caught_up {
            true => supervisor.until_caught_up(),
            false => supervisor,
        }
    }

    /// The exit status. Says in the log why it is not 0.
    pub fn exit_code(&self, end: &RunEnd) -> ExitCode {
        match end {
            RunEnd::Stopped { unfinished } if self.until_caught_up => {
                tracing::error!(
                    "stopped before everything was embedded; unfinished jobs: {}; see the log above, and last_error of \
                     these jobs",
                    listed(unfinished)
                );
                ExitCode::from(TIMED_OUT)
            }
            RunEnd::CaughtUp { failed } if !failed.is_empty() => {
                tracing::error!(
                    "jobs have failed, and not all of their rows are embedded: {}; see init_failure_reason of these jobs",
                    listed(failed)
                );
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        }
    }
}

fn listed(jobs: &[JobId]) -> String {
    if jobs.is_empty() {
        return "not known yet".to_owned();
    }
    let ids: Vec<&str> = jobs.iter().map(JobId::as_str).collect();
    ids.join(", ")
}
