//! How far a stream is behind: the age of the oldest change that is not finished, and the WAL that is not confirmed.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// What is known of a slot's lag.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Lag {
    /// When the oldest transaction with unfinished rows was committed, by the server's clock; `None` if all are finished.
    pub oldest_commit: Option<SystemTime>,
    /// The slot at the last look of the daemon, and when that was.
    pub slot: Option<SlotLag>,
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
    /// The slot reader: the commit time of the oldest transaction with unfinished rows.
    pub fn set_oldest_commit(&self, oldest: Option<SystemTime>) {
        self.lock().oldest_commit = oldest;
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
    /// The age of the oldest change that is not finished; zero if all are.
    pub fn age(&self, now: SystemTime) -> Duration {
        let age = self.oldest_commit.map(|oldest| now.duration_since(oldest));
        // A server whose clock is ahead has no changes from the future.
        age.and_then(Result::ok).unwrap_or_default()
    }
}
