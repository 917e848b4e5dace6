//! Sees to it that the index exists that a job asks for.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::jobs::reporter::Reporter;
use crate::pipeline::error::JobError;
use crate::pipeline::index::build::Builder;
use crate::pipeline::index::catalog::VectorIndex;
use crate::pipeline::index::look;
use crate::pipeline::index::session::IndexSession;
use crate::pipeline::index::wanted::WantedIndex;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{ConnectionString, DatabaseError, Session};
use crate::reminder::Reminder;

/// Pauses between looks that find that nothing can be done yet. The owner of the table may do it meanwhile.
const MIN_LOOK_BACKOFF: Duration = Duration::from_secs(1);
const MAX_LOOK_BACKOFF: Duration = Duration::from_secs(60);
/// Pauses between builds: each reads the whole table.
const MIN_BUILD_BACKOFF: Duration = Duration::from_secs(4);
const MAX_BUILD_BACKOFF: Duration = Duration::from_secs(1800);

/// The index of a job, and what is needed to build it.
pub struct Upkeep {
    /// The target database as each of the job's roles, named for this purpose.
    pub roles: Vec<ConnectionString>,
    /// The table of the job.
    pub target: Arc<TargetTable>,
    /// The index.
    pub wanted: WantedIndex,
    /// Where to say what becomes of it.
    pub reporter: Reporter,
}

impl Upkeep {
    /// Returns once the index is there. Until then it is tried again, whatever the error.
    ///
    /// Cancellation: the server ends a statement that runs soon after; what that leaves is replaced the next time.
    pub async fn run(self) {
        let mut looking = Backoff::new(MIN_LOOK_BACKOFF, MAX_LOOK_BACKOFF);
        let mut building = Backoff::new(MIN_BUILD_BACKOFF, MAX_BUILD_BACKOFF);
        let mut reminder = Reminder::default();
        let unfinished = Unfinished(&self.reporter);
        loop {
            let mut has_built = false;
            let error = match self.attempt(&mut has_built).await {
                Ok(index) => {
                    std::mem::forget(unfinished);
                    let state = format!("ready: {}", described(&index));
                    return self.reporter.index_settled(state).await;
                }
                Err(error) => error,
            };
            let pause = match has_built {
                true => building.next_pause(),
                false => looking.next_pause(),
            };
            let message = error.to_string();
            if reminder.is_due(&message) {
                tracing::warn!(
                    "the index of create_index is not built yet, trying again in {:.1} s: {message}",
                    pause.as_secs_f64()
                );
            }
            self.say(format!("not built: {message}"));
            sleep(pause).await;
        }
    }

    /// Builds the index unless it is there, and does not try again.
    ///
    /// # Errors
    /// Why it is not built.
    ///
    /// Cancellation: as [`run`](Self::run).
    pub async fn build_once(self) -> Result<VectorIndex, JobError> {
        self.attempt(&mut false).await
    }

    /// One look, and the build where it takes one.
    async fn attempt(&self, has_built: &mut bool) -> Result<VectorIndex, JobError> {
        let role = match self.look().await? {
            Found::Index(index) => return Ok(index),
            Found::Owner(role) => role,
        };
        let memory = self.wanted.options.maintenance_work_mem.as_deref();
        let session = IndexSession::open(role, memory).await?;
        let table = self.target.written();
        let name = self.wanted.name(table.name);
        session.claim(table.oid, &name).await?;
        // Another session may have built it between the look and the claim.
        if let Some(index) = self.find(session.session()).await? {
            return Ok(index);
        }
        let began = Instant::now();
        let mut builder = Builder {
            session: &session,
            wanted: &self.wanted,
            column: &self.target.destination.name,
            report: &|state| self.say(state),
            has_built,
        };
        builder.build_all(table.oid).await?;
        let index = self.find(session.session()).await?.ok_or_else(|| {
            JobError::Transient(format!(
                "the index of {} is not valid although it was built",
                table.qualified()
            ))
        })?;
        tracing::info!(
            "built the index {} in {:.1} s",
            described(&index),
            began.elapsed().as_secs_f64()
        );
        Ok(index)
    }

    /// Whether the index is there, or else which role can build it.
    async fn look(&self) -> Result<Found<'_>, JobError> {
        for role in &self.roles {
            let session = Session::open(role).await?;
            if let Some(index) = self.find(&session).await? {
                return Ok(Found::Index(index));
            }
            look::check_operator_class(&session, &self.wanted).await?;
            if look::is_owner(&session, self.target.written().oid).await? {
                return Ok(Found::Owner(role));
            }
        }
        let reason = look::for_the_owner(&self.target, &self.wanted);
        Err(JobError::permanent(reason))
    }

    async fn find(&self, session: &Session) -> Result<Option<VectorIndex>, DatabaseError> {
        look::find(session, &self.target, &self.wanted).await
    }

    fn say(&self, state: String) {
        self.reporter.index_state(Some(state));
    }
}

/// Says in the row that the work has ended early, because the job or the daemon has.
struct Unfinished<'a>(&'a Reporter);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let state = "interrupted: it goes on when the job runs again";
        self.0.index_state(Some(state.to_owned()));
    }
}

enum Found<'a> {
    Index(VectorIndex),
    /// The connection of a role that may build it.
    Owner(&'a ConnectionString),
}

fn described(index: &VectorIndex) -> String {
    format!(
        "{} ({}, {})",
        index.qualified(),
        index.method,
        index.distance.name()
    )
}
