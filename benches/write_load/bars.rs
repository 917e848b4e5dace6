//! The bars: which figures the product has to reach.

use crate::bar::{Bar, Bound};
use crate::capture::{Inference, Way};
use crate::pgbench::Speed;
use crate::questions::beside_inference::Users;
use crate::questions::burst::Burst;
use crate::questions::documents::edits::Change;
use crate::questions::documents::throughput::Load;
use crate::questions::documents::{self, Documents};
use crate::questions::freshness::{Freshness, Point};
use crate::questions::jobs;
use crate::questions::jobs::{JOBS, Slots};
use crate::questions::tables::Table;
use crate::questions::user_side::{Run, Statement, UserSide};
use crate::questions::{beside_inference, near_saturation, repeats};
use crate::results::Results;
use testkit::statistics::median;

/// The bars of the questions that were asked.
pub fn bars(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    bars.extend(results.user_side.iter().flat_map(user_side));
    bars.extend(
        results
            .beside_inference
            .iter()
            .flat_map(|runs| beside_inference(runs)),
    );
    bars.extend(results.freshness.as_ref().map(freshness));
    bars.extend(results.repeats.iter().flat_map(|rounds| repeats(rounds)));
    bars.extend(
        results
            .near_saturation
            .iter()
            .flat_map(|runs| near_saturation(runs)),
    );
    bars.extend(results.bursts.as_deref().map(bursts));
    bars.extend(results.backlog.as_ref().map(|rounds| {
        Bar::new(
            "the stream alone against pg_recvlogical",
            median(rounds.iter().map(|round| round.ours / round.recvlogical)),
            Bound::AtLeast(0.95),
        )
    }));
    bars.extend(results.write_back.as_ref().map(|rounds| {
        Bar::new(
            "write-backs a second against the UPDATE inside the server",
            median(rounds.iter().map(|round| round.write_back / round.inside)),
            Bound::AtLeast(0.5),
        )
    }));
    bars.extend(results.documents.iter().flat_map(documents));
    bars.extend(results.tables.as_deref().map(tables));
    bars.extend(results.jobs.iter().flat_map(|runs| jobs(runs)));
    bars
}

