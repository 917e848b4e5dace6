//! `lantern-cli verify`

use std::num::NonZeroU64;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::engine_arguments::EngineArguments;
use super::job::{JobArguments, OpenJob};
use super::json_flag::JsonFlag;
use super::progress::{Progress, Unit};
use super::verify_report::{self, Found};
use super::{json, output};
use crate::embedding::Engine;
use crate::jobs::JobId;
use crate::pipeline::commands::verify::{Compared, Extent, verify};
use crate::pipeline::commands::verify_documents::verify_documents;
use crate::pipeline::setup::table_state::TableState;
use crate::pipeline::table::passages::PassageTable;

/// How many texts are embedded again where no fingerprints tell.
const SAMPLE: NonZeroU64 = NonZeroU64::new(1000).unwrap();

/// Count the rows of a job whose vectors are missing or stale, or its documents whose passages are
///
/// With a fingerprint column one scan inside the server is enough. Without one, texts are embedded again and compared:
/// a random sample, or all of them with --full. With a chunk table fingerprints tell, too: documents without passages, with
/// passages of another text or incomplete ones, and passages without a row; --sample or --full embeds passages again. Rows that look wrong are checked twice, because the daemon may be
/// working on them. Exits with 1 if something is wrong.
#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    job: JobArguments,

    /// Embed every text again and compare, even with a fingerprint column or a chunk table
    #[arg(long)]
    full: bool,

    /// How many texts to embed again as a sample [default: 1000 where no fingerprints tell, otherwise none]
    #[arg(long, value_name = "N", conflicts_with = "full")]
    sample: Option<NonZeroU64>,

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
    let quarantined = job.store.count_failures(&job.row.id).await?;
    let state = TableState::read(&job.session, &job.target, &[]).await?;
    let found = match &job.target.passages {
        Some(passages) => arguments.documents(&job, passages, &engine).await?,
        None => arguments.rows(&job, &engine).await?,
    };
    match arguments.json.or(ReportFormat::Json, arguments.format) {
        ReportFormat::Json => {
            let mut object = found.to_json()?;
            object["quarantined"] = quarantined.into();
            object["model_identity"] = job.model.identity().into();
            object["not_followed"] = state.children().into();
            json::print(&object)?;
        }
        ReportFormat::Text => {
            output::lines(&verify_report::lines(&job, &found, quarantined))?;
            for child in state.children() {
                output::lines(&[String::new(), job.target.ignored_child(child)])?;
            }
        }
    }
    Ok(if found.is_sound() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Verify {
    async fn rows(&self, job: &OpenJob, engine: &Engine) -> anyhow::Result<Found> {
        let extent = match self.full {
            true => Extent::Everything,
            false => Extent::Sample(self.sample.unwrap_or(SAMPLE)),
        };
        let mut progress = comparing(&job.row.id);
        let report = |now| show(&mut progress, now);
        let findings = verify(job.vectors(engine), extent, report).await?;
        progress.finish();
        Ok(Found::Rows(findings))
    }

    /// Here a sample is embedded only where it is asked for: each passage has a fingerprint.
    async fn documents(
        &self,
        job: &OpenJob,
        passages: &PassageTable,
        engine: &Engine,
    ) -> anyhow::Result<Found> {
        let extent = match self.full {
            true => Some(Extent::Everything),
            false => self.sample.map(Extent::Sample),
        };
        let unit = Unit::Items("passage", "passages");
        let mut progress = Progress::new(&doing(&job.row.id), unit);
        let report = |now| show(&mut progress, now);
        let findings = verify_documents(job.vectors(engine), passages, extent, report).await?;
        progress.finish();
        Ok(Found::Documents(findings))
    }
}

fn doing(job: &JobId) -> String {
    format!("verifying job {job}")
}

/// The progress of comparing vectors of a job with their texts. Until the first of them, the server scans the table.
pub fn comparing(job: &JobId) -> Progress {
    let texts = Unit::Items("text", "texts");
    Progress::new(&doing(job), texts)
}

/// Shows how far a comparison is.
pub fn show(progress: &mut Progress, now: Compared) {
    progress.set_total(now.total);
    progress.set(now.done);
}
