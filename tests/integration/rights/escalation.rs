//! Owners of tables and functions run code as the role that writes vectors.

use testkit::Scene;
use testkit::client::value;
use testkit::jobs::{Job, insert_job, wait_for_backfill, wait_for_failure};
use testkit::scene::{MOON, NOTES, TIDES};
use testkit::wait::TIMEOUT;

use super::{Role, role};
use crate::support::{assert_check_says, program, scene_with};

const REFUSE: &[&str] = &["--refuse-superuser"];

/// A trigger by which the role `owner` makes itself a superuser, if the role that updates may do that.
fn takes_over(owner: &str) -> String {
    format!(
        "CREATE FUNCTION takes_over() RETURNS trigger LANGUAGE plpgsql AS \
           $$ BEGIN EXECUTE 'ALTER ROLE {owner} SUPERUSER'; RETURN NEW; END $$; \
         ALTER FUNCTION takes_over() OWNER TO {owner}; \
         CREATE TRIGGER takes_over BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION takes_over()"
    )
}

async fn is_superuser(scene: &Scene, role: &Role) -> bool {
    let question = format!(
        "SELECT rolsuper FROM pg_roles WHERE rolname = '{}'",
        role.name
    );
    value(&scene.client, &question).await
}

#[tokio::test]
async fn the_owner_of_a_table_who_could_become_a_superuser_is_named_when_the_job_starts() {
    let mut scene = scene_with(NOTES).await;
    let owner = role(&scene, "owner", "").await;
    scene
        .sql(&format!("ALTER TABLE notes OWNER TO {}", owner.name))
        .await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    let warning = format!(
        "{} could become a superuser, by the table public.notes",
        owner.name
    );
    let line = scene.daemon().wait_for_line(&warning, TIMEOUT).await;
    for part in ["WARN", "job=1", "the role postgres", "lantern-cli sql role"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    // It is a warning: the job works.
    scene.wait_for_vectors("notes", "body").await;
    assert_eq!(scene.daemon().log().matches("could become").count(), 1);
}

#[tokio::test]
async fn with_refuse_superuser_such_a_job_fails_before_it_writes_anything() {
    for (arguments, variables) in [
        (REFUSE, &[][..]),
        (&[], &[("LANTERN_REFUSE_SUPERUSER", "true")][..]),
    ] {
        let scene = scene_with(NOTES).await;
        let owner = role(&scene, "owner", "").await;
        scene.write(&[TIDES]).await;
        scene
            .sql(&format!(
                "ALTER TABLE notes OWNER TO {}; {}",
                owner.name,
                takes_over(&owner.name)
            ))
            .await;
        scene.job("notes", "body").await;
        let uri = scene.database.uri();
        let arguments = [&["--uri", &uri], arguments].concat();
        let _daemon = program().start_daemon_with_env(variables, &arguments);
        let reason = scene.wait_for_failure().await;
        for part in [
            &owner.name,
            "become a superuser",
            "--refuse-superuser",
            "write_connection",
        ] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        assert!(!is_superuser(&scene, &owner).await);
        scene.wait_for_cleanup().await;
        assert_eq!(scene.value("SELECT count(embedding) FROM notes").await, "0");
    }
}

/// Tables of the superuser's with something behind each that belongs to the role `other`: the statements, and how that is
/// called in a refusal. Everything that an UPDATE runs is there.
fn with_code_of(other: &str) -> [(&'static str, String, &'static str); 9] {
    let columns = "id int PRIMARY KEY, body text, n int, embedding real[]";
    let function = |name: &str| {
        format!(
            "CREATE FUNCTION {name}(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; \
             ALTER FUNCTION {name}(int) OWNER TO {other};"
        )
    };
    let trigger = format!(
        "CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
         ALTER FUNCTION fires() OWNER TO {other}"
    );
    [
        (
            "by_trigger",
            format!(
                "{trigger}; CREATE TABLE by_trigger ({columns}); \
                 CREATE TRIGGER t AFTER UPDATE ON by_trigger EXECUTE FUNCTION fires()"
            ),
            "the function public.fires() in the trigger t of",
        ),
        (
            "by_condition",
            format!(
                "{} CREATE FUNCTION sound() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
                 CREATE TABLE by_condition ({columns}); \
                 CREATE TRIGGER t BEFORE UPDATE ON by_condition FOR EACH ROW WHEN (f1(NEW.n) = 1) EXECUTE FUNCTION sound()",
                function("f1")
            ),
            "the function public.f1(integer) in the trigger t of",
        ),
        (
            "by_check",
            format!(
                "{} CREATE TABLE by_check ({columns}, CHECK (f2(n) > 0))",
                function("f2")
            ),
            "the function public.f2(integer) in the constraint",
        ),
        (
            "by_generated",
            format!(
                "{} CREATE TABLE by_generated ({columns}, g int GENERATED ALWAYS AS (f3(n)) STORED)",
                function("f3")
            ),
            "the function public.f3(integer) in the default or generated column g",
        ),
        (
            "by_index",
            format!(
                "{} CREATE TABLE by_index ({columns}); CREATE INDEX i ON by_index (f4(n))",
                function("f4")
            ),
            "the function public.f4(integer) in the index public.i",
        ),
        (
            "by_domain",
            format!(
                "CREATE DOMAIN d AS int; ALTER DOMAIN d OWNER TO {other}; CREATE TABLE by_domain ({columns}, m d)"
            ),
            "the domain public.d",
        ),
        (
            "by_domain_check",
            format!(
                "{} CREATE DOMAIN e AS int CHECK (f5(VALUE) > 0); CREATE TABLE by_domain_check ({columns}, m e[])",
                function("f5")
            ),
            "the function public.f5(integer) in the constraint",
        ),
        (
            "by_operator",
            format!(
                "CREATE FUNCTION f6(int, int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true'; \
                 ALTER FUNCTION f6(int, int) OWNER TO {other}; \
                 CREATE OPERATOR ~~~ (LEFTARG = int, RIGHTARG = int, FUNCTION = f6); \
                 CREATE TABLE by_operator ({columns}, CHECK (n ~~~ 1))"
            ),
            "the function public.f6(integer,integer) in the constraint",
        ),
        (
            "by_partition",
            format!(
                "CREATE TABLE by_partition (id int PRIMARY KEY, body text, embedding real[]) PARTITION BY RANGE (id); \
                 CREATE TABLE part PARTITION OF by_partition DEFAULT; ALTER TABLE part OWNER TO {other}"
            ),
            "the table public.part",
        ),
    ]
}

#[tokio::test]
async fn the_owner_of_a_function_behind_a_table_is_found() {
    let mut scene = scene_with("CREATE TABLE plain (id int PRIMARY KEY, body text)").await;
    let other = role(&scene, "other", "").await;
    let mut jobs = Vec::new();
    for (table, create, said) in with_code_of(&other.name) {
        scene.sql(&create).await;
        jobs.push((scene.job(table, "body").await, said));
    }
    let plain = scene.job("plain", "body").await;
    scene.spawn_daemon_with(REFUSE);
    for (job, said) in jobs {
        let reason = wait_for_failure(&scene.client, job).await;
        assert!(
            reason.contains(said) && reason.contains(&other.name),
            "{said}: {reason}"
        );
        assert_check_says(&scene.database.uri(), job, &reason, REFUSE).await;
    }
    wait_for_backfill(&scene.client, plain).await;
}

#[tokio::test]
async fn attributes_and_memberships_of_the_role_count_too() {
    let mut scene = scene_with("SELECT").await;
    let owner = role(&scene, "owner", "CREATEDB").await;
    let cases = [
        ("a", "BYPASSRLS", "", Some("use BYPASSRLS")),
        ("b", "CREATEROLE", "", Some("use CREATEROLE")),
        ("c", "", "pg_read_all_data", Some("use pg_read_all_data")),
        (
            "d",
            "",
            "pg_execute_server_program",
            Some("use pg_execute_server_program"),
        ),
        (
            "e",
            "NOINHERIT",
            "pg_write_server_files",
            Some("use pg_write_server_files"),
        ),
        // The owner may do that himself.
        ("f", "CREATEDB", "", None),
        ("g", "", "pg_monitor", None),
    ];
    let mut jobs = Vec::new();
    for (name, attributes, member_of, said) in cases {
        let role = role(&scene, name, &format!("REPLICATION {attributes}")).await;
        let (table, name, database) = (format!("t_{name}"), &role.name, scene.database.name());
        let join = match member_of {
            "" => String::new(),
            group => format!("GRANT {group} TO {name};"),
        };
        // The daemon's role is a member of the owner, and so may do what the owner of the table may.
        scene
            .sql(&format!(
                "{join} CREATE TABLE {table} (id int PRIMARY KEY, body text, embedding vector(384)); \
                 GRANT {owner} TO {name}; ALTER TABLE {table} OWNER TO {owner}; GRANT CREATE ON DATABASE {database} TO {owner}; \
                 GRANT ALL ON {table} TO {name}; GRANT CREATE ON DATABASE {database} TO {name}",
                owner = owner.name
            ))
            .await;
        // Only an owner may publish: let the role prepare nothing, and take a prepared publication.
        scene
            .sql(&format!(
                "CREATE PUBLICATION lantern_prepared_{table} FOR TABLE {table} WITH (publish = 'insert, update')"
            ))
            .await;
        let job = Job {
            db_connection: role.uri.clone(),
            ..Job::on(&scene.database, "", "body", "embedding")
        };
        let job = Job {
            table: &table,
            ..job
        };
        jobs.push((insert_job(&scene.client, job).await, said));
    }
    scene.spawn_daemon_with(REFUSE);
    for (job, said) in jobs {
        match said {
            Some(said) => {
                let reason = wait_for_failure(&scene.client, job).await;
                assert!(
                    reason.contains(&format!("{} could {said}", owner.name)),
                    "{said}: {reason}"
                );
            }
            None => wait_for_backfill(&scene.client, job).await,
        }
    }
}

/// `resync` and `retry-failed` write too.
#[tokio::test]
async fn commands_that_write_warn_or_refuse_likewise() {
    let mut scene = scene_with(NOTES).await;
    let owner = role(&scene, "owner", "").await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON]).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene
        .sql(&format!(
            "ALTER TABLE notes OWNER TO {}; UPDATE notes SET embedding = NULL; {}",
            owner.name,
            takes_over(&owner.name)
        ))
        .await;
    let uri = scene.database.uri();
    for command in ["resync", "retry-failed"] {
        let arguments = [command, "--uri", &uri, "--job", "1", "--refuse-superuser"];
        let refused = program().run(&arguments).await;
        let errors = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{errors}");
        assert!(errors.contains("could become a superuser"), "{errors}");
    }
    assert!(!is_superuser(&scene, &owner).await);
    let done = program()
        .run(&["resync", "--uri", &uri, "--job", "1"])
        .await;
    let warning = String::from_utf8_lossy(&done.stderr);
    assert!(
        warning.contains("warning: ") && warning.contains("could become a superuser"),
        "{warning}"
    );
}

#[tokio::test]
async fn the_owner_of_the_jobs_table_is_named_too() {
    let mut scene = scene_with(NOTES).await;
    let owner = role(&scene, "owner", "").await;
    scene
        .sql(&format!("ALTER TABLE jobs OWNER TO {}", owner.name))
        .await;
    let daemon = scene.spawn_daemon();
    let warning = format!(
        "{} could become a superuser, by the table public.jobs",
        owner.name
    );
    daemon.wait_for_line(&warning, TIMEOUT).await;
    daemon.wait_for_line("watching", TIMEOUT).await;
    let (status, _) = scene.spawn_daemon_with(REFUSE).wait(TIMEOUT).await;
    assert!(status.success() || status.code() == Some(1));
}
