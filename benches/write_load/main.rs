//! What it costs to have the embeddings of a table kept, next to the other ways of doing it.
//!
//! Every comparison is made within one run, in turns, each way on a server of its own that is otherwise the same. Run:
//! `make bench`, or `make bench-full` for more clients, rounds and time.

mod capture;
mod cpu;
mod engine;
mod freshness;
mod pgbench;
mod place;
mod report;
mod stream;
mod texts;
mod user_side;

use capture::{Way, follower};
use texts::Texts;
use user_side::Plan;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |argument: &str| arguments.iter().any(|given| given == argument);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if has("follow-notify") {
        runtime.block_on(follower::follow(Way::Notify, has("held")));
    } else if has("follow-queue") {
        runtime.block_on(follower::follow(Way::Queue, has("held")));
    } else {
        let scale = match (has("--full"), has("--smoke")) {
            (_, true) => Scale::Smoke,
            (true, _) => Scale::Full,
            _ => Scale::Usual,
        };
        runtime.block_on(measure(scale));
    }
}

#[derive(Clone, Copy)]
enum Scale {
    /// Everything once and briefly, to see that it works; the figures mean nothing.
    Smoke,
    Usual,
    Full,
}

async fn measure(scale: Scale) {
    let texts = Texts::load();
    println!("{} texts: {}", texts.texts.len(), texts.source);
    let plan = match scale {
        Scale::Smoke => Plan {
            clients: vec![2],
            rounds: 1,
            seconds: 1,
        },
        Scale::Usual => Plan {
            clients: vec![1, 8],
            rounds: 3,
            seconds: 3,
        },
        Scale::Full => Plan {
            clients: vec![1, 4, 8, 16],
            rounds: 5,
            seconds: 5,
        },
    };
    let runs = user_side::measure(&plan, &texts).await;
    report::user_side(&runs, &plan);
    let plan = match scale {
        Scale::Smoke => freshness::Plan {
            loads: vec![10],
            seconds: 1,
            lone: 3,
        },
        Scale::Usual => freshness::Plan {
            loads: vec![10, 50, 200, 800],
            seconds: 5,
            lone: 20,
        },
        Scale::Full => freshness::Plan {
            loads: vec![2, 5, 10, 20, 50, 100, 200, 400, 800, 1600],
            seconds: 20,
            lone: 60,
        },
    };
    let freshness = freshness::measure(&plan, &texts).await;
    report::freshness(&freshness);
    let plan = match scale {
        Scale::Smoke => stream::Plan {
            rows: 1_000,
            rounds: 1,
        },
        Scale::Usual => stream::Plan {
            rows: 200_000,
            rounds: 5,
        },
        Scale::Full => stream::Plan {
            rows: 1_000_000,
            rounds: 9,
        },
    };
    let rounds = stream::measure(&plan, &texts).await;
    report::stream(&rounds, plan.rows);
}
