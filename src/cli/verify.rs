//! `lantern-cli verify`

use std::num::NonZeroU64;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::engine_arguments::EngineArguments;
use super::job::JobArguments;
use crate::pipeline::commands::verify::{Extent, Findings, verify};

/// Count the rows of a job whose vectors are missing or stale
///
/// With a fingerprint column one scan inside the server is enough. Without one, texts are embedded again and compared:
/// a random sample, or all of them with --full. Rows that look wrong are checked twice, because the daemon may be
/// working on them. Exits with 1 if something is wrong.
#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    job: JobArguments,

    /// Embed every text again and compare, even with a fingerprint column
    #[arg(long)]
    full: bool,

    /// How many texts to embed again as a sample
    #[arg(
        long,
        value_name = "N",
        default_value = "1000",
        conflicts_with = "full"
    )]
    sample: NonZeroU64,

    /// How to print the result
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    format: ReportFormat,

    #[command(flatten)]
    engine: EngineArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    Text,
    /// One object
    Json,
}

pub async fn run(arguments: Verify) -> anyhow::Result<ExitCode> {
    let engine = arguments.engine.engine();
    let job = arguments.job.open(&engine).await?;
    let extent = if arguments.full {
        Extent::Everything
    } else {
        Extent::Sample(arguments.sample)
    };
    let quarantined = job.store.failures(&job.row.id).await?.len();
    let findings = verify(&job.session, &job.target, &engine, &job.model, extent).await?;
    match arguments.format {
        ReportFormat::Json => {
            let mut object = serde_json::to_value(findings)?;
            object["quarantined"] = quarantined.into();
            println!("{}", serde_json::to_string_pretty(&object)?);
        }
        ReportFormat::Text => {
            println!("{}\n", job.title());
            print(&findings, quarantined, job.store.table().failures());
        }
    }
    Ok(if findings.is_sound() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(findings: &Findings, quarantined: usize, failures: &str) {
    let line = |what: &str, count: u64, note: &str| println!("{count:>12}  {what}{note}");
    line("rows", findings.rows, "");
    line("texts", findings.texts, "");
    line("texts without a vector", findings.missing, "");
    line("vectors without a text", findings.leftover, "");
    let how = match findings.compared {
        None => ", by fingerprint".to_string(),
        Some(compared) => format!(", of {compared} embedded again"),
    };
    line("stale vectors", findings.stale, &how);
    if findings.unverified > 0 {
        line("vectors without a fingerprint", findings.unverified, "");
    }
    if quarantined > 0 {
        let see = format!(", see {failures}");
        line("quarantined rows", quarantined as u64, &see);
    }
    if !findings.is_sound() {
        println!("\nlantern-cli resync repairs this.");
    }
}
