//! The ways of capturing changes, by name.

use serde::Serialize;

/// A way of capturing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// No capture.
    Nothing,
    /// `pg_recvlogical` into nowhere: what logical decoding costs by itself.
    Recvlogical,
    /// The daemon.
    Daemon,
    /// A row trigger that sends the key to a listener.
    Notify,
    /// A row trigger that leaves the key in a table for a worker.
    Queue,
}

impl Way {
    pub const ALL: [Way; 5] = [
        Way::Nothing,
        Way::Recvlogical,
        Way::Daemon,
        Way::Notify,
        Way::Queue,
    ];

    /// Those that end in vectors.
    pub const EMBEDDING: [Way; 3] = [Way::Daemon, Way::Notify, Way::Queue];

    pub fn name(self) -> &'static str {
        match self {
            Way::Nothing => "no capture",
            Way::Recvlogical => "pg_recvlogical",
            Way::Daemon => "lantern-cli",
            Way::Notify => "trigger, NOTIFY",
            Way::Queue => "trigger, queue",
        }
    }
}

/// What a job makes of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// A vector for each row.
    Vectors,
    /// Passages in a table of their own, which go with their row.
    Passages,
}

impl Made {
    /// The changes that the job's publication has.
    pub fn published(self) -> &'static str {
        match self {
            Made::Vectors => "insert, update",
            Made::Passages => "insert, update, delete, truncate",
        }
    }
}

/// What happens to a change that was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Inference {
    /// Its text is read and dropped. So the capture runs at its own pace, and leaves the processors to the users.
    Off,
    /// Its vector is computed and written back. Inference yields to others, as it does by default.
    Yielding,
    /// The same, but inference takes what the system gives it (`--yield off`).
    Unyielding,
}

impl Inference {
    pub fn name(self) -> &'static str {
        match self {
            Inference::Off => "off",
            Inference::Yielding => "yields",
            Inference::Unyielding => "does not yield",
        }
    }

    /// As the daemon and the followers read it from `LANTERN_YIELD`.
    pub fn yields(self) -> &'static str {
        match self {
            Inference::Unyielding => "off",
            Inference::Off | Inference::Yielding => "on",
        }
    }
}
