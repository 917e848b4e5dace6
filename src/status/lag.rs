//! How far a stream is behind: the age of the oldest change that is not finished, and the WAL that is not confirmed.

use std::sync::Mutex;
use std::time::SystemTime;

/// What is known of a slot's lag.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Lag {
    /// What the slot reader has not finished; `None` while none reads the slot.
    pub unfinished: Option<Unfinished>,
    /// The slot at the last look of the daemon.
    pub slot: Option<SlotLag>,
    /// The server's clock less ours, in seconds.
    pub clock_ahead: f64,
}

/// What a slot reader has not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unfinished {
    /// When the oldest transaction with unfinished rows was committed, by the server's clock; `None` if all are finished.
    pub oldest_commit: Option<SystemTime>,
}

/// A slot at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlotLag {
    /// From `confirmed_flush_lsn` to the end of the WAL, in bytes.
    pub unconfirmed_bytes: u64,
    /// From `restart_lsn` to the end of the WAL, in bytes: what the server may not remove.
    pub retained_bytes: u64,
    /// `wal_status` of `pg_replication_slots`.
    pub wal_status: WalStatus,
    /// `confirmed_flush_lsn`.
    pub confirmed: u64,
}

/// `wal_status` of `pg_replication_slots` (PostgreSQL manual, "System Views").
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Beyond `max_wal_size`, and kept.
    Extended,
    /// About to be removed: `max_slot_wal_keep_size` is exceeded.
    Unreserved,
    /// Removed: the slot is of no use any more.
    Lost,
}

impl WalStatus {
    /// All of them.
    pub const ALL: [WalStatus; 4] = [
        WalStatus::Reserved,
        WalStatus::Extended,
        WalStatus::Unreserved,
        WalStatus::Lost,
    ];

    /// The status with this name.
    pub fn from_name(name: &str) -> Option<WalStatus> {
        Some(match name {
            "reserved" => WalStatus::Reserved,
            "extended" => WalStatus::Extended,
            "unreserved" => WalStatus::Unreserved,
            "lost" => WalStatus::Lost,
            _ => return None,
        })
    }

    /// The name that the server uses.
    pub fn name(self) -> &'static str {
        match self {
            WalStatus::Reserved => "reserved",
            WalStatus::Extended => "extended",
            WalStatus::Unreserved => "unreserved",
            WalStatus::Lost => "lost",
        }
    }
}

/// The lag of a stream, written by those who read it and watch its slot. Jobs of a shared slot have one in common.
#[derive(Debug, Default)]
pub struct StreamLag(Mutex<Lag>);

impl StreamLag {
    /// The slot reader: what it has not finished; `None` when it ends.
    pub fn set_unfinished(&self, unfinished: Option<Unfinished>) {
        self.lock().unfinished = unfinished;
    }

    /// What time it is on the server now.
    pub fn set_server_clock(&self, now: SystemTime) {
        let ours = SystemTime::now();
        let ahead = match now.duration_since(ours) {
            Ok(ahead) => ahead.as_secs_f64(),
            Err(behind) => -behind.duration().as_secs_f64(),
        };
        self.lock().clock_ahead = ahead;
    }

    /// The watch over the slot: how it is now; `None` once there is no slot.
    pub fn set_slot(&self, slot: Option<SlotLag>) {
        self.lock().slot = slot;
    }

    /// What is known now.
    pub fn get(&self) -> Lag {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lag> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Lag {
    /// The age of the oldest change that is not finished, in seconds; 0 if all are, and `None` while no reader tells.
    pub fn age(&self, now: SystemTime) -> Option<f64> {
        let Some(oldest) = self.unfinished?.oldest_commit else {
            return Some(0.0);
        };
        let by_our_clock = match now.duration_since(oldest) {
            Ok(age) => age.as_secs_f64(),
            Err(ahead) => -ahead.duration().as_secs_f64(),
        };
        Some((by_our_clock + self.clock_ahead).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_age_is_by_the_clock_of_the_server() {
        let (now, lag) = (SystemTime::now(), StreamLag::default());
        assert_eq!(lag.get().age(now), None);
        lag.set_unfinished(Some(Unfinished::default()));
        assert_eq!(lag.get().age(now), Some(0.0));
        let hour = Duration::from_secs(3600);
        lag.set_server_clock(now + hour);
        let oldest_commit = Some(now + hour - Duration::from_secs(60));
        lag.set_unfinished(Some(Unfinished { oldest_commit }));
        let age = lag.get().age(now).expect("a reader tells");
        assert!((age - 60.0).abs() < 10.0, "{age}");
    }
}
