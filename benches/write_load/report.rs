//! Tables of what was measured.

mod documents;

use crate::bar::{Bar, Bound};
use crate::bars::ratio;
use crate::capture::{Inference, Way};
use crate::questions::burst::Burst;
use crate::questions::freshness::{Freshness, Lone, Point};
use crate::questions::user_side::{Run, Statement, UserSide};
use crate::questions::{
    backlog, beside_inference, jobs, near_saturation, repeats, tables, write_back,
};
use crate::results::Results;
use testkit::statistics::median;

/// Prints what there is.
pub fn print(results: &Results) {
    results.user_side.iter().for_each(user_side);
    results
        .beside_inference
        .iter()
        .for_each(|runs| beside_inference(runs));
    results.freshness.iter().for_each(freshness);
    results
        .near_saturation
        .iter()
        .for_each(|runs| near_saturation(runs));
    results.repeats.iter().for_each(|rounds| repeats(rounds));
    results
        .bursts
        .iter()
        .for_each(|bursts| self::bursts("bursts", bursts));
    results
        .drain
        .iter()
        .for_each(|bursts| self::bursts("one large burst", bursts));
    results.backlog.iter().for_each(|rounds| backlog(rounds));
    results
        .write_back
        .iter()
        .for_each(|rounds| write_back(rounds));
    results.documents.iter().for_each(documents::print);
    results.jobs.iter().for_each(|runs| jobs(runs));
    results
        .tables
        .iter()
        .for_each(|tables| self::tables(tables));
    bars(&results.bars);
}

/// The first column is a name, the others are figures.
fn table(title: &str, head: &[&str], rows: Vec<Vec<String>>) {
    println!("\n{title}");
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| Some(row.get(column)?.len()))
            .max()
    };
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = width(column).unwrap_or(0);
            match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            }
        });
        println!("{}", cells.collect::<String>().trim_end());
    }
}

/// Medians over the rounds; ratios are taken within a round.
fn user_side(user_side: &UserSide) {
    let runs = &user_side.runs;
    for statement in Statement::ALL {
        let mut clients: Vec<u32> = runs
            .iter()
            .filter(|run| run.statement == statement)
            .map(|run| run.clients)
            .collect();
        clients.dedup();
        for clients in clients {
            let fits = |run: &Run| run.statement == statement && run.clients == clients;
            let row = |way: Way| {
                let middle = |figure: fn(&Run) -> f64| {
                    let mine = runs.iter().filter(|run| run.way == way && fits(run));
                    median(mine.map(figure))
                };
                let ratio = |figure: fn(&Run) -> f64| ratio(runs, way, Way::Nothing, figure, fits);
                let wal = user_side
                    .wal
                    .iter()
                    .find(|wal| wal.way == way && wal.statement == statement);
                vec![
                    way.name().to_owned(),
                    format!("{:.0}", middle(|run| run.speed.tps)),
                    format!("{:.3}", ratio(|run| run.speed.tps)),
                    format!("{:.2}", middle(|run| run.speed.p50)),
                    format!("{:.2}", middle(|run| run.speed.p95)),
                    format!("{:.2}", middle(|run| run.speed.p99)),
                    format!("{:.1}", middle(|run| run.backend)),
                    format!("{:.3}", ratio(|run| run.backend)),
                    format!("{:.1}", middle(|run| run.serving)),
                    format!("{:.1}", middle(|run| run.outside)),
                    format!("{:.0}", wal.map_or(f64::NAN, |wal| wal.bytes)),
                    format!("{:.1}", middle(|run| run.behind)),
                ]
            };
            let head = [
                "", "tx/s", "ratio", "p50 ms", "p95 ms", "p99 ms", "backend", "ratio", "serving",
                "outside", "WAL", "behind",
            ];
            let title = format!("{}, {clients} clients", statement.name());
            table(&title, &head, Way::ALL.map(row).to_vec());
        }
    }
    println!(
        "\nbackend, serving, outside: microseconds of processor time a row; WAL: bytes a row; behind: seconds"
    );
}

