//! How much is worked on at a time: more would only wait longer, in memory of this process.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, Problem};
use super::limits::{MAX_MEMORY_KIB, MAX_REQUESTS};

/// Places for requests, and memory for them.
pub(super) struct Admission {
    requests: Arc<Semaphore>,
    memory: Arc<Semaphore>,
}

/// A part of the memory. It comes back when the value is dropped.
pub(super) struct Memory {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    pub fn new() -> Self {
        Self {
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            memory: Arc::new(Semaphore::new(MAX_MEMORY_KIB as usize)),
        }
    }

    /// A place for a request.
    ///
    /// # Errors
    /// If all are taken.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = self.requests.clone().try_acquire_owned();
        place.map_err(|_| {
            ApiError::new(
                Problem::Overloaded,
                format!("{MAX_REQUESTS} requests are being worked on; send this one again later"),
            )
        })
    }

    /// Whether more than one request is worked on.
    pub fn is_shared(&self) -> bool {
        self.requests.available_permits() + 1 < MAX_REQUESTS
    }

    /// Memory for so many bytes.
    ///
    /// # Errors
    /// If so much is not free.
    pub fn reserve(&self, bytes: usize) -> Result<Memory, ApiError> {
        let wanted = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        if wanted > MAX_MEMORY_KIB {
            return Err(ApiError::new(
                Problem::TooLarge,
                "the answer would be too large; send fewer texts at a time",
            ));
        }
        let permit = self.memory.clone().try_acquire_many_owned(wanted);
        let permit = permit.map_err(|_| {
            ApiError::new(
                Problem::Overloaded,
                "other requests take all memory that is set aside for them; send this one again later",
            )
        })?;
        Ok(Memory { _permit: permit })
    }
}
