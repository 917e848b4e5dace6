//! Every password method, and channel binding.

use testkit::jobs::wait_for_failure;

use super::secure_server::{PASSWORD, PASSWORD_IN_URL, SecureServer};
use crate::support::program;

#[tokio::test]
async fn every_password_method_works_with_the_password_of_the_url() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let mut jobs = Vec::new();
    for role in ["scram", "hashed", "clear"] {
        for mode in ["disable", "require"] {
            let table = format!("{role}_{mode}");
            let user = format!("{role}:{PASSWORD_IN_URL}");
            let uri = target.uri(&user, "localhost", &format!("sslmode={mode}"));
            jobs.push((target.job(&table, &uri).await, table));
        }
    }
    let wrong = target
        .uri("scram:wrong", "localhost", "")
        .replace("wrong@", "un1que@");
    let wrong = target.job("wrong", &wrong).await;
    let none = target
        .job("none", &target.uri("scram", "localhost", ""))
        .await;
    let daemon = target.start_daemon();
    for (job, table) in jobs {
        target.wait_for_stream(job, &table).await;
    }
    let reason = wait_for_failure(&target.client, wrong).await;
    assert!(
        reason.contains("password authentication failed for user \"scram\""),
        "{reason}"
    );
    let reason = wait_for_failure(&target.client, none).await;
    assert!(reason.contains("password missing"), "{reason}");
    assert!(reason.contains("PGPASSFILE"), "{reason}");
    let log = daemon.log();
    for secret in [PASSWORD, PASSWORD_IN_URL, "un1que"] {
        assert!(!log.contains(secret) && !reason.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn an_operator_without_a_password_is_told_where_to_put_one() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let uri = target.uri("scram", "localhost", "");
    for command in [
        &["status"][..],
        &["embed-table", "--table", "t", "--src-column", "body"],
    ] {
        let output = program().run(&[command, &["--uri", &uri]].concat()).await;
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            printed.contains("set PGPASSWORD, or add a line"),
            "{printed}"
        );
        assert!(!printed.contains("job"), "{printed}");
    }
}

#[tokio::test]
async fn channel_binding_is_used_where_it_is_required_or_the_job_fails() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let uri = |role: &str, options: &str| {
        let user = format!("{role}:{PASSWORD_IN_URL}");
        target.uri(
            &user,
            "localhost",
            &format!("channel_binding=require&{options}"),
        )
    };
    let bound = target.job("bound", &uri("scram", "sslmode=require")).await;
    let mut refused = Vec::new();
    for (table, role, options) in [
        ("in_the_clear", "scram", "sslmode=disable"),
        ("hashed", "hashed", "sslmode=require"),
        ("clear", "clear", "sslmode=require"),
        ("unasked", "anybody", "sslmode=require"),
    ] {
        refused.push(target.job(table, &uri(role, options)).await);
    }
    let _daemon = target.start_daemon();
    target.wait_for_stream(bound, "bound").await;
    for job in refused {
        let reason = wait_for_failure(&target.client, job).await;
        assert!(reason.contains("channel binding"), "{reason}");
    }
}
