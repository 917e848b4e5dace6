//! Managed services, recognized by the settings that only they have, have remedies of their own.

use testkit::client::{execute, wait_for_value};
use testkit::jobs::{Job, articles, insert_job, wait_for_failure};
use testkit::server;

use crate::support::{assert_check_says, check, start_daemon, text, texts};

#[tokio::test]
async fn a_role_gets_the_right_to_replicate_in_the_way_of_its_service() {
    for (setting, remedy) in [
        ("rds.logical_replication", "GRANT rds_replication TO"),
        ("cloudsql.logical_decoding", "cloudsqlsuperuser"),
        ("azure.extensions", "azure_pg_admin"),
    ] {
        let (database, client) = articles(server::shared()).await;
        let role = format!("visitor_{}", database.name());
        execute(
            &client,
            &format!(
                "ALTER DATABASE {name} SET {setting} = 'on'; CREATE ROLE {role} LOGIN PASSWORD 'pw'; \
                 GRANT CREATE ON DATABASE {name} TO {role}; ALTER TABLE articles OWNER TO {role}",
                name = database.name()
            ),
        )
        .await;
        let uri = database.uri();
        let (_, place) = uri.split_once('@').expect("a URI with a password");
        let job = Job {
            db_connection: format!("postgresql://{role}:pw@{place}"),
            ..Job::on(&database, "articles", "title", "vector")
        };
        let job = insert_job(&client, job).await;
        let _daemon = start_daemon(&database, &[]);
        let reason = wait_for_failure(&client, job).await;
        assert!(reason.contains(remedy), "{remedy}: {reason}");
        assert_check_says(&uri, job, &reason, &[]).await;
    }
}

#[tokio::test]
async fn a_wal_level_that_is_too_low_is_raised_in_the_way_of_the_service() {
    let server = server::start_with_room(&server::installation(), &[("wal_level", "replica")]);
    let (database, client) = articles(Box::leak(Box::new(server))).await;
    let uri = database.uri();
    for (role, remedy) in [
        (
            "neon_superuser",
            "enable logical replication in the settings of the project",
        ),
        ("cloudsqlsuperuser", "cloudsql.logical_decoding = on"),
        ("azure_pg_admin", "server parameter wal_level"),
        ("rds_superuser", "rds.logical_replication = 1"),
    ] {
        execute(&client, &format!("CREATE ROLE {role}")).await;
        let checked = check(&[
            "--uri",
            &uri,
            "--db-connection",
            &uri,
            "--table",
            "articles",
            "--column",
            "title",
        ])
        .await;
        let failed = texts(&checked, "failed").concat();
        assert!(failed.contains(remedy), "{remedy}: {failed}");
        execute(&client, &format!("DROP ROLE {role}")).await;
    }
}

#[tokio::test]
async fn a_setting_that_waits_for_a_restart_asks_for_nothing_else() {
    let server = server::start_with_room(&server::installation(), &[("wal_level", "replica")]);
    let (database, client) = articles(Box::leak(Box::new(server))).await;
    let (uri, role) = (database.uri(), format!("owner_{}", database.name()));
    let (_, place) = uri.split_once('@').expect("a URI with a password");
    let weak = format!("postgresql://{role}:pw@{place}");
    execute(
        &client,
        &format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'pw'; ALTER TABLE articles OWNER TO {role}"),
    )
    .await;
    let said = async |target: &str| {
        let subject = ["--uri", &uri, "--db-connection", target];
        let checked =
            check(&[&subject[..], &["--table", "articles", "--column", "title"]].concat()).await;
        text(&checked, "wal_level").to_owned()
    };
    assert!(
        said(&uri)
            .await
            .contains("ALTER SYSTEM SET wal_level = logical")
    );
    execute(&client, "ALTER SYSTEM SET wal_level = logical").await;
    let found = said(&uri).await;
    assert!(
        found.ends_with("needs: a restart of the server, where wal_level = logical is set already"),
        "{found}"
    );
    // Who may not read the files sees it once the server has.
    assert!(said(&weak).await.contains("ALTER SYSTEM"));
    execute(&client, "SELECT pg_reload_conf()").await;
    wait_for_value(
        &client,
        "SELECT pending_restart FROM pg_settings WHERE name = 'wal_level'",
        true,
    )
    .await;
    let found = said(&weak).await;
    assert!(
        found.ends_with("a restart of the server, where another value of wal_level is set already"),
        "{found}"
    );
}
