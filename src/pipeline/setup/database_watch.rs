//! What all jobs of a database want to know each second, asked once for all of them: whether they have to leave the
//! database, and whether anything was committed on its server since.
//!
//! A catalog is changed by transactions alone. While the snapshot of a server stays the same (`pg_current_snapshot`; PostgreSQL
//! manual, "Transaction ID and Snapshot Information Functions"), none has ended, and a table is as it was at the last look.
//! So an idle daemon need not ask each table.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::pipeline::setup::exclusive_use::{self, DatabaseState};
use crate::postgres::{DatabaseError, ServerInstance, Session};

/// An answer serves all jobs for this long. What a job notices within a second, it notices by so much later.
const MAX_AGE: Duration = Duration::from_millis(250);

/// The databases of a daemon's jobs. Clones share them.
#[derive(Clone, Default)]
pub struct DatabaseWatches(Arc<Mutex<Vec<Entry>>>);

struct Entry {
    server: ServerInstance,
    database: String,
    /// Gone with the last job that watches it.
    answer: Weak<Mutex<Option<Answer>>>,
}

/// A database that several jobs watch.
pub struct DatabaseWatch(Arc<Mutex<Option<Answer>>>);

#[derive(Clone)]
struct Answer {
    /// When it was asked for: the state is that of a later moment.
    asked: Instant,
    state: DatabaseState,
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
        entries.retain(|entry| entry.answer.strong_count() > 0);
        let known = entries
            .iter()
            .filter(|entry| entry.server == server && entry.database == database)
            .find_map(|entry| entry.answer.upgrade());
        let answer = known.unwrap_or_else(|| {
            let answer = Arc::default();
            entries.push(Entry {
                server,
                database,
                answer: Arc::downgrade(&answer),
            });
            answer
        });
        Ok(DatabaseWatch(answer))
    }
}

impl DatabaseWatch {
    /// The state of the database, a quarter of a second old at most. Asks by this session where no other job has just
    /// asked; never waits for the session of another one.
    ///
    /// # Errors
    /// The server's.
    ///
    /// Cancellation safe: it only reads.
    pub async fn state(&self, session: &Session) -> Result<DatabaseState, DatabaseError> {
        let known = lock(&self.0).clone();
        if let Some(answer) = known.filter(|answer| answer.asked.elapsed() < MAX_AGE) {
            return Ok(answer.state);
        }
        let asked = Instant::now();
        let state = exclusive_use::read(session).await?;
        let mut known = lock(&self.0);
        if known.as_ref().is_none_or(|known| known.asked < asked) {
            *known = Some(Answer {
                asked,
                state: state.clone(),
            });
        }
        Ok(state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
