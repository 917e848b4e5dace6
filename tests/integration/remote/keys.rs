//! Whose keys a job may use, where they go, and where they never appear.

use std::fs;

use testkit::StubEngine;
use testkit::stub_engine::Behavior;
use testkit::wait::{TIMEOUT, wait_until};

use super::{at, job, load, notes, wait_for_all_but};
use crate::support::program;

const KEY: &str = "sk-lighthouse-5150";

fn wants_key(stub: &StubEngine, key: &str) {
    stub.set(Behavior {
        key: Some(key.into()),
        ..Behavior::default()
    });
}

#[tokio::test]
async fn a_key_of_the_daemons_needs_its_name_and_its_host_from_the_operator() {
    let stub = StubEngine::start();
    wants_key(&stub, KEY);
    for (arguments, words) in [
        (&[][..], Some("--allow-env HARBOR_KEY")),
        (
            &["--allow-env", "OTHER_KEY"],
            Some("--allow-env HARBOR_KEY"),
        ),
        (
            &["--allow-env", "HARBOR_KEY,EMPTY_KEY"],
            Some("--allow-host 127.0.0.1"),
        ),
        (
            &["--allow-env", "HARBOR_KEY", "--allow-host", "127.0.0.1:1"],
            Some("--allow-host does not allow"),
        ),
        (
            &["--allow-env", "HARBOR_KEY", "--allow-host", "127.0.0.1"],
            None,
        ),
    ] {
        let scene = notes().await;
        load(&scene, 1, 5).await;
        let params = at(&[&stub]) + ", \"api_key_env\": \"HARBOR_KEY\"";
        job(&scene, "openai", "stub", &params).await;
        let uri = scene.database.uri();
        let before = stub.requests();
        // Of the database too, where hosts are listed.
        let variables = [("HARBOR_KEY", KEY)];
        let daemon =
            program().start_daemon_with_env(&variables, &[&["--uri", &uri], arguments].concat());
        match words {
            Some(words) => {
                let reason = scene.wait_for_failure().await;
                assert!(reason.contains(words), "{arguments:?}: {reason}");
                assert_eq!(stub.requests(), before, "nothing was sent");
            }
            None => wait_for_all_but(&scene, &[]).await,
        }
        let log = daemon.log();
        assert!(!log.contains(KEY), "{log}");
    }
}

#[tokio::test]
async fn a_key_in_the_row_works_and_is_shown_nowhere() {
    let stub = StubEngine::start();
    wants_key(&stub, KEY);
    let mut scene = notes().await;
    load(&scene, 1, 5).await;
    let params = at(&[&stub]) + &format!(", \"api_key\": \"{KEY}\"");
    job(&scene, "openai", "stub", &params).await;
    scene.start_daemon().await;
    wait_for_all_but(&scene, &[]).await;
    wants_key(&stub, "another");
    scene.put(6, "a text").await;
    let refused = "SELECT COALESCE(last_error, '') LIKE '%key is refused%' FROM jobs";
    scene.wait_for(refused, "true").await;
    let uri = scene.database.uri();
    let mut shown = scene
        .value("SELECT jsonb_agg(to_jsonb(j) - 'runtime_params') FROM jobs j")
        .await;
    for command in [
        &["status", "--uri", &uri, "1"][..],
        &["status", "--uri", &uri, "--json"],
        &["jobs", "list", "--uri", &uri],
        &["check", "--uri", &uri, "--job", "1"],
        &["verify", "--uri", &uri, "--job", "1"],
        &["search", "--uri", &uri, "--job", "1", "a query"],
    ] {
        shown += &format!("{:?}", program().run(command).await);
    }
    shown += &scene.daemon().log();
    assert!(shown.contains("key is refused"), "{shown}");
    assert!(!shown.contains(KEY), "{shown}");
    let params = format!("{{{}, \"api_key\": \"{KEY}\"}}", at(&[&stub]));
    let arguments = [
        "jobs",
        "add",
        "--uri",
        &uri,
        "--table",
        "notes",
        "--column",
        "body",
        "--dst-column",
        "other",
        "--runtime",
        "openai",
        "--model",
        "stub",
        "--runtime-params",
        &params,
        "--no-check",
    ];
    let added = program().run(&arguments).await;
    let printed = String::from_utf8_lossy(&added.stdout).into_owned();
    assert!(printed.contains(r#""api_key":"***""#), "{added:?}");
    assert!(!format!("{added:?}").contains(KEY), "{added:?}");
    let kept = format!("SELECT runtime_params->>'api_key' = '{KEY}' FROM jobs WHERE id = 2");
    assert_eq!(scene.value(&kept).await, "true");
}

#[tokio::test]
async fn a_job_whose_key_expires_waits_and_goes_on_with_the_new_one() {
    let stub = StubEngine::start();
    wants_key(&stub, "first");
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "first\n").expect("written");
    let mut scene = notes().await;
    load(&scene, 1, 20).await;
    let params = at(&[&stub]) + ", \"api_key_env\": \"HARBOR_KEY\"";
    job(&scene, "openai", "stub", &params).await;
    let variable = format!("HARBOR_KEY={}", file.path().display());
    scene.spawn_daemon_with(&["--allow-env", &variable]);
    wait_for_all_but(&scene, &[]).await;
    scene.wait_until_confirmed().await;

    wants_key(&stub, "second");
    load(&scene, 21, 40).await;
    let waits = "SELECT last_error FROM jobs";
    wait_until("the job waits", TIMEOUT, async || {
        let why = scene.value(waits).await;
        match why.contains("key is refused") && why.contains("127.0.0.1") {
            true => Ok(()),
            false => Err(why),
        }
    })
    .await;
    assert_eq!(scene.failures().await, "");
    fs::write(file.path(), "second\n").expect("written");
    wait_for_all_but(&scene, &[]).await;
    scene
        .wait_for("SELECT last_error IS NULL FROM jobs", "true")
        .await;
}

#[tokio::test]
async fn a_job_that_never_ran_fails_where_its_key_is_refused() {
    let stub = StubEngine::start();
    wants_key(&stub, KEY);
    let mut scene = notes().await;
    let params = at(&[&stub]) + ", \"api_key\": \"wrong\"";
    job(&scene, "openai", "stub", &params).await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    assert!(reason.contains("key is refused"), "{reason}");
}
