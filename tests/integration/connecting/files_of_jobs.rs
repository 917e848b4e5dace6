//! The files that a jobs row may name: certificates and keys below the operator's folder. Of all others its author learns
//! nothing, not even whether they are there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::Mode;
use testkit::jobs::wait_for_failure;
use testkit::{procfs, server};

use super::secure_server::{JobsDatabase, SecureServer};
use crate::support::{program, start_daemon};

/// What the daemon may have more in memory for it.
const ROOM: u64 = 64 << 20;

fn write(path: &Path, mode: u32, content: impl AsRef<[u8]>) {
    fs::write(path, content).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_file_reads_the_same_and_none_is_read_to_its_end() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let signed = secure.authority.client("anybody");
    fs::copy(&signed.certificate, path("good.crt")).expect("a copy");
    fs::copy(&signed.key, path("good.key")).expect("a copy");
    let key = fs::read(&signed.key).expect("a key");
    write(&path("open.key"), 0o644, &key);
    write(
        &path("other.key"),
        0o600,
        fs::read(&secure.authority.client("another").key).expect("a key"),
    );
    write(&path("text"), 0o600, "no certificate");
    write(
        &path("broken"),
        0o600,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    write(&path("empty"), 0o600, "");
    write(&path("large"), 0o600, vec![b'\n'; 2 << 20]);
    nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).expect("a FIFO");
    fs::create_dir(path("inner")).expect("a folder");
    symlink(secure.authority.root(), path("link")).expect("a link");
    symlink("/proc/self/pagemap", path("pagemap")).expect("a link");

    let directory = folder.path().to_str().expect("a path");
    let daemon = start_daemon(&target.database, &["--tls-directory", directory]);
    // Keeps the model in memory.
    let good = target.job("good", &target.database.uri()).await;
    target.wait_for_stream(good, "good").await;
    procfs::reset_peak(daemon.id());
    let before = procfs::resident(daemon.id()).peak;

    let real = secure.authority.root().display().to_string();
    let roots = [
        "missing",
        "text",
        "broken",
        "empty",
        "large",
        "fifo",
        "inner",
        "link",
        "pagemap",
        ".",
        "..",
        "/etc/shadow",
        "/etc/passwd",
        "/nonexistent",
        "/proc/self/pagemap",
        "/dev/zero",
        "/proc/self/environ",
        "good.key",
        &real,
    ];
    let (mut named, mut number) = (Vec::new(), 0);
    let mut job = async |keyword: &'static str, options: String| {
        number += 1;
        let uri = target.uri("anybody", "localhost", &options);
        named.push((keyword, target.job(&format!("docs_{number}"), &uri).await));
    };
    for root in roots {
        job(
            "sslrootcert",
            format!("sslmode=verify-ca&sslrootcert={root}"),
        )
        .await;
    }
    for certificate in ["missing", "text", "fifo", "/proc/self/pagemap", &real] {
        job(
            "sslcert",
            format!("sslmode=require&sslcert={certificate}&sslkey=good.key"),
        )
        .await;
    }
    for key in ["missing", "open.key", "other.key", "good.crt", "/dev/zero"] {
        job(
            "sslkey",
            format!("sslmode=require&sslcert=good.crt&sslkey={key}"),
        )
        .await;
    }
    let mut reasons = BTreeSet::new();
    for (keyword, job) in named {
        let reason = wait_for_failure(&target.client, job).await;
        assert!(
            reason.contains(keyword) && reason.contains("--tls-directory"),
            "{reason}"
        );
        reasons.insert((keyword, reason));
    }
    // One text for each keyword.
    assert_eq!(reasons.len(), 3, "{reasons:#?}");
    let grown = procfs::resident(daemon.id()).peak.saturating_sub(before);
    assert!(grown < ROOM, "{grown} bytes more");
}

#[tokio::test]
async fn a_file_below_the_folder_is_used_also_by_a_relative_path_or_a_link_inside() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let signed = secure.authority.client("certified");
    fs::create_dir(path("keys")).expect("a folder");
    fs::copy(&signed.certificate, path("keys/a.crt")).expect("a copy");
    fs::copy(&signed.key, path("keys/a.key")).expect("a copy");
    fs::copy(secure.authority.root(), path("version_1")).expect("a copy");
    symlink("version_1", path("root.crt")).expect("a link");
    // The operator's own folder may be a link.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let link = elsewhere.path().join("tls");
    symlink(folder.path(), &link).expect("a link");
    let absolute = link.join("keys/a.key").display().to_string();
    let options =
        format!("sslmode=verify-full&sslrootcert=root.crt&sslcert=keys/a.crt&sslkey={absolute}");
    let job = target
        .job("docs", &target.uri("certified", "localhost", &options))
        .await;
    let uri = target.database.uri();
    let folder = link.to_str().expect("a path");
    let _daemon =
        program().start_daemon_with_env(&[("LANTERN_TLS_DIRECTORY", folder)], &["--uri", &uri]);
    target.wait_for_stream(job, "docs").await;
}

#[tokio::test]
async fn without_a_folder_a_job_may_name_no_file_and_a_bad_folder_is_refused_at_the_start() {
    let target = JobsDatabase::create(server::shared()).await;
    let mut reasons = BTreeSet::new();
    let mut jobs = Vec::new();
    for (number, root) in [
        "/etc/passwd",
        "/nonexistent",
        "/proc/self/pagemap",
        "root.crt",
    ]
    .into_iter()
    .enumerate()
    {
        let uri = target.uri(
            "postgres",
            "127.0.0.1",
            &format!("sslmode=verify-ca&sslrootcert={root}"),
        );
        jobs.push(target.job(&format!("docs_{number}"), &uri).await);
    }
    let _daemon = start_daemon(&target.database, &[]);
    for job in jobs {
        reasons.insert(wait_for_failure(&target.client, job).await);
    }
    assert_eq!(reasons.len(), 1, "{reasons:#?}");
    assert!(
        reasons
            .iter()
            .all(|reason| reason.contains("--tls-directory")),
        "{reasons:#?}"
    );
    for folder in ["/nonexistent", "/etc/passwd", ""] {
        let uri = target.database.uri();
        let mut daemon = program().start_daemon(&["--uri", &uri, "--tls-directory", folder]);
        let (status, _) = daemon.wait(testkit::wait::TIMEOUT).await;
        assert_eq!(status.code(), Some(2), "{folder}: {}", daemon.log());
    }
}
