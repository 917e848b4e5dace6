//! `lantern-cli verify`

use std::num::NonZeroU64;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::engine_arguments::EngineArguments;
use super::job::{JobArguments, OpenJob};
use super::json_flag::JsonFlag;
use super::progress::{Progress, Unit};
use super::{json, output};
use crate::jobs::JobId;
use crate::pipeline::commands::verify::{Compared, Extent, Findings, verify};
use crate::pipeline::setup::table_state::TableState;

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
    json: JsonFlag,

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
    let engine = arguments.engine.engine()?;
    let job = arguments.job.open(&engine).await?;
    job.refuse_passages("verify")?;
    let extent = if arguments.full {
        Extent::Everything
    } else {
        Extent::Sample(arguments.sample)
    };
    let quarantined = job.store.count_failures(&job.row.id).await?;
    let state = TableState::read(&job.session, &job.target, &[]).await?;
    let mut progress = comparing(&job.row.id);
    let findings = verify(job.vectors(&engine), extent, |now| show(&mut progress, now)).await?;
    progress.finish();
    match arguments.json.or(ReportFormat::Json, arguments.format) {
        ReportFormat::Json => {
            let mut object = serde_json::to_value(findings)?;
            object["quarantined"] = quarantined.into();
            object["model_identity"] = job.model.identity().into();
            object["not_followed"] = state.children().into();
            json::print(&object)?;
        }
        ReportFormat::Text => {
            output::lines(&report(&job, &findings, quarantined))?;
            for child in state.children() {
                output::lines(&[String::new(), job.target.ignored_child(child)])?;
            }
        }
    }
    Ok(if findings.is_sound() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The progress of comparing vectors of a job with their texts. Until the first of them, the server scans the table.
pub fn comparing(job: &JobId) -> Progress {
    let texts = Unit::Items("text", "texts");
    Progress::new(&format!("verifying job {job}"), texts)
}

/// Shows how far a comparison is.
pub fn show(progress: &mut Progress, now: Compared) {
    progress.set_total(now.total);
    progress.set(now.done);
}

fn report(job: &OpenJob, findings: &Findings, quarantined: Option<usize>) -> Vec<String> {
    let identity = format!("model identity {}", job.model.identity());
    let mut report = vec![job.title(), identity, String::new()];
    let mut line = |what: &str, count: u64, note: &str| {
        report.push(format!("{count:>12}  {what}{note}"));
    };
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
    let failures = job.store.table().failures();
    match quarantined {
        Some(0) => {}
        Some(count) => line(
            "quarantined rows",
            count as u64,
            &format!(", see {failures}"),
        ),
        None => report.push(format!(
            "{:>12}  quarantined rows: the role may not read {failures}",
            "?"
        )),
    }
    if !findings.is_sound() {
        report.extend([String::new(), remedy(job, findings)]);
    }
    report
}

/// The command that repairs what was found. Without `--all`, `resync` embeds only rows of which SQL can tell that they
/// need it.
fn remedy(job: &OpenJob, findings: &Findings) -> String {
    let id = &job.row.id;
    if findings.only_by_all == 0 {
        return format!("lantern-cli resync --job {id} repairs this.");
    }
    let why = match &job.target.fingerprint {
        None => "without a fingerprint column, resync alone does not recognize stale vectors",
        Some(_) => {
            "the fingerprints of stale vectors are those of their texts, so that resync alone does not recognize them"
        }
    };
    format!("lantern-cli resync --all --job {id} repairs this: {why}.")
}
