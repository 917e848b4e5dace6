//! Who is on stage: the processes that the demo started, and how they leave.

use anyhow::Result;
use lantern::embedded::PrivatePostgres;

use crate::daemon::Daemon;
use crate::paths;
use crate::stage::Stage;

const LOG_LINES: usize = 20;

#[derive(Default)]
pub struct Cast {
    pub postgres: Option<PrivatePostgres>,
    pub daemon: Option<Daemon>,
}

impl Cast {
    /// The daemon first, so that it can still write back and confirm what it has in hand.
    ///
    /// An error on the way is not worth a word here: whoever is still there after this is ended by its own watchdog.
    pub async fn leave(&mut self) {
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

    /// For somebody who has to find out why the demo failed.
    pub fn show_log(&self, stage: &Stage) {
        let Some(daemon) = &self.daemon else { return };
        stage.note(&format!(
            "the last lines of {}:",
            paths::shown(daemon.log())
        ));
        stage.block(&daemon.log_tail(LOG_LINES));
    }
}
