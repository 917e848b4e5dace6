//! Tables of what was measured.

use crate::capture::Way;
use crate::freshness::Freshness;
use crate::stream::Round;
use crate::user_side::{Plan, Run, Statement};

/// Medians over the rounds; ratios are taken within a round.
pub fn user_side(runs: &[Run], plan: &Plan) {
    for statement in Statement::ALL {
        for &clients in &plan.clients {
            println!("\n{}, {clients} clients", statement.name());
            println!(
                "{:<16} {:>9} {:>7} {:>8} {:>8} {:>8} {:>9} {:>7} {:>10} {:>8} {:>6}",
                "",
                "tx/s",
                "ratio",
                "p50 ms",
                "p95 ms",
                "p99 ms",
                "backend",
                "ratio",
                "walsender",
                "outside",
                "WAL"
            );
            for way in Way::ALL {
                let of = |way: Way| -> Vec<&Run> {
                    let fits = |run: &&Run| {
                        run.statement == statement && run.clients == clients && run.way == way
                    };
                    runs.iter().filter(fits).collect()
                };
                let (mine, bare) = (of(way), of(Way::Nothing));
                let middle = |figure: fn(&Run) -> f64| median(mine.iter().map(|run| figure(run)));
                let ratio = |figure: fn(&Run) -> f64| {
                    median(
                        mine.iter()
                            .zip(&bare)
                            .map(|(run, bare)| figure(run) / figure(bare)),
                    )
                };
                println!(
                    "{:<16} {:>9.0} {:>7.3} {:>8.2} {:>8.2} {:>8.2} {:>9.1} {:>7.3} {:>10.1} {:>8.1} {:>6.0}{}",
                    way.name(),
                    middle(|run| run.tps),
                    ratio(|run| run.tps),
                    middle(|run| run.p50),
                    middle(|run| run.p95),
                    middle(|run| run.p99),
                    middle(|run| run.backend),
                    ratio(|run| run.backend),
                    middle(|run| run.walsender),
                    middle(|run| run.outside),
                    middle(|run| run.wal),
                    if mine.iter().all(|run| run.complete) {
                        ""
                    } else {
                        "  not all of it was captured"
                    }
                );
            }
        }
    }
    println!(
        "\nbackend, walsender, outside: microseconds of processor time a row; WAL: bytes a row"
    );
}

pub fn freshness(freshness: &Freshness) {
    println!("\nfrom commit to commit, in milliseconds");
    println!(
        "{:<16} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9}",
        "", "rows/s in", "rows/s out", "p50", "p95", "p99", "longest"
    );
    for point in &freshness.points {
        println!(
            "{:<16} {:>10.1} {:>10.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
            point.way.name(),
            point.offered,
            point.kept,
            point.p50,
            point.p95,
            point.p99,
            point.longest
        );
    }
    println!("\none row a second");
    println!(
        "{:<16} {:>9} {:>9} {:>12} {:>9}",
        "", "p50", "p95", "model alone", "beyond"
    );
    for lone in &freshness.lone {
        println!(
            "{:<16} {:>9.2} {:>9.2} {:>12.2} {:>9.2}",
            lone.way.name(),
            lone.p50,
            lone.p95,
            lone.model,
            lone.beyond
        );
    }
}

pub fn stream(rounds: &[Round], rows: usize) {
    println!("\na backlog of {rows} rows, rows a second");
    println!(
        "{:>14} {:>14} {:>7}",
        "lantern-cli", "pg_recvlogical", "ratio"
    );
    for round in rounds {
        let ratio = round.ours / round.recvlogical;
        println!(
            "{:>14.0} {:>14.0} {ratio:>7.3}",
            round.ours, round.recvlogical
        );
    }
    let ratios = rounds.iter().map(|round| round.ours / round.recvlogical);
    println!("median ratio {:.3}", median(ratios));
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
