//! The data folder: where it is without a home folder, and a warning where others may put code into it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::geteuid;
use tempfile::TempDir;
use testkit::skip;

use crate::support::program;

const WARNING: &str = "libraries and models are code";

/// A user id that no account has.
const STRANGER: u32 = 54_321;

#[test]
fn without_a_home_folder_nothing_of_the_working_directory_is_used() {
    if !geteuid().is_root() {
        return skip::does_not_apply("only root can run a program as a user without an account");
    }
    let place = TempDir::new().expect("a folder");
    let everybody = Permissions::from_mode(0o777);
    fs::set_permissions(place.path(), everybody).expect("it is ours");
    // The build may be where only root can go.
    let build = place.path().join("build");
    fs::copy(env!("CARGO_BIN_EXE_lantern-cli"), &build).expect("a copy");
    for arguments in [
        &["embed", "a text"][..],
        &["show-models"],
        &["start-daemon"],
    ] {
        let mut command = Command::new(&build);
        command
            .args(arguments)
            .env_clear()
            .uid(STRANGER)
            .gid(STRANGER)
            .current_dir(place.path());
        let output = command.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("--data-path") && said.contains("HOME"),
            "{said}"
        );
        assert!(!place.path().join(".lantern-cli").exists());
    }
}

/// A data folder whose parts have these modes.
struct DataPath(TempDir);

impl DataPath {
    fn new() -> DataPath {
        let folder = TempDir::new().expect("a folder");
        for part in ["lib", "models"] {
            fs::create_dir(folder.path().join(part)).expect("a folder");
        }
        fs::write(folder.path().join("lib/libonnxruntime.so"), "").expect("a library");
        let path = DataPath(folder);
        for part in ["", "lib", "models", "lib/libonnxruntime.so"] {
            path.set_mode(part, 0o755);
        }
        path
    }

    fn set_mode(&self, part: &str, mode: u32) {
        let path = self.0.path().join(part);
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
    }

    /// What is said about it; there is no model in it.
    async fn said(&self) -> String {
        let program = program().with_data_path(self.0.path());
        let output = program.run(&["embed", "a text"]).await;
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("UTF-8")
    }
}

#[tokio::test]
async fn a_warning_names_what_others_may_write_to() {
    let said = DataPath::new().said().await;
    assert!(!said.contains(WARNING), "{said}");
    for part in ["", "lib", "models", "lib/libonnxruntime.so"] {
        for mode in [0o777, 0o1777, 0o757] {
            let path = DataPath::new();
            path.set_mode(part, mode);
            let said = path.said().await;
            assert_eq!(said.matches(WARNING).count(), 1, "{part} {mode:o}: {said}");
            let whole = path.0.path().join(part);
            let what = format!("everybody may write to {}", whole.display());
            assert!(said.contains(what.trim_end_matches('/')), "{said}");
        }
    }
}

#[tokio::test]
async fn a_warning_names_other_owners_and_groups() {
    if !geteuid().is_root() {
        return skip::does_not_apply("only root can give a folder away");
    }
    let path = DataPath::new();
    let lib = path.0.path().join("lib");
    chown(&lib, Some(STRANGER), None).expect("we are root");
    let said = path.said().await;
    assert!(
        said.contains(&format!("user {STRANGER} may write to")),
        "{said}"
    );

    chown(&lib, Some(0), Some(STRANGER)).expect("we are root");
    let said = path.said().await;
    assert!(!said.contains(WARNING), "{said}");
    path.set_mode("lib", 0o775);
    let said = path.said().await;
    assert!(
        said.contains(&format!("the group {STRANGER} may write to")),
        "{said}"
    );
    // The group of root alone.
    chown(&lib, Some(0), Some(0)).expect("we are root");
    let said = path.said().await;
    assert!(!said.contains(WARNING), "{said}");
}

/// The daemon says it in its log, once.
#[tokio::test]
async fn the_daemon_warns_once() {
    let path = DataPath::new();
    path.set_mode("", 0o777);
    let program = program().with_data_path(path.0.path());
    let uri = "postgresql://nobody@127.0.0.1:1/nothing";
    let mut daemon = program.start_daemon(&["--uri", uri]);
    daemon.wait(testkit::wait::TIMEOUT).await;
    assert_eq!(daemon.log().matches(WARNING).count(), 1, "{}", daemon.log());
}
