//! Answers that are made once a snapshot, however often they are asked for.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Bytes;

use crate::status::board::Snapshot;

/// The answer of the newest snapshot that was asked about. All who read it share its memory.
#[derive(Default)]
pub(super) struct Rendered(Mutex<Option<(Arc<Snapshot>, Bytes)>>);

impl Rendered {
    /// The answer of this snapshot.
    pub fn get(
        &self,
        snapshot: &Arc<Snapshot>,
        render: impl FnOnce(&Snapshot) -> Vec<u8>,
    ) -> Bytes {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, bytes)) = &*newest
            && Arc::ptr_eq(of, snapshot)
        {
            return bytes.clone();
        }
        let bytes = Bytes::from(render(snapshot));
        *newest = Some((snapshot.clone(), bytes.clone()));
        bytes
    }
}
