//! Processes on this machine that work for this one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::processors::Process;

/// Processes on this machine that work for this one, such as the server processes of its sessions. What they use is not
/// what others use. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Processes(Arc<Mutex<BTreeMap<u32, usize>>>);

/// A process that is on the list until this is dropped.
#[derive(Debug)]
pub struct OwnProcess {
    list: Processes,
    pid: u32,
}

impl Processes {
    /// Adds the process with this id, if this machine has one whose name begins with `name`. In a container the id may be
    /// that of another one, or of none.
    #[must_use]
    pub fn add(&self, pid: u32, name: &str) -> Option<OwnProcess> {
        if !Process::read(pid).is_some_and(|process| process.name.starts_with(name)) {
            return None;
        }
        *self.lock().entry(pid).or_default() += 1;
        Some(OwnProcess {
            list: self.clone(),
            pid,
        })
    }

    /// The ids of the listed processes.
    pub(super) fn ids(&self) -> Vec<u32> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OwnProcess {
    fn drop(&mut self) {
        let mut list = self.list.lock();
        if let Some(count) = list.get_mut(&self.pid) {
            *count -= 1;
            if *count == 0 {
                list.remove(&self.pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_listed_as_long_as_one_owner_is_left() {
        let list = Processes::default();
        let this = std::process::id();
        let name = std::fs::read_to_string("/proc/self/comm").expect("a name");
        assert!(list.add(this, "postgres").is_none());
        let first = list.add(this, name.trim_end()).expect("it is there");
        let second = list.add(this, name.trim_end()).expect("it is there");
        drop(first);
        assert_eq!(list.ids(), [this]);
        drop(second);
        assert!(list.ids().is_empty());
    }
}
