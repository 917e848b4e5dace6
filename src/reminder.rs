//! Decides when to say a thing that lasts: at first, when it changes, and once an hour.
//!
//! A server that is away for a night would otherwise fill the log with one sentence.

use std::time::Duration;

use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(3600);

/// What was said last about a condition, and when.
#[derive(Debug, Default)]
pub struct Reminder {
    said: Option<(String, Instant)>,
}

impl Reminder {
    /// Whether to say `message` now. If so, counts it as said.
    pub fn is_due(&mut self, message: &str) -> bool {
        self.is_due_at(message, Instant::now())
    }

    fn is_due_at(&mut self, message: &str, now: Instant) -> bool {
        let is_fresh = |(last, at): &(String, Instant)| last == message && now - *at < INTERVAL;
        if self.said.as_ref().is_some_and(is_fresh) {
            return false;
        }
        self.said = Some((message.to_owned(), now));
        true
    }

    /// The condition is over. Returns whether anything was said about it.
    pub fn end(&mut self) -> bool {
        self.said.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_repeated_when_it_changes_and_once_an_hour() {
        let (mut reminder, begin) = (Reminder::default(), Instant::now());
        let mut said =
            |message, half_hours| reminder.is_due_at(message, begin + half_hours * (INTERVAL / 2));
        assert!(said("refused", 0));
        assert!(!said("refused", 1));
        assert!(said("another reason", 1));
        assert!(!said("another reason", 2));
        assert!(said("another reason", 3));
        assert!(reminder.end());
        assert!(!reminder.end());
        assert!(reminder.is_due_at("another reason", begin));
    }
}
