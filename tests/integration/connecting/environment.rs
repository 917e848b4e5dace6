//! What completes `--uri` when it leaves something out: service files, PG* variables, the passfile.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use testkit::Process;
use testkit::client::{execute, value};

use super::secure_server::{JobsDatabase, PASSWORD, SecureServer};
use crate::support::program;

fn write(path: &Path, mode: u32, text: &str) -> String {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
    path.display().to_string()
}

/// Starts a daemon with these variables and an empty home.
fn daemon(uri: &str, home: &Path, variables: &[(&str, &str)]) -> Process {
    let home = home.to_str().expect("a path");
    let all = [&[("HOME", home)], variables].concat();
    program().start_daemon_with_env(&all, &["--uri", uri, "--table", "jobs"])
}

/// Waits until the daemon, which has found the jobs table, runs the job under this role.
async fn works(target: &JobsDatabase, job: i32, table: &str, role: &str) {
    target.wait_for_stream(job, table).await;
    let roles = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = '{role}'"
    );
    assert!(
        value::<i64>(&target.client, &roles).await > 0,
        "no session of {role}"
    );
}

#[tokio::test]
async fn the_variables_of_libpq_are_enough() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let home = tempfile::tempdir().expect("a folder");
    // A row for the same server, without a password.
    let uri = target.uri("scram", "localhost", "");
    let job = target.job("job", &uri).await;
    let (port, root) = (secure.port().to_string(), secure.authority.root());
    let _daemon = daemon(
        "postgresql://",
        home.path(),
        &[
            ("PGHOST", "localhost"),
            ("PGPORT", &port),
            ("PGUSER", "scram"),
            ("PGPASSWORD", PASSWORD),
            ("PGDATABASE", target.database.name()),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", root.to_str().expect("a path")),
            ("PGAPPNAME", "by variables"),
            ("PGCONNECT_TIMEOUT", "7"),
            ("PGCHANNELBINDING", "require"),
        ],
    );
    works(&target, job, "job", "scram").await;
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'scram' \
                     AND application_name = 'by variables' AND datname = current_database()";
    assert_eq!(
        value::<Option<bool>>(&target.client, encrypted).await,
        Some(true)
    );
}

#[tokio::test]
async fn a_service_file_names_the_server_and_the_string_wins_over_it() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let home = tempfile::tempdir().expect("a folder");
    let job = target.job("job", &target.database.uri()).await;
    let text = format!(
        "# ours\n[elsewhere]\nhost=nowhere.invalid\n\n[here]\nhost=localhost\nport={}\nuser=nobody\npassword={PASSWORD}\n\
         dbname={}\n",
        secure.port(),
        target.database.name()
    );
    let named = write(&home.path().join("services"), 0o600, &text);
    write(&home.path().join(".pg_service.conf"), 0o600, &text);
    for (uri, variables) in [
        ("service=here user=scram", &[] as &[_]),
        ("postgresql://scram@/?service=here", &[("PGUSER", "nobody")]),
        (
            "user=scram",
            &[
                ("PGSERVICE", "here"),
                ("PGSERVICEFILE", &named),
                ("PGPORT", "1"),
            ],
        ),
    ] {
        let mut daemon = daemon(uri, home.path(), variables);
        works(&target, job, "job", "scram").await;
        daemon.terminate().await;
        execute(&target.client, "DELETE FROM job WHERE id = 2").await;
    }
}

#[tokio::test]
async fn a_passfile_has_the_password_unless_others_may_read_it() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let home = tempfile::tempdir().expect("a folder");
    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    let text = format!(
        "# ours\nlocalhost:1:*:scram:wrong\nlocalhost:{}:*:scram:{escaped}\nlocalhost:*:*:scram:wrong\n",
        secure.port()
    );
    let uri = target.uri("scram", "localhost", "");
    // The row has no password either: the file names its host.
    let job = target.job("job", &uri).await;

    let open = write(&home.path().join("passwords"), 0o644, &text);
    let mut refused = daemon(&uri, home.path(), &[("PGPASSFILE", &open)]);
    let patience = std::time::Duration::from_secs(30);
    refused
        .wait_for_line(&format!("chmod 0600 {open}"), patience)
        .await;
    assert!(!refused.wait(patience).await.0.success());

    write(&home.path().join(".pgpass"), 0o600, &text);
    let daemon = daemon(&uri, home.path(), &[]);
    works(&target, job, "job", "scram").await;
    assert!(!daemon.log().contains(PASSWORD));
}
