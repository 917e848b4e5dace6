//! How the daemons with one jobs table share its jobs, and when one of them counts as dead.
//!
//! Nobody leads: each daemon sees the same locks and comes to the same shares by itself. Two that looked at different
//! moments may disagree for one look; the lock of the job decides, and the next look puts it right.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::jobs::presence::{Peer, Pid, View};

/// A daemon that is not heard for this long has its session ended. It reads the jobs table every 400 ms.
pub const SILENCE: Duration = Duration::from_secs(6);
/// So often in a row it must have been found silent. When the server or the whole machine stood still for a while,
/// everybody seems to have been silent; those who live get the time to show it.
const SILENT_LOOKS: u32 = 5;

/// What this daemon remembers of the others.
#[derive(Default)]
pub struct Fleet {
    /// When each was last heard, and how often it was found so.
    heard: BTreeMap<Pid, (String, u32)>,
    others: usize,
}

impl Fleet {
    /// Takes in a new look and returns those who count as dead.
    pub fn observe(&mut self, view: &View, own: Pid) -> Vec<Peer> {
        let others = || view.peers.iter().filter(|peer| peer.pid != own);
        self.others = others().count();
        let before = std::mem::take(&mut self.heard);
        let mut dead = Vec::new();
        for peer in others() {
            let Some(signs) = &peer.signs else { continue };
            let looks = match before.get(&peer.pid) {
                Some((heard_at, looks)) if *heard_at == signs.heard_at => looks + 1,
                _ => 1,
            };
            if signs.silent_for >= SILENCE && looks >= SILENT_LOOKS && !signs.busy {
                dead.push(peer.clone());
            }
            self.heard.insert(peer.pid, (signs.heard_at.clone(), looks));
        }
        dead
    }

    /// Whether anybody could have taken jobs over when we were last able to look.
    pub fn has_others(&self) -> bool {
        self.others > 0
    }
}

/// How many of `wanted` jobs the daemon `own` should run: all daemons with our label get the same number, and what cannot be
/// divided stays with those who have most already, so that no job moves without need.
pub fn share(view: &View, own: Pid, wanted: usize) -> usize {
    let mut loads: Vec<(Pid, usize)> = view
        .peers
        .iter()
        .filter(|peer| peer.same_label)
        .map(|peer| {
            let held = view.holders.values().filter(|pid| **pid == peer.pid);
            (peer.pid, held.count())
        })
        .collect();
    let elsewhere = view
        .holders
        .values()
        .filter(|holder| !loads.iter().any(|(pid, _)| pid == *holder));
    let wanted = wanted.saturating_sub(elsewhere.count());
    loads.sort_by_key(|(pid, load)| (std::cmp::Reverse(*load), *pid));
    match loads.iter().position(|(pid, _)| *pid == own) {
        Some(rank) => wanted / loads.len() + usize::from(rank < wanted % loads.len()),
        None => wanted,
    }
}

/// A daemon for the same jobs that has the other kind of slots and came first: it runs some of them, or nobody does and its
/// process has the lower number. `busy`: we run some ourselves.
pub fn other_kind_before_us(view: &View, own: Pid, busy: bool) -> Option<Pid> {
    let runs = |pid| view.holders.values().any(|holder| *holder == pid);
    let others = view.peers.iter().filter(|peer| peer.other_slots);
    let mut others = others.map(|peer| peer.pid);
    others.find(|&pid| runs(pid) || !busy && pid < own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::JobId;
    use crate::jobs::presence::Signs;

    /// Daemons by their number of jobs; the process ids count from 1.
    fn view(loads: &[usize]) -> View {
        let mut view = View::default();
        for (pid, load) in (1..).zip(loads) {
            view.peers.push(Peer {
                pid,
                same_label: true,
                other_slots: false,
                signs: None,
            });
            for number in 0..*load {
                view.holders
                    .insert(JobId::new(format!("{pid}-{number}")), pid);
            }
        }
        view
    }

    fn shares(loads: &[usize], wanted: usize) -> Vec<usize> {
        let view = view(loads);
        (1..)
            .zip(loads)
            .map(|(pid, _)| share(&view, pid, wanted))
            .collect()
    }

    #[test]
    fn everybody_gets_the_same_and_what_is_left_stays_where_it_is() {
        assert_eq!(shares(&[6, 0], 6), [3, 3]);
        assert_eq!(shares(&[0, 7], 7), [3, 4]);
        assert_eq!(shares(&[4, 3, 0], 7), [3, 2, 2]);
        assert_eq!(shares(&[2, 3], 5), [2, 3]);
        assert_eq!(shares(&[1, 0, 0], 1), [1, 0, 0]);
        assert_eq!(shares(&[0, 0], 0), [0, 0]);
        assert_eq!(shares(&[2], 9), [9]);
    }

    #[test]
    fn what_others_run_under_another_label_is_not_shared() {
        let mut view = view(&[4, 0, 0]);
        view.peers[0].same_label = false;
        assert_eq!(share(&view, 2, 10), 3);
        assert_eq!(share(&view, 3, 10), 3);
    }

    #[test]
    fn of_two_kinds_of_daemons_those_that_came_first_go_on() {
        let mut view = view(&[0, 0]);
        view.peers.retain(|peer| peer.pid == 1);
        view.peers[0].other_slots = true;
        assert_eq!(other_kind_before_us(&view, 2, false), Some(1));
        assert_eq!(other_kind_before_us(&view, 2, true), None);
        view.peers[0].pid = 3;
        assert_eq!(other_kind_before_us(&view, 2, false), None);
        view.holders.insert(JobId::new("1"), 3);
        assert_eq!(other_kind_before_us(&view, 2, false), Some(3));
    }

    proptest::proptest! {
        #[test]
        fn the_shares_add_up_and_differ_by_one_at_most(loads in proptest::collection::vec(0..9usize, 1..6), free in 0..9usize) {
            let wanted = loads.iter().sum::<usize>() + free;
            let shares = shares(&loads, wanted);
            assert_eq!(shares.iter().sum::<usize>(), wanted);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }

    fn heard(pid: Pid, heard_at: &str, silent_for: u64, busy: bool) -> View {
        let signs = Signs {
            heard_at: heard_at.into(),
            silent_for: Duration::from_secs(silent_for),
            busy,
        };
        let peer = Peer {
            pid,
            same_label: true,
            other_slots: false,
            signs: Some(signs),
        };
        View {
            peers: vec![peer],
            ..View::default()
        }
    }

    #[test]
    fn only_a_long_silence_that_lasts_is_a_death() {
        let mut fleet = Fleet::default();
        for _ in 1..SILENT_LOOKS {
            assert_eq!(fleet.observe(&heard(7, "noon", 9, false), 1), []);
        }
        assert_eq!(fleet.observe(&heard(7, "noon", 9, false), 1).len(), 1);
        assert_eq!(fleet.observe(&heard(7, "later", 9, false), 1), []);
        // One at a time: whoever is not in a view is forgotten.
        for (pid, silent_for, busy, why) in [
            (8, 5, false, "not long enough"),
            (9, 99, true, "the server keeps it waiting"),
            (1, 99, false, "oneself"),
        ] {
            for _ in 0..9 {
                let dead = fleet.observe(&heard(pid, "noon", silent_for, busy), 1);
                assert_eq!(dead, [], "{why}");
            }
        }
    }
}