fn user_side(user_side: &UserSide) -> [Bar; 4] {
    let runs = &user_side.runs;
    let all = |_: &Run| true;
    [
        Bar::new(
            "user's transactions a second while the daemon captures, against pg_recvlogical",
            ratio(
                runs,
                Way::Daemon,
                Way::Recvlogical,
                |run| run.speed.tps,
                all,
            ),
            Bound::AtLeast(0.97),
        ),
        Bar::new(
            "processor time of the user's statements, a row, against no capture",
            ratio(runs, Way::Daemon, Way::Nothing, |run| run.backend, all),
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
    ]
}

fn freshness(freshness: &Freshness) -> Bar {
    let lone = freshness.lone.iter().find(|lone| lone.way == Way::Daemon);
    Bar::new(
        "milliseconds from commit to vector beyond the model's own, median, one row a second",
        lone.map_or(f64::NAN, |lone| lone.beyond),
        Bound::AtMost(3.0),
    )
}

/// Of users beside inference, and of inference without users.
fn beside_inference(runs: &[beside_inference::Run]) -> [Bar; 6] {
    use Inference::{Off, Unyielding, Yielding};
    let users = |users, figure: fn(&Speed) -> f64| {
        let figure = |run: &beside_inference::Run| run.speed.as_ref().map_or(f64::NAN, figure);
        beside_inference::ratio(runs, users, [Yielding, Off], figure)
    };
    let alone = [Yielding, Unyielding];
    let embedded = |run: &beside_inference::Run| run.embedded;
    let embedded = beside_inference::ratio(runs, Users::None, alone, embedded);
    [
        Bar::new(
            "user's transactions a second beside inference, a client a core, against no daemon",
            users(Users::AClientACore, |speed| speed.tps),
            Bound::AtLeast(0.85),
        ),
        Bar::new(
            "user's transactions a second beside inference, four clients a core, against no daemon",
            users(Users::FourClientsACore, |speed| speed.tps),
            Bound::AtLeast(0.85),
        ),
        Bar::new(
            "their 99th percentile, a client a core, against no daemon",
            users(Users::AClientACore, |speed| speed.p99),
            Bound::AtMost(2.0),
        ),
        Bar::new(
            "their 99th percentile, four clients a core, against no daemon",
            users(Users::FourClientsACore, |speed| speed.p99),
            Bound::AtMost(2.0),
        ),
        Bar::new(
            "the 95th percentile of 1,000 transactions a second beside inference, against no daemon",
            users(Users::Steady, |speed| speed.p95),
            Bound::AtMost(1.5),
        ),
        Bar::new(
            "texts embedded a second without users, against --yield off",
            embedded,
            Bound::AtLeast(0.98),
        ),
    ]
}

fn repeats(rounds: &[repeats::Round]) -> [Bar; 3] {
    let middle = |figure: fn(&repeats::Round) -> f64| median(rounds.iter().map(figure));
    [
        Bar::new(
            "seconds until 600 updates of 10 rows have settled",
            middle(|round| round.hot_rows),
            Bound::AtMost(1.5),
        ),
        Bar::new(
            "seconds until 1,000 equal texts have their vectors",
            middle(|round| round.equal_texts),
            Bound::AtMost(1.0),
        ),
        Bar::new(
            "updates a second with 30 % repeated texts, against as many new texts",
            middle(|round| round.mix / round.distinct),
            Bound::AtLeast(1.4),
        ),
    ]
}

/// The worst of three percentiles, each against the better of the triggers.
fn near_saturation(runs: &[near_saturation::Run]) -> Vec<Bar> {
    let bars = [
        (
            0.5,
            Inference::Unyielding,
            "milliseconds from commit to vector at 0.5 of saturation, against the better trigger",
        ),
        (0.8, Inference::Unyielding, "the same at 0.8 of saturation"),
        (
            0.95,
            Inference::Unyielding,
            "the same at 0.95 of saturation",
        ),
        (
            0.5,
            Inference::Yielding,
            "the same at 0.5 of saturation, while inference yields",
        ),
        (
            0.8,
            Inference::Yielding,
            "the same at 0.8 of saturation, while inference yields",
        ),
        (
            0.95,
            Inference::Yielding,
            "the same at 0.95 of saturation, while inference yields",
        ),
    ];
    let figures: [fn(&Point) -> f64; 3] = [|point| point.p50, |point| point.p95, |point| point.p99];
    let bars = bars.into_iter().map(|(share, inference, what)| {
        let of = |way, figure| near_saturation::middle(runs, (way, inference), share, figure);
        let against = figures.map(|figure| {
            of(Way::Daemon, figure) / of(Way::Notify, figure).min(of(Way::Queue, figure))
        });
        let worst = against.into_iter().fold(0.0, f64::max);
        Bar::new(what, worst, Bound::AtMost(1.0))
    });
    bars.collect()
}

fn bursts(bursts: &[Burst]) -> Bar {
    let shares = bursts
        .iter()
        .filter(|burst| burst.way == Way::Daemon && burst.bytes.is_none())
        .filter_map(|burst| Some(burst.rate / burst.bare?));
    Bar::new(
        "rows a second at saturation against the bare ONNX Runtime loop",
        median(shares),
        Bound::AtLeast(0.95),
    )
}

fn documents(documents: &Documents) -> [Bar; 5] {
    let embedded = |load| {
        let runs = documents
            .throughput
            .iter()
            .filter(move |run| run.load == load);
        median(runs.map(|run| run.rate / run.bare))
    };
    let rewritten = documents
        .edits
        .iter()
        .filter(|edit| edit.change == Change::Rewritten);
    let written = |round: &documents::write_back::Round| round.inside / round.write_back;
    [
        Bar::new(
            "documents a second of a backfill against their passages in the bare ONNX Runtime loop",
            embedded(Load::Backfill),
            Bound::AtLeast(0.9),
        ),
        Bar::new(
            "the same for documents of one transaction",
            embedded(Load::Live),
            Bound::AtLeast(0.9),
        ),
        Bar::new(
            "passages embedded for one rewritten paragraph of about 200 passages, at the worst place",
            rewritten.map(|edit| edit.embedded).fold(f64::NAN, f64::max),
            Bound::AtMost(3.0),
        ),
        Bar::new(
            "write-back of a document of 1,000 passages against the INSERT inside the server",
            median(documents.write_back.iter().map(written)),
            Bound::AtLeast(0.5),
        ),
        Bar::new(
            "user's INSERTs, UPDATEs and DELETEs a second beside a job with passages, against pg_recvlogical",
            ratio(
                &documents.users,
                Way::Daemon,
                Way::Recvlogical,
                |run| run.speed.tps,
                |_| true,
            ),
            Bound::AtLeast(0.97),
        ),
    ]
}

fn tables(tables: &[Table]) -> Bar {
    let peak = |table: Option<&Table>| table.map_or(f64::NAN, |table| table.peak as f64);
    Bar::new(
        "memory with the largest table against the smallest",
        peak(tables.last()) / peak(tables.first()),
        Bound::AtMost(1.1),
    )
}

fn jobs(runs: &[jobs::Run]) -> [Bar; 2] {
    let of = |jobs: u32, tables: u32| {
        runs.iter()
            .filter(move |run| (run.slots, run.jobs, run.tables) == (Slots::Database, jobs, tables))
    };
    let most = JOBS[JOBS.len() - 1];
    let bar = |what, tables| {
        let pairs = of(JOBS[0], 1).zip(of(most, tables));
        let ratios = pairs.map(|(one, many)| many.tps / one.tps);
        Bar::new(what, median(ratios), Bound::AtLeast(0.95))
    };
    [
        bar(
            "user's transactions a second with 50 jobs on one slot against 1 job, writing to one table",
            1,
        ),
        bar(
            "user's transactions a second with 50 jobs on one slot against 1 job, writing to all tables",
            most,
        ),
    ]
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
