//! Lets threads take turns at several things of the same kind.

use std::sync::{Condvar, Mutex, PoisonError};

/// Things by their numbers, each of which one thread uses at a time.
pub(crate) struct Turns {
    free: Mutex<Vec<usize>>,
    returned: Condvar,
}

/// The use of one thing, which ends when it is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    /// Its number.
    pub number: usize,
}

impl Turns {
    /// For so many things.
    pub(crate) fn new(count: usize) -> Self {
        Self {
            free: Mutex::new((0..count).collect()),
            returned: Condvar::new(),
        }
    }

    /// Waits until a thing is free.
    pub(crate) fn take(&self) -> Turn<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(number) = free.pop() {
                return Turn {
                    turns: self,
                    number,
                };
            }
            let waited = self.returned.wait(free);
            free = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let free = self.turns.free.lock();
        free.unwrap_or_else(PoisonError::into_inner)
            .push(self.number);
        self.turns.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn no_two_threads_use_the_same_thing() {
        let turns = Turns::new(2);
        let users = [AtomicUsize::new(0), AtomicUsize::new(0)];
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let turn = turns.take();
                        let user = &users[turn.number];
                        assert_eq!(user.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        user.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn a_thing_is_free_again_after_a_panic() {
        let turns = Turns::new(1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = turns.take();
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(turns.take().number, 0);
    }
}
