//! The operator's passwords, where a jobs row chooses the server: an impostor must not get them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;
use testkit::jobs::wait_for_failure;
use testkit::{Process, server};

use super::asking_server::{AskingServer, CLEAR, MD5, NOTHING};
use super::secure_server::{JobsDatabase, PASSWORD, PASSWORD_IN_URL, SecureServer};
use crate::support::program;

const SECRET: &str = "S3CRET";

/// A home folder with this passfile.
fn home(passfile: &str) -> TempDir {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join(".pgpass");
    fs::write(&path, passfile).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
    home
}

fn daemon(target: &JobsDatabase, home: &Path, more: &[&str]) -> Process {
    let home = home.to_str().expect("a path");
    let uri = target.database.uri();
    let arguments = [&["--uri", &uri, "--table", "jobs"], more].concat();
    program().start_daemon_with_env(&[("HOME", home)], &arguments)
}

#[tokio::test]
async fn an_entry_for_any_port_is_not_for_jobs() {
    let target = JobsDatabase::create(server::shared()).await;
    let impostor = AskingServer::start(CLEAR).await;
    let home = home(&format!(
        "localhost:*:*:me:{SECRET}\n*:{}:*:me:{SECRET}\n",
        impostor.port
    ));
    let uri = format!(
        "host=localhost port={} user=me dbname=d sslmode=disable",
        impostor.port
    );
    let job = target.job("docs", &uri).await;
    let _daemon = daemon(&target, home.path(), &[]);
    let reason = wait_for_failure(&target.client, job).await;
    assert!(
        reason.contains("password missing") && reason.contains("host and port"),
        "{reason}"
    );
    assert_eq!(impostor.answers(), "");
}

#[tokio::test]
async fn a_lent_password_is_never_told_in_clear_text_or_as_md5_to_a_server_that_proves_nothing() {
    let target = JobsDatabase::create(server::shared()).await;
    let mut impostors = Vec::new();
    let mut passfile = String::new();
    for (number, question) in [CLEAR, MD5].into_iter().enumerate() {
        for mode in ["disable", "allow", "prefer"] {
            let impostor = AskingServer::start(question).await;
            let port = impostor.port;
            passfile.push_str(&format!("localhost:{port}:*:me:{SECRET}\n"));
            let uri = format!("host=localhost port={port} user=me dbname=d sslmode={mode}");
            let job = target.job(&format!("docs_{number}_{mode}"), &uri).await;
            impostors.push((impostor, job));
        }
    }
    let home = home(&passfile);
    let daemon = daemon(&target, home.path(), &[]);
    for (impostor, job) in impostors {
        let reason = wait_for_failure(&target.client, job).await;
        assert!(
            reason.contains("asks for the password") && reason.contains("verify-full"),
            "{reason}"
        );
        assert_eq!(impostor.answers(), "");
    }
    assert!(!daemon.log().contains(SECRET));
}

#[tokio::test]
async fn a_lent_password_is_not_for_a_socket_in_a_folder_of_everybodys() {
    let target = JobsDatabase::create(server::shared()).await;
    let impostor = AskingServer::at_socket("/tmp", CLEAR);
    let port = impostor.port;
    let home = home(&format!(
        "localhost:{port}:*:me:{SECRET}\n/tmp:{port}:*:me:{SECRET}\n"
    ));
    let job = target
        .job("docs", &format!("host=/tmp port={port} user=me dbname=d"))
        .await;
    let _daemon = daemon(&target, home.path(), &["--allow-host", "/tmp"]);
    let reason = wait_for_failure(&target.client, job).await;
    assert!(reason.contains("password missing"), "{reason}");
    assert_eq!(impostor.answers(), "");
    fs::remove_file(format!("/tmp/.s.PGSQL.{port}")).expect("our own socket");
}

/// The passwords of the file `.pgpass` work for jobs where the server proves who it is, or asks for no more than a
/// proof.
#[tokio::test]
async fn a_lent_password_works_by_scram_and_in_any_form_over_verified_tls() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    let home = home(&format!("localhost:{}:*:*:{escaped}\n", secure.port()));
    let verified = format!(
        "sslmode=verify-full&sslrootcert={}",
        secure.authority.root().display()
    );
    let mut jobs = Vec::new();
    for (table, role, options) in [
        ("scram", "scram", "sslmode=disable"),
        ("clear", "clear", verified.as_str()),
        ("hashed", "hashed", &verified),
    ] {
        jobs.push((
            target
                .job(table, &target.uri(role, "localhost", options))
                .await,
            table,
        ));
    }
    let weak = target
        .job("weak", &target.uri("clear", "localhost", "sslmode=require"))
        .await;
    let certificates = secure.authority.root().with_file_name("");
    let certificates = certificates.to_str().expect("a path");
    let _daemon = daemon(&target, home.path(), &["--tls-directory", certificates]);
    for (job, table) in jobs {
        target.wait_for_stream(job, table).await;
    }
    let reason = wait_for_failure(&target.client, weak).await;
    assert!(reason.contains("clear text"), "{reason}");
}

#[tokio::test]
async fn require_auth_decides_what_a_server_may_ask_for() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let good = [
        ("clear", "password"),
        ("hashed", "md5,password"),
        ("scram", "scram-sha-256"),
        ("anybody", "none"),
        ("secured", "!password,!md5"),
    ];
    let bad = [
        ("clear", "scram-sha-256,md5", "clear text"),
        ("clear", "!password", "clear text"),
        ("hashed", "scram-sha-256", "MD5"),
        ("scram", "none", "SCRAM"),
        ("anybody", "scram-sha-256", "without authentication"),
        ("anybody", "!none", "without authentication"),
    ];
    let uri = |role: &str, methods: &str| {
        let user = format!("{role}:{PASSWORD_IN_URL}");
        target.uri(&user, "localhost", &format!("require_auth={methods}"))
    };
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for (role, methods) in good {
        let table = format!("{role}_good");
        accepted.push((target.job(&table, &uri(role, methods)).await, table));
    }
    for (number, (role, methods, said)) in bad.into_iter().enumerate() {
        let table = format!("{role}_{number}");
        refused.push((target.job(&table, &uri(role, methods)).await, said));
    }
    // Without TLS too, where the request comes behind the answer to SSLRequest.
    let impostor = AskingServer::start(NOTHING).await;
    let own = format!(
        "host=localhost port={} user=me password=own require_auth=!none",
        impostor.port
    );
    refused.push((target.job("impostor", &own).await, "without authentication"));
    let _daemon = target.start_daemon();
    for (job, table) in accepted {
        target.wait_for_stream(job, &table).await;
    }
    for (job, said) in refused {
        let reason = wait_for_failure(&target.client, job).await;
        assert!(
            reason.contains(said) && reason.contains("require_auth"),
            "{reason}"
        );
    }
    assert_eq!(impostor.answers(), "");
}
