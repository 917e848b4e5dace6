//! A template that cannot work is refused with a remedy, which is then run. `check` says the same.

use testkit::Scene;
use testkit::jobs::{Job, insert_job};
use testkit::scene::TIDES;

use super::{COMPOSED, NOTES, TITLE_AND_BODY, caught_up, job, templated, templated_with};
use crate::rights::{role, run_script};
use crate::support::{assert_check_says, scene_with};

/// The reason why the job fails; `check` says the same.
async fn refused(scene: &mut Scene) -> String {
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    assert_check_says(&scene.database.uri(), 1, &reason, &[]).await;
    reason
}

/// Gives the job a template that works, and has it start again.
async fn is_corrected(scene: &Scene) {
    scene
        .execute(
            "INSERT INTO notes (id, title, body) VALUES (1, 'Title', $1)",
            &[&TIDES],
        )
        .await;
    scene
        .sql(r#"UPDATE jobs SET runtime_params = '{"template": "{title}\n{body}"}', init_failed_at = NULL"#)
        .await;
    scene.wait_for_backfill().await;
    caught_up(scene, COMPOSED).await;
}

#[tokio::test]
async fn a_column_that_is_not_there_or_cannot_be_meant_is_named() {
    for (template, said) in [
        (
            "{titel}\n{body}",
            "the table \"public\".\"notes\" has no column \"titel\", which the template names; correct template in \
             runtime_params: the table has id, title, body, views, embedding; did you mean \"title\"?",
        ),
        ("{Title}\n{body}", "did you mean \"title\"?"),
        ("{xmin}\n{body}", "\"xmin\", a system column"),
        (
            "{embedding}\n{body}",
            "\"embedding\" (dst_column), which the job writes itself; remove it",
        ),
        (
            "{mark}\n{body}",
            "\"mark\" (fingerprint_column), which the job writes itself; remove it",
        ),
        ("{title}", "lacks {chunk}"),
        ("{title\n{body", "a brace that is not closed"),
    ] {
        let options = [("fingerprint_column", "'mark'")];
        let mut scene = templated_with(NOTES, template, &options).await;
        let reason = refused(&mut scene).await;
        assert!(reason.contains(said), "{template}: {reason}");
        is_corrected(&scene).await;
    }
}

#[tokio::test]
async fn a_role_that_may_not_read_a_field_is_told_the_grant() {
    let tables = NOTES.replace("title text,", "title text, \"Sub title\" text,");
    let scene = scene_with(&tables).await;
    let role = role(&scene, "reader", "REPLICATION").await;
    let kind = scene.database.adapted("vector(384)");
    let mut variables = vec![
        ("schema", "public"),
        ("table", "notes"),
        ("key", "id"),
        ("source", "body"),
        ("destination", "embedding"),
        ("type", kind.as_str()),
        ("role", role.name.as_str()),
    ];
    run_script(&scene, "sql/prepare_publication.sql", &variables).await;
    let mut scene = scene;
    job(&scene, "{title} {Sub title} {id}\n{body}", &[]).await;
    scene
        .execute("UPDATE jobs SET db_connection = $1", &[&role.uri])
        .await;
    let reason = refused(&mut scene).await;
    let grant = reason.split_once("run as its owner: ").expect(&reason).1;
    assert!(
        grant.starts_with("GRANT SELECT (\"title\", \"Sub title\") ON"),
        "{reason}"
    );
    scene.sql(grant).await;
    scene.sql("UPDATE jobs SET init_failed_at = NULL").await;
    let reason = scene.wait_for_failure().await;
    if scene.database.version() >= 15 {
        // The publication that was prepared for the source alone does not carry them.
        assert!(
            reason.contains("may not publish") && reason.contains("-v fields="),
            "{reason}"
        );
        variables.push(("fields", "\"title\", \"Sub title\", id"));
        run_script(&scene, "sql/prepare_publication.sql", &variables).await;
        scene.sql("UPDATE jobs SET init_failed_at = NULL").await;
    }
    scene.wait_for_backfill().await;
    scene
        .sql("INSERT INTO notes (id, title, \"Sub title\", body) VALUES (1, 'a', 'b', 'c')")
        .await;
    let composed = "title || ' ' || \"Sub title\" || ' ' || id || E'\\n' || body";
    caught_up(&scene, composed).await;
    scene.sql("UPDATE notes SET \"Sub title\" = 'd'").await;
    caught_up(&scene, composed).await;
    // Once more for a job without fields: what is published stays.
    variables.pop();
    run_script(&scene, "sql/prepare_publication.sql", &variables).await;
    scene.sql("UPDATE notes SET title = 'e'").await;
    caught_up(&scene, composed).await;
    assert_eq!(scene.failures().await, "");
}

/// A key about passages without a table for them, and a model's key that is wrong, beside a template that is right.
#[tokio::test]
async fn other_keys_beside_a_template_are_refused_by_themselves() {
    for (params, said) in [
        (
            r#"{"template": "{chunk}", "chunk_tokens": 99}"#,
            "chunk_tokens is about passages",
        ),
        (r#"{"template": "{chunk}", "pooling": "best"}"#, "pooling"),
        (r#"{"template": 7}"#, "template"),
    ] {
        let mut scene = templated(NOTES, TITLE_AND_BODY).await;
        let set = format!("UPDATE jobs SET runtime_params = '{params}'");
        scene.sql(&set).await;
        let reason = refused(&mut scene).await;
        assert!(reason.contains(said), "{params}: {reason}");
        is_corrected(&scene).await;
    }
}

/// Two jobs that differ in their templates alone would write one column.
#[tokio::test]
async fn a_second_template_for_the_same_column_is_refused() {
    let mut scene = templated(NOTES, TITLE_AND_BODY).await;
    scene.start_daemon().await;
    let params = r#"'{"template": "{views} {body}"}'"#;
    let other = Job {
        options: &[("runtime_params", params)],
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    let other = insert_job(&scene.client, other).await;
    let reason = testkit::jobs::wait_for_failure(&scene.client, other).await;
    assert!(reason.contains("\"embedding\""), "{reason}");
}
