//! What the product has to show.

use serde::Serialize;

use crate::answers::Answers;
use crate::capture::Way;
use crate::questions::jobs::{JOBS, Slots};
use crate::questions::user_side::{Run, Statement};
use crate::support::statistics::median;

#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    pub what: &'static str,
    pub value: f64,
    pub bound: Bound,
    pub holds: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bar {
    fn new(what: &'static str, value: f64, bound: Bound) -> Bar {
        // What was not measured (NaN) holds no bar.
        let holds = match bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        };
        Bar {
            what,
            value,
            bound,
            holds,
        }
    }
}

/// Those of the questions that were asked.
pub fn bars(answers: &Answers) -> Vec<Bar> {
    let mut bars = Vec::new();
    if let Some(user_side) = &answers.user_side {
        let runs = &user_side.runs;
        bars.extend([
            Bar::new(
                "user's transactions a second while the daemon captures, against pg_recvlogical",
                ratio(
                    runs,
                    Way::Daemon,
                    Way::Recvlogical,
                    |run| run.speed.tps,
                    |_| true,
                ),
                Bound::AtLeast(0.97),
            ),
            Bar::new(
                "processor time of the user's statements, a row, against no capture",
                ratio(runs, Way::Daemon, Way::Nothing, |run| run.backend, |_| true),
                Bound::AtMost(1.05),
            ),
            Bar::new(
                "user's INSERTs a second against the NOTIFY trigger, 8 clients",
                at_8_clients(runs, Statement::Insert),
                Bound::AtLeast(2.0),
            ),
            Bar::new(
                "user's UPDATEs of texts a second against the NOTIFY trigger, 8 clients",
                at_8_clients(runs, Statement::UpdateText),
                Bound::AtLeast(2.0),
            ),
        ]);
    }
    if let Some(freshness) = &answers.freshness {
        let lone = freshness.lone.iter().find(|lone| lone.way == Way::Daemon);
        bars.push(Bar::new(
            "milliseconds from commit to vector beyond the model's own, median, one row a second",
            lone.map_or(f64::NAN, |lone| lone.beyond),
            Bound::AtMost(3.0),
        ));
    }
    if let Some(bursts) = &answers.bursts {
        let shares = bursts
            .iter()
            .filter(|burst| burst.way == Way::Daemon && burst.bytes.is_none())
            .filter_map(|burst| Some(burst.rate / burst.bare?));
        bars.push(Bar::new(
            "rows a second at saturation against the bare ONNX Runtime loop",
            median(shares),
            Bound::AtLeast(0.95),
        ));
    }
    if let Some(rounds) = &answers.backlog {
        bars.push(Bar::new(
            "the stream alone against pg_recvlogical",
            median(rounds.iter().map(|round| round.ours / round.recvlogical)),
            Bound::AtLeast(0.95),
        ));
    }
    if let Some(rounds) = &answers.write_back {
        bars.push(Bar::new(
            "write-backs a second against the UPDATE inside the server",
            median(rounds.iter().map(|round| round.write_back / round.inside)),
            Bound::AtLeast(0.5),
        ));
    }
    if let Some(tables) = &answers.tables {
        let peak = |place: Option<&crate::questions::tables::Table>| {
            place.map_or(f64::NAN, |table| table.peak as f64)
        };
        bars.push(Bar::new(
            "memory with the largest table against the smallest",
            peak(tables.last()) / peak(tables.first()),
            Bound::AtMost(1.1),
        ));
    }
    if let Some(runs) = &answers.jobs {
        let of = |jobs: u32, tables: u32| {
            runs.iter().filter(move |run| {
                (run.slots, run.jobs, run.tables) == (Slots::Database, jobs, tables)
            })
        };
        let most = JOBS[JOBS.len() - 1];
        for (what, tables) in [
            (
                "user's transactions a second with 50 jobs on one slot against 1 job, writing to one table",
                1,
            ),
            (
                "user's transactions a second with 50 jobs on one slot against 1 job, writing to all tables",
                most,
            ),
        ] {
            let beside = of(JOBS[0], 1).zip(of(most, tables));
            let ratios = beside.map(|(one, most)| most.tps / one.tps);
            bars.push(Bar::new(what, median(ratios), Bound::AtLeast(0.95)));
        }
    }
    bars
}

fn at_8_clients(runs: &[Run], statement: Statement) -> f64 {
    let fits = |run: &Run| run.statement == statement && run.clients == 8;
    ratio(runs, Way::Daemon, Way::Notify, |run| run.speed.tps, fits)
}

/// The median of a figure's ratios, each within one round, over all runs that fit.
pub fn ratio(
    runs: &[Run],
    way: Way,
    to: Way,
    figure: impl Fn(&Run) -> f64,
    fits: impl Fn(&Run) -> bool,
) -> f64 {
    let ratios = runs
        .iter()
        .filter(|run| run.way == way && fits(run))
        .filter_map(|run| {
            let beside = runs.iter().find(|other| {
                (other.way, other.statement, other.clients, other.round)
                    == (to, run.statement, run.clients, run.round)
            })?;
            Some(figure(run) / figure(beside))
        });
    median(ratios)
}
