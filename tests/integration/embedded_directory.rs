//! The directory of the private PostgreSQL, where root works among files of another account.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use lantern::embedded::{EmbeddedError, PrivatePostgres, ServerOptions};
use nix::unistd::{User, geteuid};
use tempfile::TempDir;
use testkit::paths::runtime;
use testkit::psql::psql;
use testkit::{server, skip};

/// Files that root writes or reads there, or did in earlier versions.
const FILES: [&str; 11] = [
    "lock",
    "port",
    "port.new",
    "password",
    "pgpass",
    "pgpass.new",
    "server.log",
    "server.log.1",
    "supervise.sh",
    "supervise.sh.new",
    "data.new",
];

/// A private server's directory, and beside it a file of our own that nobody else may read.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = TempDir::new().expect("a temporary directory");
        // The account of the server has to enter it.
        let open = Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open).expect("it is ours");
        Place { folder }
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    fn victim(&self) -> PathBuf {
        let victim = self.folder.path().join("victim");
        if !victim.exists() {
            fs::write(&victim, "secret\n").expect("it is written");
            fs::set_permissions(&victim, Permissions::from_mode(0o600)).expect("it is ours");
        }
        victim
    }

    fn start(&self) -> Result<PrivatePostgres, EmbeddedError> {
        let options = ServerOptions {
            durable: false,
            ..ServerOptions::new(self.directory())
        };
        PrivatePostgres::start(&server::installation(), options)
    }

    fn start_and_stop(&self) -> Result<(), EmbeddedError> {
        self.start()?.stop()
    }
}

/// Content, permission bits, owner and group.
fn state(path: &Path) -> (String, u32, u32, u32) {
    let metadata = fs::metadata(path).expect("it is there");
    let content = fs::read_to_string(path).expect("it is readable");
    (content, metadata.mode(), metadata.uid(), metadata.gid())
}

/// As the account that owns the directory could, at any moment.
#[test]
fn links_in_the_servers_directory_lead_to_no_other_file() {
    type Plant = fn(&Path, &Path) -> std::io::Result<()>;
    let soft: Plant = |victim, link| symlink(victim, link);
    let hard: Plant = |victim, link| fs::hard_link(victim, link);
    let place = Place::new();
    place
        .start_and_stop()
        .expect("it starts in a new directory");
    let before = state(&place.victim());
    for plant in [soft, hard] {
        for name in FILES {
            let path = place.directory().join(name);
            let kept = fs::read(&path).ok();
            let _ = fs::remove_file(&path);
            plant(&place.victim(), &path).expect("a link");
            let started = place.start_and_stop();
            assert_eq!(state(&place.victim()), before, "through {name}");
            if let Err(error) = started {
                // Not by itself: only a person can tell whose the file is.
                let said = error.to_string();
                assert!(said.contains(name) && said.contains("remove it"), "{said}");
                assert!(!said.contains("secret"), "{said}");
            }
            let _ = fs::remove_file(&path);
            if let Some(content) = kept.filter(|_| ["lock", "password"].contains(&name)) {
                fs::write(&path, content).expect("it is written");
                fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
                let owner = fs::metadata(place.directory().join("data")).expect("it is there");
                if name == "password" {
                    chown(&path, Some(owner.uid()), Some(owner.gid())).expect("we may");
                }
            }
        }
    }
    place
        .start_and_stop()
        .expect("it starts once the links are gone");
}

