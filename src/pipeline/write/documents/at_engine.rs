//! Passages whose vectors are being computed.
//!
//! Only so many texts of a job are at the engine at a time that its batches are full. So the passages of a short document
//! do not wait behind those of a long one.

use std::collections::HashMap;

use uuid::Uuid;

use crate::embedding::{Priority, Submitter};
use crate::pipeline::table::row::Key;

/// Texts of a job that are at the engine at a time.
pub const MAX_AT_ENGINE: usize = 1024;

/// The passages by the number with which their text was submitted.
pub struct PassagesAtEngine {
    submitter: Submitter,
    by_number: HashMap<u64, (Key, Uuid)>,
    by_document: HashMap<Key, HashMap<Uuid, u64>>,
    next_number: u64,
}

impl PassagesAtEngine {
    /// None yet.
    pub fn new(submitter: Submitter) -> Self {
        PassagesAtEngine {
            submitter,
            by_number: HashMap::new(),
            by_document: HashMap::new(),
            next_number: 0,
        }
    }

    /// Whether more texts may be submitted.
    pub fn has_room(&self) -> bool {
        self.by_number.len() < MAX_AT_ENGINE
    }

    /// Whether the text of this passage is here.
    pub fn has(&self, key: &Key, fingerprint: &Uuid) -> bool {
        let passages = self.by_document.get(key);
        passages.is_some_and(|passages| passages.contains_key(fingerprint))
    }

    /// Submits the text of a passage.
    pub fn submit(&mut self, key: &Key, fingerprint: Uuid, priority: Priority, text: String) {
        self.next_number += 1;
        let number = self.next_number;
        self.submitter.submit(priority, number, text);
        self.by_number.insert(number, (key.clone(), fingerprint));
        let passages = self.by_document.entry(key.clone()).or_default();
        passages.insert(fingerprint, number);
    }

    /// Takes the passage whose vector has come. `None` where it was withdrawn a moment ago.
    pub fn take(&mut self, number: u64) -> Option<(Key, Uuid)> {
        let (key, fingerprint) = self.by_number.remove(&number)?;
        if let Some(passages) = self.by_document.get_mut(&key) {
            passages.remove(&fingerprint);
            if passages.is_empty() {
                self.by_document.remove(&key);
            }
        }
        Some((key, fingerprint))
    }

    /// Takes the texts of a document back that are not wanted any more.
    pub fn withdraw(&mut self, key: &Key, is_wanted: impl Fn(&Uuid) -> bool) {
        let Some(passages) = self.by_document.get_mut(key) else {
            return;
        };
        passages.retain(|fingerprint, number| {
            // One that cannot be withdrawn is computed already.
            let stays = is_wanted(fingerprint) || !self.submitter.withdraw(*number);
            if !stays {
                self.by_number.remove(number);
            }
            stays
        });
        if passages.is_empty() {
            self.by_document.remove(key);
        }
    }
}
