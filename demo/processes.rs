//! The processes that the demo has started, and how they end.

use anyhow::Result;
use lantern::embedded::PrivatePostgres;

use crate::console::Console;
use crate::daemon::Daemon;
use crate::paths;

const LOG_LINES: usize = 20;

#[derive(Default)]
pub struct Processes {
    pub postgres: Option<PrivatePostgres>,
    pub daemon: Option<Daemon>,
}

impl Processes {
    /// Stops the daemon first, so that it can still write back and confirm what it is working on.
    ///
    /// Errors are ignored: what is left ends with this process.
    pub async fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.stop().await;
        }
        let _ = self.stop_postgres().await;
    }

    pub async fn stop_postgres(&mut self) -> Result<()> {
        if let Some(postgres) = self.postgres.take() {
            tokio::task::spawn_blocking(|| postgres.stop()).await??;
        }
        Ok(())
    }

    /// Shows the end of the daemon's log, where the demo failed.
    pub fn show_log(&self, console: &Console) {
        let Some(daemon) = &self.daemon else { return };
        console.note(&format!(
            "the last lines of {}:",
            paths::shown(daemon.log())
        ));
        console.block(&daemon.log_tail(LOG_LINES));
    }
}
