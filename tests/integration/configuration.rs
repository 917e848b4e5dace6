//! Options by flag, environment and file, and what is in force.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use nix::unistd::geteuid;
use tempfile::TempDir;
use testkit::{TestDatabase, server, skip};

use crate::support::program;

/// A folder with a configuration file that only its user can read.
struct Configured {
    folder: TempDir,
}

impl Configured {
    fn new(text: &str) -> Configured {
        let folder = TempDir::new().expect("a folder");
        fs::write(folder.path().join("lantern.toml"), text).expect("it is ours");
        let configured = Configured { folder };
        configured.allow(0o600);
        configured
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("lantern.toml")
    }

    fn allow(&self, mode: u32) {
        fs::set_permissions(self.path(), Permissions::from_mode(mode)).expect("it is ours");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program().command(arguments[0]);
        for variable in ["LANTERN_DATA_PATH", "LANTERN_OFFLINE", "LANTERN_YIELD"] {
            command.env_remove(variable);
        }
        command
            .args(&arguments[1..])
            .arg("--config")
            .arg(self.path());
        command
    }

    /// What `--print-config` prints, without the lines that set nothing.
    fn printed(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Vec<String> {
        let mut command = self.command(&[arguments, &["--print-config"]].concat());
        let output = command
            .envs(variables.iter().copied())
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{}", errors(&output));
        let text = String::from_utf8(output.stdout).expect("text");
        let text = text.replace(self.path().to_str().expect("text"), "FILE");
        text.lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The line of a key, with its blanks as one.
fn line<'a>(printed: &'a [String], key: &str) -> Option<String> {
    let words = |line: &'a String| line.split_whitespace().collect::<Vec<_>>().join(" ");
    printed
        .iter()
        .map(words)
        .find(|line| line.starts_with(&format!("{key} =")))
}

#[test]
fn a_flag_comes_before_the_environment_and_that_before_the_file_for_each_option() {
    let file = Configured::new(
        "# all\nmax_jobs = 1\nthreads = 2\nyield_floor = 3\nallow_host = ['a', 'b']\nrefuse_superuser = true\n",
    );
    let printed = file.printed(
        &[
            ("LANTERN_MAX_JOBS", "10"),
            ("LANTERN_THREADS", "20"),
            ("LANTERN_REFUSE_SUPERUSER", "0"),
        ],
        &["start-daemon", "--max-jobs", "100", "--allow-host", "c"],
    );
    for expected in [
        "max_jobs = 100 # flag",
        "threads = 20 # environment LANTERN_THREADS",
        "yield_floor = 3 # FILE:4",
        "allow_host = [\"c\"] # flag",
        "refuse_superuser = false # environment LANTERN_REFUSE_SUPERUSER",
        "jobs_table = \"jobs\" # default",
    ] {
        let key = expected.split(' ').next().expect("a key");
        assert_eq!(
            line(&printed, key).as_deref(),
            Some(expected),
            "{printed:#?}"
        );
    }
    let printed = file.printed(&[], &["serve"]);
    assert_eq!(
        line(&printed, "threads").as_deref(),
        Some("threads = 2 # FILE:3")
    );
    assert_eq!(line(&printed, "max_jobs"), None);
}

#[test]
fn what_is_printed_is_a_file_that_sets_the_same() {
    let values = |printed: Vec<String>| -> Vec<String> {
        let without_origin = |line: String| {
            line.rsplit_once("  # ")
                .map(|(value, _)| value.trim_end().to_owned())
        };
        printed.into_iter().filter_map(without_origin).collect()
    };
    for service in ["start-daemon", "serve"] {
        let first = Configured::new(
            "log_level = 'debug'\ncache_size = \"0\"\ndata_path = '/a \"b\" # c\\d'\noffline = true\n",
        );
        let arguments = match service {
            "serve" => &[
                "serve",
                "--model",
                "a/b",
                "--model",
                "c/d",
                "--runtime-params",
                "{\"pooling\": \"cls\"}",
            ][..],
            _ => &[
                "start-daemon",
                "--label",
                "it's \\ \"quoted\"\té",
                "--uri",
                "host=h user='the owner'",
            ],
        };
        let printed = first.printed(&[("LANTERN_THREADS", "3")], arguments);
        let second = Configured::new(&(printed.join("\n") + "\n"));
        let again = second.printed(&[], &[service]);
        assert!(
            again.iter().all(|line| line.contains("  # FILE:")),
            "{again:#?}"
        );
        assert_eq!(values(again), values(printed));
    }
}

#[test]
fn no_password_is_printed() {
    let secret = "s3cret";
    let file = Configured::new(&format!("uri = 'postgresql://me:{secret}@h/d'\n"));
    let printed = file.printed(&[], &["start-daemon"]);
    let expected = "uri = \"postgresql://me@h:5432/d\" # FILE:1, without its password";
    assert_eq!(line(&printed, "uri").as_deref(), Some(expected));
    for wrong in [
        format!("uri = postgresql://me:{secret}@h/d"),
        format!("uri = 'postgresql://me:{secret}@h/d"),
        format!("uri = ['{secret}']"),
        format!("uri = '{secret}'"),
        format!("uri = 'postgresql://me:{secret}/@h@i/d'"),
    ] {
        let file = Configured::new(&wrong);
        let output = file.command(&["status"]).output().expect("it starts");
        let errors = errors(&output);
        assert!(
            errors.contains("lantern.toml:1") && !errors.contains(secret),
            "{errors}"
        );
        assert!(!output.status.success());
    }
}

#[tokio::test]
async fn a_password_that_every_user_can_read_is_warned_of() {
    let database = TestDatabase::with_vector(server::shared()).await;
    let uri = database.uri();
    let file = Configured::new(&format!("uri = {uri:?}\n"));
    let said = |mode| {
        file.allow(mode);
        let output = file.command(&["create-table"]).output().expect("it starts");
        assert!(output.status.success(), "{}", errors(&output));
        errors(&output)
    };
    let warning = format!(
        "every user of this machine can read the password in {0}; run: chmod o= {0}",
        file.path().display()
    );
    assert!(said(0o644).contains(&warning), "{}", said(0o644));
    assert_eq!(said(0o640), "");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
    if !geteuid().is_root() {
        return skip::does_not_apply("only root can run a program as another user");
    }
    let file = Configured::new("max_jobs = 1\n");
    let open = Permissions::from_mode(0o755);
    fs::set_permissions(file.folder.path(), open).expect("it is ours");
    let build = file.folder.path().join("build");
    fs::copy(env!("CARGO_BIN_EXE_lantern-cli"), &build).expect("a copy");
    let mut command = Command::new(&build);
    command
        .args(["start-daemon", "--config"])
        .arg(file.path())
        .uid(54_321)
        .gid(54_321);
    let output = command.output().expect("it starts");
    let expected = format!(
        "error: the configuration file {} cannot be read: the user 54321 may not read it; give it to that user, or to a \
         group of theirs\n",
        file.path().display()
    );
    assert_eq!((output.status.code(), errors(&output)), (Some(2), expected));
}
