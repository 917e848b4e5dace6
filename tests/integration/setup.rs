//! `make setup`, on the checkout that these tests run in.

use std::process::Command;

use testkit::paths::checkout;

#[test]
fn a_second_setup_finds_everything_in_place() {
    let output = Command::new(checkout().join("scripts").join("setup.sh"))
        .output()
        .expect("the script starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(said, "setup: everything is in place in .runtime/\n");
}

#[test]
fn setup_names_every_missing_tool() {
    let output = Command::new("/bin/sh")
        .arg(checkout().join("scripts").join("setup.sh"))
        .env("PATH", "")
        .output()
        .expect("the shell starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    for tool in ["cargo", "cc", "make", "python3"] {
        assert!(said.contains(&format!("\n  {tool}: ")), "{tool}: {said}");
    }
}
