//! The servers that compute the vectors in some schedules, and what goes wrong with them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use testkit::StubEngine;
use testkit::random::Random;
use testkit::stub_engine::{Act, Behavior};
use testkit::tiny_model::{DIMENSIONS, TinyModel};

use super::testbed::Testbed;

/// Servers of a schedule.
const SERVERS: usize = 2;
/// Tells the numbers of a schedule's servers from those of its other parts, which so stay what they were.
const APART: u64 = 0x5eed_0fe4_61e5;

/// Something that goes wrong with a server.
#[derive(Clone, Debug)]
pub struct EngineIncident {
    pub at: Duration,
    /// The number of the server.
    pub server: usize,
    pub fault: EngineFault,
}

#[derive(Clone, Debug)]
pub enum EngineFault {
    /// It is killed, and comes back after a while.
    Away(Duration),
    /// Each request takes so much longer, for a while.
    Slow(Duration, Duration),
    /// It answers the next requests with 429, and asks for so many milliseconds.
    Throttle(usize, Option<u64>),
    /// It answers the next requests with what is no vector.
    Wrong(usize),
}

/// What happens to the servers of the schedule with this seed; `None` where the daemon computes the vectors itself.
pub fn schedule(seed: u64, duration: Duration) -> Option<Vec<EngineIncident>> {
    let mut random = Random::new(seed ^ APART).fork();
    if !random.percent(25) {
        return None;
    }
    let mut incidents: Vec<EngineIncident> = (0..random.within(1..5))
        .map(|_| EngineIncident {
            at: Duration::from_millis(random.below(duration.as_millis() as u64)),
            server: random.below(SERVERS as u64) as usize,
            fault: fault(&mut random),
        })
        .collect();
    incidents.sort_by_key(|incident| incident.at);
    Some(incidents)
}

fn fault(random: &mut Random) -> EngineFault {
    let pause = Duration::from_millis(random.within(100..1200));
    let requests = random.within(1..12) as usize;
    match random.below(4) {
        0 => EngineFault::Away(pause),
        1 => EngineFault::Slow(Duration::from_millis(random.within(20..300)), pause),
        2 => EngineFault::Throttle(requests, random.percent(50).then(|| random.within(5..400))),
        _ => EngineFault::Wrong(requests),
    }
}

/// The servers of a schedule. They have the tiny models.
pub struct Engines(Vec<Mutex<StubEngine>>);

impl Engines {
    pub fn start() -> Self {
        let engine = |_| {
            let stub = StubEngine::start();
            stub.forget();
            stub.set(Behavior {
                vector,
                latency: Duration::from_millis(3),
                ..Behavior::default()
            });
            Mutex::new(stub)
        };
        Engines((0..SERVERS).map(engine).collect())
    }

    /// `runtime_params` of a job that they serve.
    pub fn params(&self) -> String {
        let urls: Vec<String> = (0..SERVERS)
            .map(|number| format!("\"{}\"", self.with(number, |stub| stub.url())))
            .collect();
        format!("{{\"base_url\": [{}], \"max_batch\": 32}}", urls.join(", "))
    }

    fn with<T>(&self, number: usize, act: impl FnOnce(&mut StubEngine) -> T) -> T {
        let stub = self.0[number].lock();
        act(&mut stub.unwrap_or_else(PoisonError::into_inner))
    }
}

fn vector(model: &str, text: &str, dimensions: usize) -> Vec<f32> {
    debug_assert_eq!(dimensions, DIMENSIONS);
    let model = TinyModel::ALL
        .into_iter()
        .find(|known| known.name() == model);
    // What the daemon does with a text of no word, it does not ask a server for.
    model.map_or_else(Vec::new, |model| model.vector(text))
}

/// Applies what is to happen to the servers; returns when all of it is over.
pub async fn run(testbed: Arc<Testbed>) {
    let Some(engines) = &testbed.engines else {
        return;
    };
    for EngineIncident { at, server, fault } in testbed.schedule.engine.iter().flatten() {
        tokio::time::sleep_until((testbed.began + *at).into()).await;
        testbed.log(&format!("engine {server}: {fault:?}"));
        match fault {
            EngineFault::Away(pause) => {
                engines.with(*server, StubEngine::stop);
                tokio::time::sleep(*pause).await;
                engines.with(*server, StubEngine::restart);
            }
            EngineFault::Slow(latency, pause) => {
                let usual = Duration::from_millis(3);
                engines.with(*server, |stub| stub.change(|it| it.latency = *latency));
                tokio::time::sleep(*pause).await;
                engines.with(*server, |stub| stub.change(|it| it.latency = usual));
            }
            EngineFault::Throttle(requests, retry_after) => engines.with(*server, |stub| {
                stub.script((0..*requests).map(|_| Act::throttle(*retry_after)));
            }),
            EngineFault::Wrong(requests) => engines.with(*server, |stub| {
                let kinds = [
                    Act::TooFew,
                    Act::Numbers("NaN"),
                    Act::CutAfter(60),
                    Act::SameIndex,
                    Act::Close,
                    Act::error(500, "out of memory"),
                    Act::Reversed,
                ];
                stub.script(kinds.into_iter().cycle().take(*requests));
            }),
        }
    }
}