fn beside_inference(runs: &[beside_inference::Run]) {
    let mut rows = Vec::new();
    for users in beside_inference::Users::ALL {
        for inference in [Inference::Off, Inference::Yielding, Inference::Unyielding] {
            let fits =
                |run: &&beside_inference::Run| (run.users, run.inference) == (users, inference);
            let middle = |figure: fn(&beside_inference::Run) -> Option<f64>| {
                let figures: Vec<f64> = runs.iter().filter(fits).filter_map(figure).collect();
                match figures.is_empty() {
                    true => "-".to_owned(),
                    false => format!("{:.2}", median(figures)),
                }
            };
            rows.push(vec![
                users.name().to_owned(),
                inference.name().to_owned(),
                middle(|run| Some(run.speed.as_ref()?.tps)),
                middle(|run| Some(run.speed.as_ref()?.p50)),
                middle(|run| Some(run.speed.as_ref()?.p95)),
                middle(|run| Some(run.speed.as_ref()?.p99)),
                middle(|run| Some(run.embedded)),
            ]);
        }
    }
    table(
        "INSERTs of users beside a backlog that is embedded on the same processors",
        &[
            "users",
            "inference",
            "tx/s",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "texts/s",
        ],
        rows,
    );
}

fn repeats(rounds: &[repeats::Round]) {
    let row = |round: &repeats::Round| {
        vec![
            format!("{:.2}", round.hot_rows),
            format!("{:.2}", round.equal_texts),
            format!("{:.0}", round.distinct),
            format!("{:.0}", round.mix),
            format!("{:.2}", round.mix / round.distinct),
        ]
    };
    table(
        "what is not computed twice",
        &[
            "600 updates of 10 rows, s",
            "1,000 equal texts, s",
            "new texts/s",
            "updates/s, 30 % repeats",
            "ratio",
        ],
        rounds.iter().map(row).collect(),
    );
}

fn freshness(freshness: &Freshness) {
    table(
        "from commit to commit, in milliseconds",
        &POINT_HEAD,
        freshness.points.iter().map(point).collect(),
    );
    let row = |lone: &Lone| {
        vec![
            lone.way.name().to_owned(),
            format!("{:.2}", lone.p50),
            format!("{:.2}", lone.p95),
            format!("{:.2}", lone.model),
            format!("{:.2}", lone.beyond),
        ]
    };
    table(
        "one row a second, in milliseconds",
        &["", "p50", "p95", "model alone", "beyond it"],
        freshness.lone.iter().map(row).collect(),
    );
}

const POINT_HEAD: [&str; 7] = [
    "",
    "rows/s in",
    "rows/s out",
    "p50",
    "p95",
    "p99",
    "longest",
];

fn point(point: &Point) -> Vec<String> {
    let figures = [
        point.offered,
        point.kept,
        point.p50,
        point.p95,
        point.p99,
        point.longest,
    ];
    std::iter::once(point.way.name().to_owned())
        .chain(figures.map(|figure| format!("{figure:.1}")))
        .collect()
}

fn near_saturation(runs: &[near_saturation::Run]) {
    let row = |run: &near_saturation::Run| {
        let share = run
            .share
            .map_or("overload".to_owned(), |share| share.to_string());
        let kind = [share, run.inference.name().to_owned()];
        [&point(&run.point)[..], &kind[..]].concat()
    };
    table(
        "several writers near saturation, from commit to commit, in milliseconds",
        &[&POINT_HEAD[..], &["of saturation", "inference"]].concat(),
        runs.iter().map(row).collect(),
    );
}

