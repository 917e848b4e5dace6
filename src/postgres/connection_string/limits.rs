//! What a value of a connection string may be, whatever its keyword means.

use super::error::{Parsed, refused};
use super::keyword::Parameters;

/// Keywords whose values no server is sent as they are.
const NOT_SENT: &[&str] = &["password"];

/// The most that numbers of a jobs row may be: a job must not wait for hours for a server that is gone. Beyond that they
/// count as this.
const OF_JOBS: &[(&str, i64)] = &[
    ("connect_timeout", 60),
    ("keepalives_idle", 7200),
    ("keepalives_interval", 600),
    ("keepalives_count", 30),
    // Milliseconds.
    ("tcp_user_timeout", 3_600_000),
];

/// The most servers that a jobs row may name. Each may take `connect_timeout` at each of its addresses.
const SERVERS_OF_JOBS: usize = 32;

/// Refuses control characters. User, database and options are sent to the host before anything shows that it is a
/// PostgreSQL server, and other servers take each line for a command. No name or setting needs them.
pub fn check_characters(parameters: &Parameters) -> Parsed<()> {
    let sent = parameters
        .iter()
        .filter(|(name, _)| !NOT_SENT.contains(name));
    for (name, value) in sent {
        if value.chars().any(char::is_control) {
            return refused(format!(
                "the value of {name} has a control character in it, such as a line break"
            ));
        }
    }
    Ok(())
}

/// Caps the numbers of a jobs row.
pub fn cap_numbers(parameters: &mut Parameters) {
    for (name, limit) in OF_JOBS {
        let number = parameters
            .get(name)
            .map(|value| value.trim().parse::<i64>());
        if let Some(Ok(number)) = number
            && number > *limit
        {
            parameters.replace(name, limit.to_string());
        }
    }
}

/// Counts the servers of a jobs row.
pub fn check_servers(parameters: &Parameters) -> Parsed<()> {
    let hosts = ["host", "hostaddr"].map(|name| {
        let list = parameters.get(name).unwrap_or_default();
        list.split(',').count()
    });
    match hosts.into_iter().max() {
        Some(count) if count > SERVERS_OF_JOBS => refused(format!(
            "it names more than {SERVERS_OF_JOBS} servers, which a job may not"
        )),
        _ => Ok(()),
    }
}
