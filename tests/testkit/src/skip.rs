//! Tests that cannot run here. None is skipped in silence.
//!
//! | | on a developer's machine | with `CI` set |
//! | --- | --- | --- |
//! | something is not installed ([`missing`]) | printed | fails |
//! | the test makes no sense with this server ([`does_not_apply`]) | printed | printed |

use std::io::Write;
use std::thread;

/// Reports that something is not installed that the current test needs; the test returns then.
///
/// # Panics
///
/// Where the environment variable `CI` is set: there, everything has to be installed.
pub fn missing(what: &str, remedy: &str) {
    let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(
        !in_ci,
        "{what}: {remedy} (CI is set, so nothing may be skipped)"
    );
    report(&format!("{what} ({remedy})"));
}

/// Reports that the current test, or a part of it, makes no sense with the server or the machine at hand.
pub fn does_not_apply(why: &str) {
    report(why);
}

/// Past the test harness, which keeps what tests that pass print with `println!` to itself.
fn report(why: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("?");
    // A closed stderr is no reason to fail.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