fn bursts(title: &str, bursts: &[Burst]) {
    let optional = |value: Option<f64>, digits: usize| {
        value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let row = |burst: &Burst| {
        let bytes = burst.bytes.map(|bytes| bytes as f64);
        vec![
            burst.way.name().to_owned(),
            burst.rows.to_string(),
            optional(bytes, 0),
            format!("{:.1}", burst.rate),
            optional(burst.bare, 1),
            optional(burst.bare.map(|bare| burst.rate / bare), 3),
            optional(burst.waiting.map(|waiting| 100.0 * waiting), 1),
            (burst.peak >> 20).to_string(),
        ]
    };
    table(
        title,
        &[
            "",
            "rows",
            "bytes",
            "rows/s",
            "bare",
            "share",
            "waiting %",
            "peak MB",
        ],
        bursts.iter().map(row).collect(),
    );
}

fn backlog(rounds: &[backlog::Round]) {
    let row = |round: &backlog::Round| {
        [round.ours, round.recvlogical]
            .map(|rate| format!("{rate:.0}"))
            .into_iter()
            .chain([format!("{:.3}", round.ours / round.recvlogical)])
            .collect()
    };
    table(
        "the stream of a backlog, rows a second",
        &["lantern-cli", "pg_recvlogical", "ratio"],
        rounds.iter().map(row).collect(),
    );
}

fn write_back(rounds: &[write_back::Round]) {
    let row = |round: &write_back::Round| {
        [round.write_back, round.inside]
            .map(|rate| format!("{rate:.0}"))
            .into_iter()
            .chain([format!("{:.3}", round.write_back / round.inside)])
            .collect()
    };
    table(
        "write-backs, rows a second",
        &["write-back", "inside the server", "ratio"],
        rounds.iter().map(row).collect(),
    );
}

fn jobs(runs: &[jobs::Run]) {
    let mut rows = Vec::new();
    for slots in jobs::Slots::ALL {
        for count in jobs::JOBS {
            let mut tables = vec![1, count];
            tables.dedup();
            for tables in tables {
                let middle = |figure: fn(&jobs::Run) -> f64| {
                    let fits = |run: &&jobs::Run| {
                        (run.slots, run.jobs, run.tables) == (slots, count, tables)
                    };
                    median(runs.iter().filter(fits).map(figure))
                };
                rows.push(vec![
                    match slots {
                        jobs::Slots::None => "no daemon".to_owned(),
                        _ => format!("a slot a {}", slots.name()),
                    },
                    count.to_string(),
                    tables.to_string(),
                    format!("{:.0}", middle(|run| run.tps)),
                    format!("{:.1}", middle(|run| run.walsenders)),
                    format!("{:.1}", middle(|run| run.daemon)),
                    format!("{:.1}", middle(|run| run.behind)),
                ]);
            }
        }
    }
    table(
        "many jobs: INSERTs by 8 clients, microseconds of processor time a row",
        &[
            "",
            "jobs",
            "written to",
            "tx/s",
            "walsenders",
            "daemon",
            "behind s",
        ],
        rows,
    );
}

fn tables(tables: &[tables::Table]) {
    let row = |table: &tables::Table| {
        vec![
            table.rows.to_string(),
            format!("{:.0}", table.rate),
            (table.idle >> 20).to_string(),
            (table.peak >> 20).to_string(),
        ]
    };
    table(
        "the initial backfill of a table, with a model that takes almost no time",
        &["rows", "rows/s", "idle MB", "peak MB"],
        tables.iter().map(row).collect(),
    );
}

fn bars(bars: &[Bar]) {
    let row = |bar: &Bar| {
        vec![
            bar.what.to_owned(),
            format!("{:.3}", bar.value),
            match bar.bound {
                Bound::AtLeast(bound) => format!(">= {bound}"),
                Bound::AtMost(bound) => format!("<= {bound}"),
            },
            if bar.holds { "holds" } else { "MISSED" }.to_owned(),
        ]
    };
    let rows = bars.iter().map(row).collect();
    table("bars", &["", "measured", "bar", ""], rows);
}
