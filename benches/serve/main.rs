//! Requests of one text each, by 1, 8 and 64 clients at a time, in one run and in turns: the engine in this process,
//! `lantern-cli serve`, and, where a Python is named (`make bench-serve`), fastembed and sentence-transformers behind
//! uvicorn.
//!
//! The client runs on the same cores, so what it takes counts against every server, and against the engine of this
//! process not at all.

mod client;
mod servers;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lantern::embedding::yielding::Yielding;
use lantern::embedding::{Engine, EngineOptions, Model, TextRole};
use testkit::paths::runtime;
use testkit::random::Random;
use testkit::statistics::median;
use tokio::runtime::Runtime;

use client::{Client, request};
use servers::Server;

const ROUNDS: usize = 7;
const CLIENTS: [usize; 3] = [1, 8, 64];
/// How long a turn takes.
const TURN: Duration = Duration::from_secs(2);
/// Before each turn: the threads of the others go on spinning for a while after theirs.
const REST: Duration = Duration::from_millis(300);
/// Texts that are asked for one at a time, of the engine and of each server in turns.
const LONE_TEXTS: usize = 200;
/// The largest difference of a value of a vector that counts as rounding.
const TOLERANCE: f32 = 1e-4;
/// Different texts: none is asked for twice at the same time.
const TEXTS: usize = 512;

/// The texts a second of a turn, and the median time of a text in milliseconds.
#[derive(Clone, Copy)]
struct Turn {
    rate: f64,
    millis: f64,
}

fn main() {
    let texts: Arc<Vec<String>> = Arc::new(texts());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (engine, model) = runtime.block_on(load());
    let mut servers = vec![Server::lantern(&support::program())];
    if let Some(python) = python() {
        for name in ["fastembed", "sentence-transformers"] {
            servers.push(Server::uvicorn(&python, name));
        }
    }
    for server in &servers {
        runtime.block_on(check(server, &engine, &model, &texts));
    }
    println!("requests of one text of 8 to 24 words");
    println!("a lone request, medians of {LONE_TEXTS}");
    runtime.block_on(compare_lone(&engine, &model, &servers, &texts));
    println!("medians of {ROUNDS} turns; the ratio is that of the turn of the engine just before");
    for clients in CLIENTS {
        compare(&runtime, &engine, &model, &servers, &texts, clients);
    }
    drop(servers);
    engine.shutdown();
}

/// One text at a time, of the engine and of a server in turns, for one server after the other: the threads of some go
/// on spinning after an answer.
async fn compare_lone(engine: &Engine, model: &Model, servers: &[Server], texts: &[String]) {
    for server in servers {
        let mut client = Client::connect(server.address).await;
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for text in &texts[..LONE_TEXTS] {
            let started = Instant::now();
            let vectors = engine.embed(model, TextRole::Document, vec![text.clone()]);
            vectors.await.expect("a vector");
            own.push(millis(started.elapsed()));
            let request = request(text);
            let started = Instant::now();
            client.ask(&request).await;
            others.push(millis(started.elapsed()));
        }
        let (own, other) = (median(own), median(others));
        println!(
            "  {:<22} {other:8.2} ms   engine {own:8.2} ms   {:+.2} ms",
            server.name,
            other - own
        );
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn compare(
    runtime: &Runtime,
    engine: &Engine,
    model: &Model,
    servers: &[Server],
    texts: &Arc<Vec<String>>,
    clients: usize,
) {
    let mut own = Vec::new();
    let mut others: Vec<Vec<Turn>> = vec![Vec::new(); servers.len()];
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); servers.len()];
    for _ in 0..ROUNDS {
        for (place, server) in servers.iter().enumerate() {
            thread::sleep(REST);
            let engine = runtime.block_on(engine_turn(engine, model, texts, clients));
            let other = runtime.block_on(server_turn(server, texts, clients));
            ratios[place].push(other.rate / engine.rate);
            others[place].push(other);
            own.push(engine);
        }
    }
    let own = middle(&own);
    println!("{clients} clients");
    println!(
        "  {:<22} {:8.1} texts/s {:8.2} ms",
        "engine", own.rate, own.millis
    );
    for ((turns, ratios), server) in others.iter().zip(ratios).zip(servers) {
        let other = middle(turns);
        println!(
            "  {:<22} {:8.1} texts/s {:8.2} ms   {:.2} of the engine",
            server.name,
            other.rate,
            other.millis,
            median(ratios)
        );
    }
}

