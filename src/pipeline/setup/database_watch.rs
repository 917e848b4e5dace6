//! What all jobs of a database want to know each second, asked once for all of them: whether they have to leave the
//! database, and whether anything was committed on its server since.
//!
//! A catalog is changed by transactions alone. While the snapshot of a server stays the same (`pg_current_snapshot`; PostgreSQL
//! manual, "Transaction ID and Snapshot Information Functions"), none has ended, and a table is as it was at the last look.
//! So an idle daemon need not ask each table. The states of slots are asked for together likewise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::pipeline::setup::exclusive_use::{self, DatabaseState};
use crate::pipeline::slot::retention::SlotStates;
use crate::postgres::shared_answer::SharedAnswer;
use crate::postgres::{DatabaseError, ServerInstance, Session};

/// An answer serves all jobs for this long. What a job notices within a second, it notices by so much later.
const MAX_AGE: Duration = Duration::from_millis(200);

/// The databases of a daemon's jobs. Clones share them.
#[derive(Clone, Default)]
pub struct DatabaseWatches(Arc<Mutex<Vec<Entry>>>);

struct Entry {
    server: ServerInstance,
    database: String,
    /// Gone with the last job that watches it.
    answers: Weak<Answers>,
}

/// A database that several jobs watch.
pub struct DatabaseWatch(Arc<Answers>);

#[derive(Default)]
struct Answers {
    state: SharedAnswer<DatabaseState>,
    slots: Arc<SlotStates>,
}

impl DatabaseWatches {
    /// The database of this session. An address may lead to several servers, so the server itself says which it is.
    ///
    /// # Errors
    /// The server's.
    pub async fn of(&self, session: &Session) -> Result<DatabaseWatch, DatabaseError> {
        let server = ServerInstance::of(session).await?;
        let database = exclusive_use::database_name(session).await?;
        let mut entries = lock(&self.0);
        entries.retain(|entry| entry.answers.strong_count() > 0);
        let known = entries
            .iter()
            .filter(|entry| entry.server == server && entry.database == database)
            .find_map(|entry| entry.answers.upgrade());
        let answers = known.unwrap_or_else(|| {
            let answers = Arc::default();
            entries.push(Entry {
                server,
                database,
                answers: Arc::downgrade(&answers),
            });
            answers
        });
        Ok(DatabaseWatch(answers))
    }
}

impl DatabaseWatch {
    /// The state of the database, a fifth of a second old at most. Asks by this session where no other job has just asked,
    /// or where the session of the one that asks is busy.
    ///
    /// # Errors
    /// The server's.
    ///
    /// Cancellation safe: it only reads.
    pub async fn state(&self, session: &Session) -> Result<DatabaseState, DatabaseError> {
        let asking = exclusive_use::read(session);
        self.0.state.get(MAX_AGE, asking).await
    }

    /// The states of the server's slots.
    pub fn slots(&self) -> Arc<SlotStates> {
        self.0.slots.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