#[tokio::test]
async fn a_directory_of_an_earlier_version_works_on() {
    let place = Place::new();
    let first = place.start().expect("it starts");
    psql(&first, "postgres", "CREATE TABLE kept (n int)").await;
    first.stop().expect("it stops");
    // Earlier versions had no password file for psql, and left the files of root readable.
    fs::remove_file(place.directory().join("pgpass")).expect("it was written");
    for name in ["lock", "port", "supervise.sh", "server.log"] {
        let path = place.directory().join(name);
        fs::set_permissions(path, Permissions::from_mode(0o644)).expect("it is ours");
    }
    let again = place.start().expect("it starts again");
    psql(&again, "postgres", "SELECT n FROM kept").await;
    let mode = fs::metadata(again.passfile()).expect("it is there").mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    for mode in [0o770, 0o707, 0o1777, 0o720] {
        let place = Place::new();
        place.start_and_stop().expect("it starts");
        let directory = place.directory();
        fs::set_permissions(&directory, Permissions::from_mode(mode)).expect("it is ours");
        let error = place.start_and_stop().expect_err("others may write to it");
        let said = error.to_string();
        let remedy = format!("chmod go-w {}", directory.display());
        assert!(said.contains(&remedy), "{said}");
        fs::set_permissions(&directory, Permissions::from_mode(mode & 0o755)).expect("it is ours");
        place.start_and_stop().expect("it starts after the remedy");
    }
}

#[test]
fn a_directory_of_another_account_is_refused() {
    let Some(nobody) = User::from_name("nobody")
        .expect("accounts")
        .filter(|_| geteuid().is_root())
    else {
        return skip::does_not_apply("only root can give a directory away");
    };
    let server_account = User::from_name("postgres")
        .expect("accounts")
        .expect("the server's");
    let give = |path: &Path, user: &User| {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("we are root");
    };
    let refusal = |place: &Place| {
        let error = place.start_and_stop().expect_err("it is another account's");
        let said = error.to_string();
        assert!(said.contains("chown -R postgres"), "{said}");
        said
    };
    // One that was filled by an earlier version as nobody, an empty one, and a link.
    let place = Place::new();
    place.start_and_stop().expect("it starts");
    give(&place.directory(), &nobody);
    assert!(refusal(&place).contains("belongs to nobody"));
    give(&place.directory(), &server_account);
    place.start_and_stop().expect("it starts after the remedy");

    let place = Place::new();
    fs::create_dir(place.directory()).expect("a directory");
    give(&place.directory(), &nobody);
    refusal(&place);
    // Made by root for the server.
    fs::remove_dir(place.directory()).expect("it is empty");
    fs::create_dir(place.directory()).expect("a directory");
    place.start_and_stop().expect("an empty directory of ours");

    // With files of root in it, it is something else.
    let place = Place::new();
    fs::create_dir(place.directory()).expect("a directory");
    fs::write(place.directory().join("important"), "").expect("it is written");
    refusal(&place);

    let place = Place::new();
    fs::create_dir(place.folder.path().join("elsewhere")).expect("a directory");
    symlink("elsewhere", place.directory()).expect("a link");
    std::os::unix::fs::lchown(place.directory(), Some(nobody.uid.as_raw()), None)
        .expect("we are root");
    refusal(&place);
}

/// Not as `nobody`, whom other programs use as well.
#[test]
fn root_without_the_account_postgres_is_told_to_create_it() {
    let without_postgres = |line: &&str| !line.starts_with("postgres:");
    let accounts = fs::read_to_string("/etc/passwd").expect("accounts");
    let accounts: Vec<&str> = accounts.lines().filter(without_postgres).collect();
    let place = TempDir::new().expect("a folder");
    symlink(runtime().join("postgres"), place.path().join("postgres")).expect("a link");
    let list = place.path().join("passwd");
    fs::write(&list, accounts.join("\n") + "\n").expect("it is written");
    let can_unshare = Command::new("unshare").args(["--mount", "true"]).status();
    if !geteuid().is_root() || !can_unshare.is_ok_and(|status| status.success()) {
        return skip::does_not_apply(
            "only root can hide an account from a program, where namespaces are allowed",
        );
    }
    let script = "mount --bind \"$1\" /etc/passwd && exec \"$2\" start-daemon --data-path \"$3\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&list)
        .arg(env!("CARGO_BIN_EXE_lantern-cli"))
        .arg(place.path())
        .env_remove("LANTERN_URI")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no account postgres") && said.contains("useradd"),
        "{said}"
    );
}