fn middle(turns: &[Turn]) -> Turn {
    Turn {
        rate: median(turns.iter().map(|turn| turn.rate)),
        millis: median(turns.iter().map(|turn| turn.millis)),
    }
}

/// So many tasks that each wait for the vector of one text after the other.
async fn engine_turn(
    engine: &Engine,
    model: &Model,
    texts: &Arc<Vec<String>>,
    clients: usize,
) -> Turn {
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let tasks = (0..clients).map(|_| {
        let (engine, model, texts, next) =
            (engine.clone(), model.clone(), texts.clone(), next.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            while begin.elapsed() < TURN {
                let text = texts[next.fetch_add(1, Ordering::Relaxed) % texts.len()].clone();
                let started = Instant::now();
                let vectors = engine.embed(&model, TextRole::Document, vec![text]).await;
                assert_eq!(vectors.expect("a vector").len(), 1);
                times.push(started.elapsed());
            }
            times
        })
    });
    let tasks: Vec<_> = tasks.collect();
    collect(tasks, begin).await
}

/// So many clients that each wait for one answer after the other.
async fn server_turn(server: &Server, texts: &Arc<Vec<String>>, clients: usize) -> Turn {
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Client::connect(server.address).await);
    }
    let begin = Instant::now();
    let tasks = connections.into_iter().map(|mut client| {
        let (texts, next) = (texts.clone(), next.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            while begin.elapsed() < TURN {
                let request = request(&texts[next.fetch_add(1, Ordering::Relaxed) % texts.len()]);
                let started = Instant::now();
                client.ask(&request).await;
                times.push(started.elapsed());
            }
            times
        })
    });
    let tasks: Vec<_> = tasks.collect();
    collect(tasks, begin).await
}

async fn collect(tasks: Vec<tokio::task::JoinHandle<Vec<Duration>>>, begin: Instant) -> Turn {
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a client"));
    }
    let seconds = begin.elapsed().as_secs_f64();
    Turn {
        rate: times.len() as f64 / seconds,
        millis: median(times.into_iter().map(millis)),
    }
}

/// Compares vectors, so that none is fast by computing something else.
async fn check(server: &Server, engine: &Engine, model: &Model, texts: &[String]) {
    let mut client = Client::connect(server.address).await;
    for text in &texts[..4] {
        client.ask(&request(text)).await;
        let expected = engine
            .embed(model, TextRole::Document, vec![text.clone()])
            .await;
        let expected = expected.expect("a vector").remove(0);
        let vector = client.vector();
        assert_eq!(vector.len(), expected.len(), "{}", server.name);
        let distance = |(a, b): (&f32, &f32)| (a - b).abs();
        let worst = vector
            .iter()
            .zip(&expected)
            .map(distance)
            .fold(0.0, f32::max);
        assert!(
            worst < TOLERANCE,
            "{}: {worst} from the engine's vector",
            server.name
        );
    }
}

async fn load() -> (Engine, Model) {
    let options = EngineOptions {
        divides_runs: true,
        yielding: Yielding::Off,
        cache_bytes: Some(0),
        ..EngineOptions::default()
    };
    let loaded = testkit::engine::load_with(&runtime(), options).await;
    loaded.expect("run `make setup` first")
}

/// The Python to compare with, if the arguments name one: `-- frameworks=PYTHON`.
fn python() -> Option<String> {
    std::env::args().find_map(|argument| argument.strip_prefix("frameworks=").map(str::to_owned))
}

const WORDS: &str = "the of and a in to is was it for with as on river replication slot mountain government \
    photosynthesis quarterly harbour memory Ottoman violin bridge database electron settlement painted 1987 traveled \
    however between species northern championship novel engine railway parliament copper vineyard algorithm winter";

fn texts() -> Vec<String> {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut random = Random::new(16);
    let mut text = || {
        let count = 8 + random.below(17);
        let chosen: Vec<&str> = (0..count)
            .map(|_| words[random.below(words.len() as u64) as usize])
            .collect();
        chosen.join(" ")
    };
    (0..TEXTS).map(|_| text()).collect()
}
