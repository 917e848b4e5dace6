//! How the daemons of one jobs table divide its jobs, and when one of them counts as dead.
//!
//! There is no leader, and no daemon sends another one anything. Each computes the same function of the same facts:
//! which locks are held by whom. Two daemons that looked at different moments may disagree until the next poll. That
//! does no harm, because the lock of a job decides who runs it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::jobs::presence::{FleetView, Peer, Pid};

/// A daemon without activity for this long has its session terminated. A daemon polls the jobs table every 400 ms.
pub const INACTIVITY_TIMEOUT: Duration = Duration::from_secs(6);
/// The daemon must have been found without activity in this many successive polls. When the server or the whole machine
/// stood still for a while, all daemons seem inactive; those that are alive get the time to show it.
const MIN_INACTIVE_POLLS: u32 = 5;

/// What this daemon remembers of the others from one poll to the next.
#[derive(Default)]
pub struct Fleet {
    /// When each daemon was last active, and in how many successive polls that was so.
    last_active: BTreeMap<Pid, (String, u32)>,
    others: usize,
}

impl Fleet {
    /// Takes in the view of this poll and returns the daemons that count as dead.
    pub fn observe(&mut self, view: &FleetView, own: Pid) -> Vec<Peer> {
        let others = || view.peers.iter().filter(|peer| peer.pid != own);
        self.others = others().count();
        let before = std::mem::take(&mut self.last_active);
        let mut dead = Vec::new();
        for peer in others() {
            let Some(activity) = &peer.activity else {
                continue;
            };
            let polls = match before.get(&peer.pid) {
                Some((last_change, polls)) if *last_change == activity.last_change => polls + 1,
                _ => 1,
            };
            let inactive = activity.since >= INACTIVITY_TIMEOUT && polls >= MIN_INACTIVE_POLLS;
            if inactive && !activity.busy {
                dead.push(peer.clone());
            }
            let last_change = activity.last_change.clone();
            self.last_active.insert(peer.pid, (last_change, polls));
        }
        dead
    }

    /// Whether there were other daemons, which could have taken jobs over, at the last poll.
    pub fn has_others(&self) -> bool {
        self.others > 0
    }
}

/// How many of `wanted` jobs the daemon `own` should run. All daemons with its label get the same number. The remainder
/// goes to those that run most jobs already, so that no job moves without need.
pub fn share(view: &FleetView, own: Pid, wanted: usize) -> usize {
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

/// A daemon with the same label and another value of `--slots` that has precedence over `own`. It runs some of the
/// jobs; or no daemon runs any, and its process id is lower. `busy`: `own` runs some of them itself.
pub fn conflicting_peer(view: &FleetView, own: Pid, busy: bool) -> Option<Pid> {
    let runs_jobs = |pid| view.holders.values().any(|holder| *holder == pid);
    let others = view.peers.iter().filter(|peer| peer.other_slots);
    let mut others = others.map(|peer| peer.pid);
    others.find(|&pid| runs_jobs(pid) || !busy && pid < own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::definition::JobId;
    use crate::jobs::presence::Activity;

    /// Daemons by their number of jobs; the process ids count from 1.
    fn view(loads: &[usize]) -> FleetView {
        let mut view = FleetView::default();
        for (pid, load) in (1..).zip(loads) {
            view.peers.push(Peer {
                pid,
                same_label: true,
                other_slots: false,
                activity: None,
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
    fn all_daemons_get_the_same_share_and_the_remainder_stays_where_it_is() {
        assert_eq!(shares(&[6, 0], 6), [3, 3]);
        assert_eq!(shares(&[0, 7], 7), [3, 4]);
        assert_eq!(shares(&[4, 3, 0], 7), [3, 2, 2]);
        assert_eq!(shares(&[2, 3], 5), [2, 3]);
        assert_eq!(shares(&[1, 0, 0], 1), [1, 0, 0]);
        assert_eq!(shares(&[0, 0], 0), [0, 0]);
        assert_eq!(shares(&[2], 9), [9]);
    }

    #[test]
    fn jobs_that_run_under_another_label_are_not_shared() {
        let mut view = view(&[4, 0, 0]);
        view.peers[0].same_label = false;
        assert_eq!(share(&view, 2, 10), 3);
        assert_eq!(share(&view, 3, 10), 3);
    }

    #[test]
    fn of_daemons_with_different_slots_those_that_came_first_go_on() {
        let mut view = view(&[0, 0]);
        view.peers.retain(|peer| peer.pid == 1);
        view.peers[0].other_slots = true;
        assert_eq!(conflicting_peer(&view, 2, false), Some(1));
        assert_eq!(conflicting_peer(&view, 2, true), None);
        view.peers[0].pid = 3;
        assert_eq!(conflicting_peer(&view, 2, false), None);
        view.holders.insert(JobId::new("1"), 3);
        assert_eq!(conflicting_peer(&view, 2, false), Some(3));
    }

    proptest::proptest! {
        #[test]
        fn shares_add_up_and_differ_by_at_most_one(loads in proptest::collection::vec(0..9usize, 1..6), free in 0..9usize) {
            let wanted = loads.iter().sum::<usize>() + free;
            let shares = shares(&loads, wanted);
            assert_eq!(shares.iter().sum::<usize>(), wanted);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }

    fn last_active(pid: Pid, last_change: &str, since: u64, busy: bool) -> FleetView {
        let activity = Activity {
            last_change: last_change.into(),
            since: Duration::from_secs(since),
            busy,
        };
        let peer = Peer {
            pid,
            same_label: true,
            other_slots: false,
            activity: Some(activity),
        };
        FleetView {
            peers: vec![peer],
            ..FleetView::default()
        }
    }

    #[test]
    fn a_daemon_counts_as_dead_after_a_long_inactivity_in_several_polls() {
        let mut fleet = Fleet::default();
        for _ in 1..MIN_INACTIVE_POLLS {
            assert_eq!(fleet.observe(&last_active(7, "noon", 9, false), 1), []);
        }
        assert_eq!(fleet.observe(&last_active(7, "noon", 9, false), 1).len(), 1);
        assert_eq!(fleet.observe(&last_active(7, "later", 9, false), 1), []);
        // One at a time: a daemon that is not in a view is forgotten.
        for (pid, since, busy, why) in [
            (8, 5, false, "not long enough"),
            (9, 99, true, "the server keeps it waiting"),
            (1, 99, false, "this daemon itself"),
        ] {
            for _ in 0..9 {
                let dead = fleet.observe(&last_active(pid, "noon", since, busy), 1);
                assert_eq!(dead, [], "{why}");
            }
        }
    }
}
