//! Completions of shells and manual pages, which clap makes.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use testkit::skip;

use crate::support::program;

/// What a program says of a text that it reads from standard input; `None` where it is not installed.
fn judged_by(command: &[&str], text: &[u8]) -> Option<(bool, String)> {
    let (program, arguments) = command.split_first().expect("a program");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take().expect("a pipe").write_all(text).ok();
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some((output.status.success(), said))
}

#[tokio::test]
async fn completions_are_scripts_of_their_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let script = program().stdout_of(&["completions", shell]).await;
        for word in ["max-jobs", "max-retained-wal", "start-daemon"] {
            assert!(script.contains(word), "{shell}");
        }
        match judged_by(&[shell, "-n"], script.as_bytes()) {
            None => skip::does_not_apply(&format!("{shell} is not installed")),
            judged => assert_eq!(judged, Some((true, String::new())), "{shell}"),
        }
    }
}

#[tokio::test]
async fn each_command_has_a_manual_page_without_mistakes() {
    let folder = TempDir::new().expect("a folder");
    let into = folder.path().to_str().expect("text");
    program().stdout_of(&["man", "--into", into]).await;
    let pages: Vec<PathBuf> = fs::read_dir(into)
        .expect("a folder")
        .map(|page| page.expect("a page").path())
        .collect();
    let names = pages
        .iter()
        .map(|page| page.file_name().expect("a name").to_string_lossy());
    let names: Vec<_> = names.collect();
    for name in [
        "lantern-cli.1",
        "lantern-cli-start-daemon.1",
        "lantern-cli-jobs-add.1",
    ] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
    for page in &pages {
        let text = fs::read(page).expect("a page");
        if let Some(judged) = judged_by(&["groff", "-k", "-man", "-ww", "-z", "-Tutf8"], &text) {
            assert_eq!(judged, (true, String::new()), "{}", page.display());
        }
    }
    let daemon =
        fs::read_to_string(folder.path().join("lantern-cli-start-daemon.1")).expect("a page");
    assert!(daemon.contains("LANTERN_MAX_JOBS"), "{daemon}");
    assert_eq!(
        program()
            .stdout_of(&["man"])
            .await
            .lines()
            .nth(2)
            .map(|line| line.starts_with(".TH lantern-cli 1")),
        Some(true)
    );
}
