//! What `lantern-cli verify` has found, as people read it.

use super::job::OpenJob;
use crate::pipeline::commands::verify::Findings;
use crate::pipeline::commands::verify_documents::DocumentFindings;

/// What was found.
pub enum Found {
    /// Of a job with a vector in each row.
    Rows(Findings),
    /// Of a job with a chunk table.
    Documents(DocumentFindings),
}

impl Found {
    /// Whether all that was looked at is right.
    pub fn is_sound(&self) -> bool {
        match self {
            Found::Rows(findings) => findings.is_sound(),
            Found::Documents(findings) => findings.is_sound(),
        }
    }

    /// The counts, by name.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        match self {
            Found::Rows(findings) => serde_json::to_value(findings),
            Found::Documents(findings) => serde_json::to_value(findings),
        }
    }
}

/// The lines of the report, with the command that repairs what was found.
pub fn lines(job: &OpenJob, found: &Found, quarantined: Option<usize>) -> Vec<String> {
    let identity = format!("model identity {}", job.model.identity());
    let mut lines = vec![job.title(), identity, String::new()];
    lines.extend(match found {
        Found::Rows(findings) => of_rows(findings),
        Found::Documents(findings) => of_documents(findings),
    });
    let failures = job.store.table().failures();
    let what = match found {
        Found::Rows(_) => "quarantined rows",
        Found::Documents(_) => "quarantined documents",
    };
    match quarantined {
        Some(0) => {}
        Some(count) => lines.push(line(count as u64, &format!("{what}, see {failures}"))),
        None => lines.push(format!(
            "{:>12}  {what}: the role may not read {failures}",
            "?"
        )),
    }
    if !found.is_sound() {
        lines.push(String::new());
        lines.extend(match found {
            Found::Rows(findings) => vec![remedy(job, findings)],
            Found::Documents(findings) => remedies_of_documents(job, findings),
        });
    }
    lines
}

fn line(count: u64, what: &str) -> String {
    format!("{count:>12}  {what}")
}

fn of_rows(findings: &Findings) -> Vec<String> {
    let how = match findings.compared {
        None => ", by fingerprint".to_string(),
        Some(compared) => format!(", of {compared} embedded again"),
    };
    let mut lines = vec![
        line(findings.rows, "rows"),
        line(findings.texts, "texts"),
        line(findings.missing, "texts without a vector"),
        line(findings.leftover, "vectors without a text"),
        line(findings.stale, &format!("stale vectors{how}")),
    ];
    if findings.unverified > 0 {
        lines.push(line(findings.unverified, "vectors without a fingerprint"));
    }
    lines
}

fn of_documents(findings: &DocumentFindings) -> Vec<String> {
    let mut lines = vec![
        line(findings.rows, "rows"),
        line(findings.texts, "documents: rows with a text"),
        line(findings.passages, "passages"),
        line(findings.missing, "documents without passages"),
        line(findings.stale, "stale documents, by fingerprint"),
    ];
    if findings.incomplete > 0 {
        lines.push(line(
            findings.incomplete,
            "of these, with a passage that is missing, was changed or has no vector",
        ));
    }
    lines.push(line(
        findings.orphaned,
        "orphaned passages: their row is gone or has no text",
    ));
    if let Some(compared) = findings.compared {
        lines.push(line(
            findings.wrong_vectors,
            &format!("passages with a wrong vector or place, of {compared} embedded again"),
        ));
    }
    lines
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

/// The commands that repair what was found, each with what it does.
fn remedies_of_documents(job: &OpenJob, findings: &DocumentFindings) -> Vec<String> {
    let id = &job.row.id;
    if findings.wrong_vectors > 0 {
        return vec![format!(
            "lantern-cli resync --all --job {id} repairs this: it embeds every passage again. The fingerprints of wrong \
             vectors are those of their passages, so that resync alone does not recognize them."
        )];
    }
    let embeds = match findings.missing + findings.stale {
        0 => None,
        _ => Some("embeds what is missing and stale"),
    };
    let deletes = match findings.orphaned {
        0 => None,
        _ => Some("deletes orphaned passages"),
    };
    let does: Vec<&str> = embeds.into_iter().chain(deletes).collect();
    vec![format!(
        "lantern-cli resync --job {id} repairs this: it {}.",
        does.join(", and ")
    )]
}
