//! What is left of pgai, and of the bridge, is removed, and nothing of the user's.

use super::SHORT;
use super::pgai::{Pgai, Version};

/// Relations, functions and triggers of pgai and the bridge.
const LEFT: &str = "SELECT concat_ws(' ', \
     (SELECT string_agg(tgname, ' ' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal), \
     (SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE prorettype = 'trigger'::regtype \
        AND pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('ai', 'website'))), \
     (SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind IN ('r', 'v') \
        AND relname LIKE ANY (ARRAY['%vectorizer\\_q%', 'blog\\_embedding%'])))";

/// The source table takes writes of all kinds.
const WRITES: &str = "INSERT INTO website.blog VALUES (9, 'x', NULL, 'y', 0); UPDATE website.blog SET title = 'z'; \
     UPDATE website.blog SET id = 8 WHERE id = 9; DELETE FROM website.blog WHERE id = 8; TRUNCATE website.blog";

async fn moved(version: Version) -> Option<Pgai> {
    let pgai = Pgai::new(version, "$title: $chunk").await?;
    pgai.row(1, "Sea", SHORT, &[SHORT]).await;
    let moved = pgai.migrate("-v run=yes").await;
    moved.unwrap_or_else(|error| panic!("{error}"));
    Some(pgai)
}

async fn dropped(pgai: &Pgai, arguments: &str) -> String {
    let dropped = pgai.script("drop_pgai", arguments).await;
    dropped.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn a_vectorizer_is_dropped_once_its_job_has_finished_and_the_user_says_so() {
    for version in [Version::Extension, Version::Library] {
        let Some(pgai) = moved(version).await else {
            return;
        };
        let before = pgai.text(LEFT).await;
        let refused = pgai
            .script("drop_pgai", "-v run=yes")
            .await
            .expect_err("the job has not finished");
        assert!(
            refused.contains("has finished its initial backfill"),
            "{refused}"
        );
        pgai.sql("UPDATE jobs SET init_finished_at = now()").await;
        let printed = dropped(&pgai, "").await;
        assert_eq!(pgai.text(LEFT).await, before, "{version:?}: it only prints");
        let again = dropped(&pgai, "-v run=yes").await;
        let statements = |printed: &str| {
            let lines = printed.lines().filter(|line| !line.starts_with("--"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(statements(&again), statements(&printed));
        assert!(
            printed.contains("DROP TABLE website.blog_embedding_store;"),
            "{printed}"
        );
        assert_eq!(pgai.text(LEFT).await, "blog_embedding_store", "{version:?}");
        assert_eq!(pgai.text("SELECT count(*) FROM ai.vectorizer").await, "0");
        assert_eq!(
            pgai.text("SELECT count(*) FROM website.blog_chunks").await,
            "1"
        );
        pgai.sql(WRITES).await;
        assert_eq!(
            pgai.text("SELECT count(*) FROM website.blog_embedding_store")
                .await,
            "1"
        );
        assert!(
            dropped(&pgai, "")
                .await
                .contains("nothing is left of this vectorizer")
        );
    }
}

#[tokio::test]
async fn what_pgai_has_left_is_found_without_its_catalog() {
    let Some(pgai) = moved(Version::Library).await else {
        return;
    };
    pgai.sql("DROP TABLE ai.vectorizer CASCADE").await;
    let refused = pgai
        .script("drop_pgai", "")
        .await
        .expect_err("it is unknown whether a job has finished");
    assert!(refused.contains("-v finished=yes"), "{refused}");
    dropped(&pgai, "-v finished=yes -v run=yes").await;
    // Their names are in the catalog alone.
    assert_eq!(pgai.text(LEFT).await, "blog_embedding blog_embedding_store");
    pgai.sql(WRITES).await;
}

#[tokio::test]
async fn a_view_that_is_used_stays() {
    let Some(pgai) = moved(Version::Library).await else {
        return;
    };
    pgai.sql(
        "CREATE VIEW website.mine AS SELECT id, chunk FROM website.blog_embedding; \
         CREATE TRIGGER mine AFTER INSERT ON website.blog EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    )
    .await;
    let printed = dropped(&pgai, "-v finished=yes -v run=yes").await;
    assert!(
        printed.contains("website.blog_embedding stays, because it is used by: view website.mine"),
        "{printed}"
    );
    assert_eq!(
        pgai.text(LEFT).await,
        "mine blog_embedding blog_embedding_store"
    );
    assert_eq!(pgai.text("SELECT count(*) FROM website.mine").await, "1");
}
