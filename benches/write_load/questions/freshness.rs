//! How fresh are vectors? From the commit of a text to the commit of its vector, under loads from one row a second up
//! to more than can be embedded.
//!
//! Both times are the server's (`track_commit_timestamp`), so nothing has to poll in the meantime.

use std::time::{Duration, Instant};

use lantern::embedding::{Engine, Model, TextRole};
use lantern::postgres::Session;
use serde::Serialize;
use testkit::engine;
use testkit::paths::runtime;

use crate::capture::{Capture, Inference, Way};
use crate::texts::Texts;
use testkit::statistics::{median, quantile};

/// How much to run.
pub struct Plan {
    /// Rows a second.
    pub loads: Vec<u32>,
    /// Of one load.
    pub seconds: u32,
    /// Rows at one row a second, each next to its text embedded alone.
    pub lone: u32,
}

/// One load on one way.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    pub way: Way,
    /// Rows a second that were committed.
    pub offered: f64,
    /// Rows a second that got their vectors, from the first commit to the last vector.
    pub kept: f64,
    /// Milliseconds from commit to commit.
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub longest: f64,
}

/// At one row a second, and how long the model alone takes for the same texts.
#[derive(Clone, Debug, Serialize)]
pub struct Lone {
    pub way: Way,
    pub p50: f64,
    pub p95: f64,
    /// Medians of the model alone, and of the differences.
    pub model: f64,
    pub beyond: f64,
}

#[derive(Serialize)]
pub struct Freshness {
    pub lone: Vec<Lone>,
    pub points: Vec<Point>,
}

/// Until the last row of a load has its vector.
const TIMEOUT: Duration = Duration::from_secs(300);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub async fn measure(plan: &Plan, texts: &Texts) -> Freshness {
    let captures = Capture::all_embedding(Inference::Unyielding, texts).await;
    let alone = Alone::load().await;
    let mut next = 0;
    let mut lone = Vec::new();
    for capture in &captures {
        lone.push(one_a_second(capture, &alone, texts, plan.lone, &mut next).await);
    }
    let mut points = Vec::new();
    for &load in &plan.loads {
        for capture in &captures {
            points.push(under(capture, texts, load, plan.seconds, &mut next).await);
        }
    }
    Freshness { lone, points }
}

/// The model without anything around it.
struct Alone {
    engine: Engine,
    model: Model,
}

impl Alone {
    async fn load() -> Alone {
        let loaded = engine::load(&runtime()).await;
        let (engine, model) = loaded.expect("run `make setup` first");
        Alone { engine, model }
    }

    /// In milliseconds.
    async fn embed(&self, text: String) -> f64 {
        let begin = Instant::now();
        let embedded = self
            .engine
            .embed(&self.model, TextRole::Document, vec![text]);
        embedded.await.expect("a vector");
        begin.elapsed().as_secs_f64() * 1e3
    }
}

/// In the pauses the same text is embedded alone, so that both find the processors as they are.
async fn one_a_second(
    capture: &Capture,
    alone: &Alone,
    texts: &Texts,
    count: u32,
    next: &mut usize,
) -> Lone {
    let from = *next;
    let mut model = Vec::new();
    for _ in 0..count {
        insert(&capture.server.session, *next, texts).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        model.push(alone.embed(texts.text(*next)).await);
        tokio::time::sleep(Duration::from_millis(500)).await;
        *next += 1;
    }
    capture.wait_for_vectors(POLL_INTERVAL, TIMEOUT).await;
    let took = times(capture, from).await;
    let beyond = took.iter().zip(&model).map(|(took, model)| took - model);
    let beyond = median(beyond);
    Lone {
        way: capture.way,
        p95: quantile(took.iter().copied(), 0.95),
        p50: median(took),
        model: median(model),
        beyond,
    }
}

/// Commits rows at their times, whether or not the ones before have their vectors.
async fn under(
    capture: &Capture,
    texts: &Texts,
    load: u32,
    seconds: u32,
    next: &mut usize,
) -> Point {
    let from = *next;
    let begin = Instant::now();
    let pace = Duration::from_secs(1) / load;
    for number in 0..load * seconds {
        tokio::time::sleep_until((begin + pace * number).into()).await;
        insert(&capture.server.session, *next, texts).await;
        *next += 1;
    }
    let offered = f64::from(load * seconds) / begin.elapsed().as_secs_f64();
    capture.wait_for_vectors(POLL_INTERVAL, TIMEOUT).await;
    point(capture, from, offered).await
}

/// What the rows from a number on came to.
pub async fn point(capture: &Capture, from: usize, offered: f64) -> Point {
    let kept = "SELECT (count(*) / EXTRACT(EPOCH FROM max(pg_xact_commit_timestamp(xmin)) - min(pg_xact_commit_timestamp(born))))::float8 \
                FROM public.notes WHERE id >= ";
    let kept = capture.server.value(&format!("{kept}{from}")).await;
    let took = times(capture, from).await;
    let share = |share| quantile(took.iter().copied(), share);
    Point {
        way: capture.way,
        offered,
        kept,
        p50: share(0.5),
        p95: share(0.95),
        p99: share(0.99),
        longest: share(1.0),
    }
}

pub async fn insert(session: &Session, number: usize, texts: &Texts) {
    let insert = "INSERT INTO public.notes (id, body) VALUES ($1, $2)";
    let (id, text) = (number as i64, texts.text(number));
    let inserted = session.execute(insert, &[&id, &text]).await;
    inserted.expect("inserted");
}

/// Milliseconds from the text's commit to the vector's, in the order of the rows.
async fn times(capture: &Capture, from: usize) -> Vec<f64> {
    let query = "SELECT COALESCE(array_agg(EXTRACT(EPOCH FROM pg_xact_commit_timestamp(xmin) - pg_xact_commit_timestamp(born))::float8 \
                 * 1000 ORDER BY id), '{}') FROM public.notes WHERE id >= ";
    capture.server.value(&format!("{query}{from}")).await
}
