//! What holds while the jobs database is away, and when it is back.
//!
//! The locks of this daemon are lost with its session. Jobs go on meanwhile: no job starts an attempt before its row
//! says so, and a daemon that takes a job over first ends the sessions with which the previous one works on the target.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::backoff::Backoff;
use crate::jobs::definition::JobId;
use crate::jobs::lock;
use crate::jobs::lock::JobsLock;
use crate::jobs::table::{JobsTable, JobsTableError};
use crate::pipeline::supervisor::fleet::INACTIVITY_TIMEOUT;
use crate::pipeline::supervisor::session;
use crate::pipeline::supervisor::state::{AfterEnd, Supervisor};
use crate::postgres::DatabaseError;
use crate::reminder::Reminder;

/// The pause between two attempts to connect. It does not grow: a daemon that comes back later than the others finds
/// its jobs taken ([`RECLAIM_TIME`]).
const RECONNECT_PAUSE: Duration = Duration::from_millis(400);
/// After an outage of the jobs database each daemon claims only the jobs that it ran before, for this long.
const RECLAIM_TIME: Duration = Duration::from_secs(2);

/// An outage of the jobs database, from the first error to the next answer.
pub(super) struct Outage {
    /// The last message in the log, so that no message is repeated.
    logged: Option<String>,
    /// The database answers, but there is no jobs table that can be used.
    pub table_is_away: bool,
    /// Why there is no new session.
    no_session: Reminder,
    backoff: Backoff,
}

/// What is the matter with the jobs table, while its database answers.
enum TableTrouble {
    /// It is gone, or lacks something: what, and what to do.
    Unusable(String),
    /// It can be used, but is not as it was when the session was opened.
    Changed,
}

impl Outage {
    pub fn new() -> Self {
        Outage {
            logged: None,
            table_is_away: false,
            no_session: Reminder::default(),
            backoff: Backoff::new(RECONNECT_PAUSE, RECONNECT_PAUSE),
        }
    }

    /// The database has answered.
    pub fn end(&mut self) {
        self.logged = None;
        self.table_is_away = false;
        self.no_session.end();
    }
}

impl Supervisor {
    /// Handles an error of the jobs database: logs it once, and opens a new session if the old one is lost.
    pub(super) async fn recover(&mut self, error: DatabaseError, outage: &mut Outage) {
        let trouble = self.table_trouble(&error).await;
        let message = match &trouble {
            Some(TableTrouble::Unusable(why)) => {
                outage.table_is_away = true;
                format!("{why}. Jobs that run go on, but no change of a job is noticed")
            }
            _ if matches!(error, DatabaseError::Left { .. }) => {
                format!("{error}; coming back as soon as it lets sessions in")
            }
            _ => format!("the jobs database does not answer, trying again: {error}"),
        };
        if outage.logged.as_deref() != Some(&message) {
            tracing::warn!("{message}");
            // This process may have been stopped or cut off for so long that other daemons have taken its jobs over.
            let first = outage.logged.is_none();
            let overdue = first && self.last_answer.elapsed() >= INACTIVITY_TIMEOUT;
            if overdue && self.fleet.has_others() {
                self.give_up(self.locked_jobs().into_iter().collect());
            }
            outage.logged = Some(message);
        }
        let answered = matches!(
            error,
            DatabaseError::Query { .. } | DatabaseError::TooMuch { .. }
        );
        match trouble {
            Some(TableTrouble::Unusable(_)) => return outage.backoff.wait().await,
            Some(TableTrouble::Changed) => {}
            None if answered && !self.store.session().is_closed() => return,
            None => {}
        }
        match self.reconnect().await {
            Ok(()) => tracing::info!("connected to the jobs database again"),
            Err(error) => {
                // What ended the session is not always what prevents the next one, such as a new password.
                let message = error.to_string();
                if outage.no_session.is_due(&message) {
                    tracing::warn!("no new session with the jobs database: {message}");
                }
                outage.backoff.wait().await;
            }
        }
    }

