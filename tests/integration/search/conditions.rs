//! `search --where`: the caller's own SQL, and nothing beyond one condition.

use crate::search::{found, ids, search, searchable_notes};

#[tokio::test]
async fn a_condition_is_sql_over_the_columns() {
    let Some(scene) = searchable_notes().await else {
        return;
    };
    scene
        .sql(
            "CREATE FUNCTION is_odd(n int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT n % 2 = 1'; \
             ALTER TABLE notes ADD COLUMN \"Lang \"\"x\" text DEFAULT 'it''s; -- (en'",
        )
        .await;
    for (condition, expected) in [
        ("views > 4", vec!["5", "6"]),
        ("views = 1 OR views = 2", vec!["1", "2"]),
        ("notes.views = 3", vec!["3"]),
        ("views = 3 -- a comment", vec!["3"]),
        ("views = 3 /* ) */", vec!["3"]),
        ("(views = 3) AND (id IN (SELECT 3))", vec!["3"]),
        ("\"Lang \"\"x\" = 'it''s; -- (en' AND views = 3", vec!["3"]),
        ("body = $$a$$ OR views = 3", vec!["3"]),
        ("body = 'for $1' OR views = 3", vec!["3"]),
        ("is_odd(views) AND views < 4", vec!["1", "3"]),
        ("embedding IS NULL", vec![]),
    ] {
        let mut rows = ids(&scene, &["--where", condition]).await;
        rows.sort();
        assert_eq!(rows, expected, "{condition}");
    }
    let (_, printed, _) = search(&scene, &["--where", "views > 100"]).await;
    assert!(
        printed.contains("for which the condition is true"),
        "{printed}"
    );
}

#[tokio::test]
async fn what_is_not_one_condition_is_refused() {
    let Some(scene) = searchable_notes().await else {
        return;
    };
    for condition in [
        "true) OR (true",
        "views > 1) UNION SELECT 1, 1, 'a', 'b' --",
        "(views > 1",
        "views > 1)",
        "true; DROP TABLE notes",
        "true THEN true WHEN false",
        "views > 1 ORDER BY id",
        "SELECT true",
        "1, 2",
        "views > 1 /*",
        "views > 'a",
        "views > \"a",
        "$$ views",
        "WHERE views > 1",
    ] {
        let (status, printed, said) = search(&scene, &["--where", condition]).await;
        assert_eq!(status, Some(1), "{condition}: {printed}");
        assert!(
            said.contains("--where is not one SQL condition"),
            "{condition}: {said}"
        );
    }
    for (condition, expected) in [
        ("  ", "--where is empty"),
        ("views > $2", "a parameter"),
        (
            "body = $1",
            "has a parameter, such as $1, for which there is no value",
        ),
        ("views = $1::int", "has a parameter"),
        ("$1 IS NULL", "has a parameter"),
        ("body = $0", "has a parameter"),
        ("body = $1 OR views = ANY ($1)", "--where"),
        (
            "ARRAY[] = ARRAY[views]",
            "cannot determine type of empty array",
        ),
        ("views > 1 /* c", "at or near \"/* c\""),
        ("body = 'c", "at or near \"'c\""),
        ("views >", "it ends too early"),
        ("(views > 1", "it ends too early"),
        ("viewz > 1", "it has id, body, views, embedding"),
        ("views", "must be type boolean"),
        ("count(*) > 1", "aggregate functions are not allowed"),
    ] {
        let (status, _, said) = search(&scene, &["--where", condition]).await;
        assert_eq!(status, Some(1), "{condition}: {said}");
        assert!(said.contains(expected), "{condition}: {said}");
        assert!(
            !said.contains("THEN") && !said.contains("convert"),
            "{condition}: {said}"
        );
    }
    assert_eq!(scene.value("SELECT count(*) FROM notes").await, "6");
}

#[tokio::test]
async fn a_condition_cannot_write() {
    let Some(scene) = searchable_notes().await else {
        return;
    };
    scene
        .sql(
            "CREATE FUNCTION grow() RETURNS bool LANGUAGE plpgsql AS \
               'BEGIN UPDATE notes SET views = views + 1; RETURN true; END'; \
             CREATE FUNCTION unlock() RETURNS bool LANGUAGE plpgsql AS \
               'BEGIN PERFORM set_config(''transaction_read_only'', ''off'', true); RETURN grow(); END'; \
             CREATE SEQUENCE counter",
        )
        .await;
    for condition in ["grow()", "unlock()", "nextval('counter') > 0"] {
        let (status, _, said) = search(&scene, &["--where", condition]).await;
        assert_eq!(status, Some(1), "{condition}: {said}");
        assert!(
            said.contains("read-only transaction"),
            "{condition}: {said}"
        );
    }
    let views = "SELECT string_agg(views::text, ' ' ORDER BY id) FROM notes";
    assert_eq!(scene.value(views).await, "1 2 3 4 5 6");
}

#[tokio::test]
async fn objects_in_the_callers_search_path_do_not_change_the_search() {
    let Some(scene) = searchable_notes().await else {
        return;
    };
    let expected = found(&scene, &[]).await;
    // Each would fit better than that of the system, if it were found by its name.
    scene
        .sql(
            "CREATE FUNCTION wrong(float8, float8) RETURNS float8 LANGUAGE sql AS 'SELECT random()'; \
             CREATE OPERATOR - (LEFTARG = float8, RIGHTARG = float8, FUNCTION = wrong); \
             CREATE OPERATOR + (LEFTARG = float8, RIGHTARG = float8, FUNCTION = wrong); \
             CREATE FUNCTION format(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'wrong' $$",
        )
        .await;
    let set = format!(
        "ALTER DATABASE {} SET search_path = public, pg_catalog",
        scene.database.name()
    );
    scene.sql(&set).await;
    assert_eq!(found(&scene, &["--where", "true"]).await, expected);
}
