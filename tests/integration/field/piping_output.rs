//! What people pipe the output of commands into, and texts into `embed`.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use testkit::scene::{CAVES, MOON, TIDES};
use testkit::{Scene, paths};

use crate::support::{notes_scene, program};

/// A scene with vectors, and no daemon.
async fn embedded_notes() -> (Scene, String) {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    let uri = scene.database.uri();
    (scene, uri)
}

/// Commands that print something.
fn printing_commands(uri: &str) -> Vec<(&'static str, Vec<String>)> {
    let of_job = |more: &[&str]| {
        let common = ["--uri", uri, "--job", "1"];
        common.iter().chain(more).map(ToString::to_string).collect()
    };
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    vec![
        ("search", of_job(&["the moon"])),
        ("search", of_job(&["--format", "json", "the moon"])),
        ("verify", of_job(&[])),
        ("verify", of_job(&["--format", "json"])),
        ("resync", of_job(&["--all"])),
        ("retry-failed", of_job(&[])),
        ("show-models", Vec::new()),
        ("embed", words(&["hello"])),
        ("sql", words(&["jobs"])),
        ("sql", Vec::new()),
        ("help", Vec::new()),
        ("search", words(&["--help"])),
        ("--version", Vec::new()),
    ]
}

fn command(subcommand: &str, arguments: &[String]) -> Command {
    let mut command = program().command(subcommand);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// As `… | true`: the reader is gone before the command prints. The command ends as others do, by SIGPIPE.
#[tokio::test]
async fn commands_end_quietly_at_a_closed_pipe() {
    let (_scene, uri) = embedded_notes().await;
    for (subcommand, arguments) in printing_commands(&uri) {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut command = command(subcommand, &arguments);
        let child = command.stdout(writer).spawn().expect("it starts");
        let output = child.wait_with_output().expect("it is our child");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said, "", "{subcommand}");
        assert_eq!(
            output.status.signal(),
            Some(Signal::SIGPIPE as i32),
            "{subcommand} {arguments:?}: {}",
            output.status
        );
    }
}

#[tokio::test]
async fn commands_say_in_a_sentence_that_the_disk_is_full() {
    let (_scene, uri) = embedded_notes().await;
    for (subcommand, arguments) in printing_commands(&uri) {
        let full = OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("a full disk");
        let mut command = command(subcommand, &arguments);
        let child = command.stdout(full).spawn().expect("it starts");
        let output = child.wait_with_output().expect("it is our child");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{subcommand}: {said}");
        assert_eq!(
            said, "error: cannot write to standard output: No space left on device (os error 28)\n",
            "{subcommand}"
        );
    }
}

/// As `2>&1 | true`, and `2>/dev/full`.
#[test]
fn commands_fail_in_order_when_their_errors_cannot_be_written() {
    for is_full in [true, false] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let full = OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("a full disk");
        let stderr: Stdio = if is_full { full.into() } else { writer.into() };
        let mut command = program().command("embed");
        let status = command.arg("").stderr(stderr).status().expect("it starts");
        assert_eq!(status.code(), Some(1), "{status}");
    }
}

fn embed(arguments: &[&str]) -> Child {
    let mut command = program().command("embed");
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("it starts")
}

/// What `embed` prints for this input, and what it says beside.
fn embed_input(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = embed(arguments);
    let mut stdin = child.stdin.take().expect("it is a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it is our child");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn a_dash_is_standard_input_as_one_text() {
    let expected = program().stdout_of(&["embed", "one\ntwo"]).await;
    assert_eq!(
        embed_input(&["-"], "one\ntwo\n"),
        (Some(0), expected, String::new())
    );
    let (status, _, said) = embed_input(&["-"], "");
    assert!(
        status == Some(1) && said.contains("an empty text"),
        "{said}"
    );
    let (status, _, said) = embed_input(&["-", "-"], "x");
    assert!(status == Some(1) && said.contains("only once"), "{said}");
}

#[tokio::test]
async fn each_line_of_standard_input_is_a_text_and_is_answered_by_a_line() {
    let expected = program().stdout_of(&["embed", "one", "two words"]).await;
    let lines: Vec<&str> = expected.lines().collect();
    let answers = format!("{}\n\n{}\n", lines[0], lines[1]);
    for arguments in [&["--stdin"][..], &[]] {
        let answer = embed_input(arguments, "one\n\ntwo words");
        assert_eq!(
            answer,
            (Some(0), answers.clone(), String::new()),
            "{arguments:?}"
        );
    }
    let (_, json, _) = embed_input(&["--stdin", "--format", "json"], "\n");
    assert_eq!(json, "null\n");
    assert_eq!(embed_input(&["--stdin"], "").0, Some(0));
    let (status, _, said) = embed_input(&[], "");
    assert!(status == Some(1) && said.contains("--stdin"), "{said}");
}

/// A program beside it writes a line, waits for the answer, and writes the next.
#[tokio::test]
async fn a_line_is_answered_before_the_next_one_is_written() {
    let mut child = embed(&["--stdin", "--query"]);
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let mut answers = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
    for question in ["how do tides work?", "what is the moon?"] {
        writeln!(stdin, "{question}").expect("it reads");
        let answer = answers.next().expect("an answer").expect("text");
        let alone = program().stdout_of(&["embed", "--query", question]).await;
        assert_eq!(answer, alone.trim_end());
    }
    drop(stdin);
    assert!(child.wait().expect("it is our child").success());
}

#[tokio::test]
async fn embed_without_a_text_on_a_terminal_says_what_to_do() {
    let mut command = Command::new("script");
    let embed = format!("{} embed", env!("CARGO_BIN_EXE_lantern-cli"));
    let output = command
        .args(["-qec", &embed, "/dev/null"])
        .output()
        .expect("script");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("there is no text: give texts as arguments"),
        "{said}"
    );
}

#[tokio::test]
async fn a_text_beyond_the_window_is_named_beside_its_vector() {
    let long = "moon ".repeat(1000);
    let output = program().run(&["embed", &long, "short"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("warning: 1 of 2 texts are longer than the 256 tokens"),
        "{said}"
    );
}

#[tokio::test]
async fn the_scripts_are_in_the_program() {
    for (name, file) in [
        ("jobs", "sql/jobs.sql"),
        ("prepare_publication", "sql/prepare_publication.sql"),
        ("prepare", "sql/prepare_publication.sql"),
        ("teardown", "sql/teardown.sql"),
    ] {
        assert_eq!(
            program().stdout_of(&["sql", name]).await,
            paths::read(file),
            "{name}"
        );
    }
    let listed = program().stdout_of(&["sql"]).await;
    for name in ["jobs", "prepare_publication", "teardown"] {
        assert!(
            listed.lines().any(|line| line.starts_with(name)),
            "{listed}"
        );
    }
}