    /// The jobs table answers again after it was away. It may be another one with other columns, so everything that is
    /// known of it is read again.
    pub(super) async fn return_to_table(&mut self, outage: &mut Outage) {
        match self.reconnect().await {
            Ok(()) => {
                tracing::info!("the jobs table {} is back", self.store.table().qualified());
                outage.end();
            }
            Err(error) => {
                tracing::debug!("no new session: {error}");
                outage.backoff.wait().await;
            }
        }
    }

    /// What is the matter with the jobs table, if that is what the error is about.
    async fn table_trouble(&self, error: &DatabaseError) -> Option<TableTrouble> {
        let about_tables = [
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::INVALID_SCHEMA_NAME,
            SqlState::INSUFFICIENT_PRIVILEGE,
            SqlState::UNDEFINED_FUNCTION,
            SqlState::FEATURE_NOT_SUPPORTED,
        ];
        if !error.code().is_some_and(|code| about_tables.contains(code))
            || self.store.session().is_closed()
        {
            return None;
        }
        let options = &self.options;
        let label = options.label.as_deref();
        let session = self.store.session();
        let found = JobsTable::discover(session, &options.schema, &options.table, label).await;
        match found {
            Ok(_) => Some(TableTrouble::Changed),
            Err(JobsTableError::Database(_)) => None,
            Err(JobsTableError::Missing { table, similar }) => {
                let found =
                    similar.map_or_else(String::new, |similar| format!("; there is {similar}"));
                Some(TableTrouble::Unusable(format!(
                    "the jobs table {table} is gone: it was renamed, moved or dropped. Name it back, or start the daemon \
                     again with its new name (--table, --schema){found}"
                )))
            }
            Err(other) => Some(TableTrouble::Unusable(format!(
                "the jobs table cannot be used any more: {other}"
            ))),
        }
    }

    /// Opens a new session and takes the locks of the jobs that run here. Jobs that other daemons have claimed
    /// meanwhile are given up.
    async fn reconnect(&mut self) -> Result<(), JobsTableError> {
        let (store, session) = session::open(&self.options).await?;
        session::terminate_previous(&store, &self.session).await?;
        let mut shared_slots = BTreeSet::new();
        for slot in &self.shared_slots {
            if lock::try_lock(&store, JobsLock::SharedSlot(slot.as_str())).await? {
                shared_slots.insert(slot.clone());
            }
        }
        let mut lost = Vec::new();
        for id in self.locked_jobs() {
            let slot = self
                .running
                .get(&id)
                .filter(|running| self.shares_slot(&running.row))
                .map(|running| self.shared_slot(&running.row));
            let slot_is_ours = slot.is_none_or(|slot| {
                shared_slots.contains(&slot) || !self.shared_slots.contains(&slot)
            });
            if !slot_is_ours || !lock::try_lock(&store, JobsLock::Job(&id)).await? {
                lost.push(id);
            }
        }
        self.shared_slots = shared_slots;
        (self.store, self.session) = (store, session);
        self.known.outdate();
        self.claims.claim_after = Instant::now() + RECLAIM_TIME;
        self.claims.unclaimed.clear();
        self.give_up(lost);
        Ok(())
    }

    /// Ends jobs whose locks this daemon has lost. What their new owners need stays untouched.
    fn give_up(&mut self, jobs: Vec<JobId>) {
        for id in &jobs {
            tracing::warn!(job = %id, "another daemon has taken this job over");
            let mut ended = Vec::new();
            if let Some(running) = self.running.get_mut(id) {
                if running.after_end == AfterEnd::TearDown {
                    ended.push(running.row.clone());
                }
                running.after_end = AfterEnd::Forget;
                running.cancel.cancel();
            }
            if let Some(tearing_down) = self.tearing_down.remove(id) {
                tearing_down.task.abort();
                ended.extend(tearing_down.leftovers.rows);
            }
            if !ended.is_empty() {
                let leftovers = self.leftovers.entry(id.clone()).or_default();
                leftovers.rows.extend(ended);
                leftovers.elsewhere = true;
            }
        }
        self.unwritten
            .retain(|message| !jobs.contains(&message.job));
    }
}
