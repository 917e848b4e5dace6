//! A device that runs a model: its sessions, how large its batches may be, the runs that were given to it, and whether it
//! is lost. The processor is one, too, of which only the session counts.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::session::SharedSession;

/// A device that runs a model.
pub(crate) struct Device {
    pub session: SharedSession,
    /// Padded tokens of a batch; `usize::MAX` where the engine's setting counts.
    batch_tokens: AtomicUsize,
    /// Whether a lower size was logged.
    pub has_warned: AtomicBool,
    /// Runs that were given to it and have not ended: those under way, and those that wait for their turn.
    assigned: AtomicUsize,
    /// Batches that it has computed.
    batches: AtomicU64,
    /// How often its sessions were made again.
    renewals: AtomicU64,
    /// Held by the thread that looks whether it still computes.
    pub examining: Mutex<()>,
    outage: Mutex<Option<Outage>>,
}

/// Why a device computes nothing, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// When the first run failed.
    pub since: SystemTime,
    /// The last error.
    pub error: String,
}

/// A device that runs a model, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceState {
    /// Its name, such as `cuda:1`.
    pub device: String,
    /// Batches that it has run since the model was loaded.
    pub batches: u64,
    /// Why it is lost, if it is.
    pub outage: Option<Outage>,
}

impl DeviceState {
    pub(crate) fn of(device: &Device) -> Self {
        Self {
            device: device.session.provider().to_string(),
            batches: device.batches.load(Ordering::Relaxed),
            outage: device.lock_outage().clone(),
        }
    }
}

impl Device {
    /// With these sessions. The engine's setting decides how large batches are.
    pub(crate) fn new(session: SharedSession) -> Self {
        Self {
            session,
            batch_tokens: AtomicUsize::new(usize::MAX),
            has_warned: AtomicBool::default(),
            assigned: AtomicUsize::default(),
            batches: AtomicU64::default(),
            renewals: AtomicU64::default(),
            examining: Mutex::default(),
            outage: Mutex::default(),
        }
    }

    /// The most padded tokens of a batch, unless the engine's setting counts.
    pub(crate) fn batch_tokens(&self) -> Option<usize> {
        let tokens = self.batch_tokens.load(Ordering::Relaxed);
        (tokens < usize::MAX).then_some(tokens)
    }

    /// From now on a batch has at most so many padded tokens. Returns whether it could have had more.
    pub(crate) fn lower_batch_tokens(&self, tokens: usize) -> bool {
        let before = self.batch_tokens.fetch_min(tokens, Ordering::Relaxed);
        tokens < before
    }

    /// Runs that may be under way at the same time.
    pub(super) fn runs(&self) -> usize {
        self.session.runs().unwrap_or(1)
    }

    /// Runs that were given to it and have not ended.
    pub(super) fn assigned(&self) -> usize {
        self.assigned.load(Ordering::Relaxed)
    }

    /// A run is given to it.
    pub(super) fn begin_run(&self) {
        self.assigned.fetch_add(1, Ordering::Relaxed);
    }

    /// A run has ended, or is given to another device.
    pub(super) fn end_run(&self) {
        self.assigned.fetch_sub(1, Ordering::Relaxed);
    }

    /// It has computed a batch.
    pub(crate) fn note_batch(&self) {
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was lost and came back.
    pub(crate) fn renewals(&self) -> u64 {
        self.renewals.load(Ordering::Acquire)
    }

    /// Whether it computes nothing now.
    pub(crate) fn is_lost(&self) -> bool {
        self.lock_outage().is_some()
    }

    /// It computes nothing any more, or still does not, because of this error.
    pub(crate) fn note_loss(&self, error: &impl ToString) {
        let mut outage = self.lock_outage();
        let since = outage.as_ref().map(|outage| outage.since);
        *outage = Some(Outage {
            since: since.unwrap_or_else(SystemTime::now),
            error: error.to_string(),
        });
    }

    /// It computes again.
    pub(crate) fn note_return(&self) {
        self.renewals.fetch_add(1, Ordering::Release);
        *self.lock_outage() = None;
    }

    fn lock_outage(&self) -> MutexGuard<'_, Option<Outage>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
