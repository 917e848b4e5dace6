//! Every way to prove a password, and channel binding.

use super::secure_server::{PASSWORD, PASSWORD_IN_URL, SecureServer};
use crate::support::observe::failure;

#[tokio::test]
async fn every_password_method_works_with_the_password_of_the_url() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let scene = secure.scene().await;
    let mut jobs = Vec::new();
    for role in ["scram", "hashed", "clear"] {
        for mode in ["disable", "require"] {
            let table = format!("{role}_{mode}");
            let user = format!("{role}:{PASSWORD_IN_URL}");
            let uri = scene.uri(&user, "localhost", &format!("sslmode={mode}"));
            jobs.push((scene.job(&table, &uri).await, table));
        }
    }
    let wrong = scene
        .uri("scram:wrong", "localhost", "")
        .replace("wrong@", "un1que@");
    let wrong = scene.job("wrong", &wrong).await;
    let none = scene
        .job("none", &scene.uri("scram", "localhost", ""))
        .await;
    let daemon = scene.daemon();
    for (job, table) in jobs {
        scene.streams(job, &table).await;
    }
    let reason = failure(&scene.client, wrong).await;
    assert!(
        reason.contains("password authentication failed for user \"scram\""),
        "{reason}"
    );
    let reason = failure(&scene.client, none).await;
    assert!(reason.contains("password missing"), "{reason}");
    assert!(reason.contains("PGPASSFILE"), "{reason}");
    let log = daemon.log();
    for secret in [PASSWORD, PASSWORD_IN_URL, "un1que"] {
        assert!(!log.contains(secret) && !reason.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn channel_binding_is_used_where_it_is_required_and_refused_where_it_cannot_be() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let scene = secure.scene().await;
    let uri = |role: &str, options: &str| {
        let user = format!("{role}:{PASSWORD_IN_URL}");
        scene.uri(
            &user,
            "localhost",
            &format!("channel_binding=require&{options}"),
        )
    };
    let bound = scene.job("bound", &uri("scram", "sslmode=require")).await;
    let mut refused = Vec::new();
    for (table, role, options) in [
        ("in_the_clear", "scram", "sslmode=disable"),
        ("hashed", "hashed", "sslmode=require"),
        ("clear", "clear", "sslmode=require"),
        ("unasked", "anybody", "sslmode=require"),
    ] {
        refused.push(scene.job(table, &uri(role, options)).await);
    }
    let _daemon = scene.daemon();
    scene.streams(bound, "bound").await;
    for job in refused {
        let reason = failure(&scene.client, job).await;
        assert!(reason.contains("channel binding"), "{reason}");
    }
}
