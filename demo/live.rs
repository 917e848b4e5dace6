//! Changes that an application makes while the daemon listens, and what each does to the vector.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::articles::Article;
use crate::console::{Console, milliseconds};
use crate::daemon::Daemon;
use crate::database::Database;
use crate::latency::{ModelAlone, Observer, Series};

/// Single INSERTs that the median is taken from.
const INSERTS: usize = 200;
/// What may lie between the model's own time and the visible vector, in milliseconds (median).
const GOAL: f64 = 3.0;

const INSERT: &str = "INSERT INTO articles (title, body) VALUES ($1, $2) RETURNING id";

/// One change of each kind.
pub async fn single_changes(
    console: &Console,
    daemon: &mut Daemon,
    database: &mut Database,
    articles: &[Article],
) -> Result<()> {
    let observer = Observer::open(database).await?;
    let (first, others) = articles
        .split_first()
        .context("no article is left for the live part")?;

    let client = database.client();
    let inserted = client
        .query_one(INSERT, &[&first.title, &first.body])
        .await?;
    let id = inserted.get(0);
    let took = observer.sees_vector(daemon, id).await?;
    console.measured("INSERT of one row", took, "has its vector");

    let ids = insert_together(database, others).await?;
    let took = observer
        .sees(
            daemon,
            "the rows inserted together have vectors",
            &ids,
            Option::is_some,
        )
        .await?;
    console.measured(
        &format!("INSERT of {} rows, one transaction", ids.len()),
        took,
        "all have theirs",
    );

    let client = database.client();
    let old = observer.vector(id).await?;
    client
        .execute(
            "UPDATE articles SET body = body || ' ' || title || '.' WHERE id = $1",
            &[&id],
        )
        .await?;
    let renewed = |vector: &Option<Vec<u8>>| vector.is_some() && *vector != old;
    let took = observer
        .sees(daemon, "the new text has a new vector", &[id], renewed)
        .await?;
    console.measured("UPDATE of the text", took, "new vector");

    let statement = "UPDATE articles SET title = title || ' (revised)' WHERE id = $1
                     RETURNING pg_current_xact_id()::text";
    let ours: String = client.query_one(statement, &[&id]).await?.get(0);
    let took = observer.sees_confirmation(daemon).await?;
    ensure!(
        observer.last_writer(id).await? == ours,
        "the daemon wrote to a row whose text had not changed"
    );
    console.measured(
        "UPDATE of another column",
        took,
        "confirmed; nothing was embedded or written",
    );

    let withdrawn = *ids.last().unwrap_or(&id);
    client
        .execute(
            "UPDATE articles SET body = NULL WHERE id = $1",
            &[&withdrawn],
        )
        .await?;
    let took = observer
        .sees(
            daemon,
            "the vector of a withdrawn text is gone",
            &[withdrawn],
            Option::is_none,
        )
        .await?;
    console.measured("UPDATE of the text to NULL", took, "vector cleared");

    console.note("from the server's answer to COMMIT until a second session, which asks every 0.2 ms, sees it");
    Ok(())
}

/// Returns when the transaction has committed.
async fn insert_together(database: &mut Database, articles: &[Article]) -> Result<Vec<i32>> {
    let transaction = database.client_mut().transaction().await?;
    let mut ids = Vec::new();
    for article in articles {
        ids.push(
            transaction
                .query_one(INSERT, &[&article.title, &article.body])
                .await?
                .get(0),
        );
    }
    transaction.commit().await?;
    Ok(ids)
}

/// A series of single INSERTs into the idle table. Each text goes through the model alone right before, so that a
/// neighbor's load on the machine weighs on both sides of the difference.
pub async fn beyond_the_model(
    console: &Console,
    daemon: &mut Daemon,
    database: &Database,
    model: &ModelAlone,
    texts: impl Iterator<Item = String>,
) -> Result<()> {
    let observer = Observer::open(database).await?;
    let insert = database.client().prepare(INSERT).await?;
    let (mut alone, mut visible, mut beyond) =
        (Series::default(), Series::default(), Series::default());
    let mut ids: Vec<i32> = Vec::new();
    for text in texts.take(INSERTS) {
        let model_time = model.embeds(&text).await?;
        let id: i32 = database
            .client()
            .query_one(&insert, &[&"", &text])
            .await?
            .get(0);
        let committed = Instant::now();
        // Looking before the model can be ready finds nothing, and takes processor time from it.
        std::thread::sleep(model_time * 3 / 4);
        observer.sees_vector(daemon, id).await?;
        let took = milliseconds(committed.elapsed());
        ids.push(id);
        alone.push(milliseconds(model_time));
        visible.push(took);
        beyond.push(took - milliseconds(model_time));
        console.progress(ids.len() as i64, INSERTS as i64);
    }
    console.end_progress();
    // They were copies of other articles, and would come up twice in every search.
    database
        .client()
        .execute("DELETE FROM articles WHERE id = ANY($1)", &[&ids])
        .await?;

    console.row(
        &format!("{} single INSERTs into the idle table", visible.len()),
        ["median", "p95"],
        "",
    );
    let figures =
        |series: &Series| [series.median(), series.p95()].map(|figure| format!("{figure:.1} ms"));
    console.row("COMMIT to visible vector", figures(&visible), "");
    console.row(
        "the model alone, same texts",
        figures(&alone),
        "the engine in this process, no database",
    );
    console.row(
        "beyond the model's own time",
        figures(&beyond),
        &format!("goal: a median of at most {GOAL:.0} ms"),
    );
    Ok(())
}
