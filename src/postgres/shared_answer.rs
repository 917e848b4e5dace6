//! One answer of a server for all tasks that ask it the same at the same time, each over a session of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long a task waits for the session of another one. That may be busy with a statement that waits for a lock.
const PATIENCE: Duration = Duration::from_millis(250);

/// The last answer to a question, and who asks it again.
pub struct SharedAnswer<T> {
    state: Mutex<State<T>>,
    /// The task that asks has its answer, or has given up.
    has_ended: Notify,
}

struct State<T> {
    answer: Option<Answer<T>>,
    is_asked: bool,
}

struct Answer<T> {
    /// When it was asked for: it is of a later moment.
    asked: Instant,
    value: T,
}

impl<T> Default for SharedAnswer<T> {
    fn default() -> Self {
        SharedAnswer {
            state: Mutex::new(State {
                answer: None,
                is_asked: false,
            }),
            has_ended: Notify::new(),
        }
    }
}

/// What a task does that wants the answer.
enum Turn<'a, T> {
    /// It is known.
    Known(T),
    /// The task asks, for others too.
    Ask(Asking<'a, T>),
    /// Another one asks.
    Wait,
}

impl<T: Clone> SharedAnswer<T> {
    /// The answer, asked for at most `max_age` ago. Asks with `ask` where no other task has just asked; waits a quarter of a
    /// second at most for one that asks now.
    ///
    /// Cancellation safe if `ask` is: then another task asks.
    ///
    /// # Errors
    /// Those of `ask`. The other tasks do not hear of them, and ask by themselves.
    pub async fn get<E>(
        &self,
        max_age: Duration,
        ask: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Created before the look: so the end of the question is not missed in between.
            let ended = self.has_ended.notified();
            let asking = match self.turn(max_age) {
                Turn::Known(value) => return Ok(value),
                Turn::Ask(asking) => Some(asking),
                Turn::Wait => {
                    if timeout_at(deadline, ended).await.is_ok() {
                        continue;
                    }
                    None
                }
            };
            let asked = Instant::now();
            let value = ask.await?;
            self.note(asked, value.clone());
            drop(asking);
            return Ok(value);
        }
    }

    fn turn(&self, max_age: Duration) -> Turn<'_, T> {
        let mut state = self.lock();
        let answer = state.answer.as_ref();
        if let Some(answer) = answer.filter(|answer| answer.asked.elapsed() <= max_age) {
            return Turn::Known(answer.value.clone());
        }
        match std::mem::replace(&mut state.is_asked, true) {
            true => Turn::Wait,
            false => Turn::Ask(Asking(self)),
        }
    }

    fn note(&self, asked: Instant, value: T) {
        let answer = &mut self.lock().answer;
        if answer.as_ref().is_none_or(|known| known.asked < asked) {
            *answer = Some(Answer { asked, value });
        }
    }
}

impl<T> SharedAnswer<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the task that asks for all.
struct Asking<'a, T>(&'a SharedAnswer<T>);

impl<T> Drop for Asking<'_, T> {
    fn drop(&mut self) {
        self.0.lock().is_asked = false;
        self.0.has_ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::{sleep, timeout};

    use super::*;

    const MAX_AGE: Duration = Duration::from_secs(3600);

    /// Counts how often it is asked, and takes a moment to answer.
    #[derive(Default)]
    struct Server(AtomicU32);

    impl Server {
        async fn ask(&self) -> Result<u32, &'static str> {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(5)).await;
            Ok(number)
        }
    }

    #[tokio::test]
    async fn tasks_that_ask_at_the_same_time_have_one_answer() {
        let (shared, server) = (SharedAnswer::default(), Server::default());
        let ask = |max_age| shared.get(max_age, server.ask());
        let answers = tokio::join!(ask(MAX_AGE), ask(MAX_AGE), ask(MAX_AGE));
        assert_eq!(answers, (Ok(0), Ok(0), Ok(0)));
        assert_eq!(ask(MAX_AGE).await, Ok(0));
        assert_eq!(ask(Duration::ZERO).await, Ok(1), "it is too old");
    }

    #[tokio::test]
    async fn a_session_that_is_busy_delays_other_tasks_for_a_moment_only() {
        let (shared, server) = (SharedAnswer::default(), Server::default());
        let busy = shared.get(MAX_AGE, pending::<Result<u32, &str>>());
        let waiting = async {
            let begin = Instant::now();
            let answer = shared.get(MAX_AGE, server.ask()).await;
            (answer, begin.elapsed())
        };
        let (answer, took) = tokio::select! {
            biased;
            _ = busy => panic!("it never ends"),
            waited = waiting => waited,
        };
        assert_eq!(answer, Ok(0));
        assert!(took >= PATIENCE && took < 8 * PATIENCE, "{took:?}");
    }

    #[tokio::test]
    async fn where_a_task_fails_or_ends_the_next_one_asks() {
        let (shared, server) = (SharedAnswer::default(), Server::default());
        let fails = shared.get(MAX_AGE, async {
            sleep(Duration::from_millis(1)).await;
            Err("refused")
        });
        let next = shared.get(MAX_AGE, server.ask());
        assert_eq!(tokio::join!(fails, next), (Err("refused"), Ok(0)));
        let ends = timeout(
            Duration::from_millis(1),
            shared.get(Duration::ZERO, pending::<Result<u32, &str>>()),
        );
        let begin = Instant::now();
        let next = shared.get(Duration::ZERO, server.ask());
        let (ended, next) = tokio::join!(ends, next);
        assert!(ended.is_err());
        assert_eq!(next, Ok(1));
        assert!(begin.elapsed() < PATIENCE, "it need not be waited for");
    }
}
