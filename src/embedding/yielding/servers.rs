//! The processes of PostgreSQL that run no statements of users: they write, clean up and decode what sessions have
//! changed. While the daemon alone writes, they work for it; where users write, their own sessions tell.
//!
//! They have the same parent as the daemon's sessions, and titles that say what they do (`MyBackendType` and
//! `init_ps_display` in PostgreSQL's `src/backend/utils`): `postgres: checkpointer`, and with a `cluster_name`
//! `postgres: name: checkpointer`.

use std::collections::{BTreeSet, HashMap};
use std::fs;

use super::processors::Process;

/// How the titles of these processes begin.
const TITLES: [&str; 7] = [
    "archiver",
    "autovacuum worker",
    "background writer",
    "checkpointer",
    "io worker",
    "walsender",
    "walwriter",
];

/// The servers of this machine that have sessions of this process.
#[derive(Debug, Default)]
pub(super) struct Servers {
    /// The parent of a session, by its process id.
    parents: HashMap<u32, u32>,
    /// Whether a server process has one of the titles, by its process id.
    titled: HashMap<u32, bool>,
}

impl Servers {
    /// The processes that run no statements, of the servers that have these sessions. None, where the system does not tell
    /// which children a process has (`CONFIG_PROC_CHILDREN` of Linux).
    pub(super) fn helpers(&mut self, sessions: &[u32]) -> Vec<u32> {
        self.parents.retain(|pid, _| sessions.contains(pid));
        for pid in sessions {
            if !self.parents.contains_key(pid)
                && let Some(session) = Process::read(*pid)
            {
                self.parents.insert(*pid, session.parent);
            }
        }
        let postmasters: BTreeSet<u32> = self.parents.values().copied().collect();
        let children: Vec<u32> = postmasters.into_iter().flat_map(children).collect();
        self.titled.retain(|pid, _| children.contains(pid));
        for pid in &children {
            // A process that has just started has the title of its parent.
            if !self.titled.contains_key(pid)
                && let Some(title) = title(*pid)
                && let Some(role) = title.strip_prefix("postgres: ")
            {
                self.titled.insert(*pid, runs_no_statements(role));
            }
        }
        let is_titled = |pid: &u32| self.titled.get(pid).is_some_and(|is_titled| *is_titled);
        children.into_iter().filter(is_titled).collect()
    }
}

/// The children of the main thread of a process.
fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

fn title(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&line).into_owned())
}

/// By the title of a process, without its beginning that all have.
fn runs_no_statements(role: &str) -> bool {
    let role = role.rsplit(": ").next().unwrap_or(role);
    TITLES.iter().any(|title| role.starts_with(title))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_from_sessions_by_their_titles() {
        for title in [
            "checkpointer ",
            "17/main: walwriter ",
            "io worker 2",
            "autovacuum worker shop",
            "walsender lantern shop 127.0.0.1(44330) START_REPLICATION",
        ] {
            assert!(runs_no_statements(title), "{title}");
        }
        for title in [
            "shop shop 127.0.0.1(38662) INSERT",
            "17/main: shop shop [local] idle in transaction",
            "parallel worker for PID 7",
        ] {
            assert!(!runs_no_statements(title), "{title}");
        }
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut servers = Servers::default();
        // The parent of this process is no PostgreSQL.
        assert!(servers.helpers(&[std::process::id()]).is_empty());
        assert!(!servers.parents.is_empty());
        assert!(servers.helpers(&[]).is_empty());
        assert!(servers.parents.is_empty() && servers.titled.is_empty());
    }
}
