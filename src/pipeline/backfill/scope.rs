//! Which of the rows that are there already a starting job has to look at.

use crate::jobs::{Definition, InitProgress, JobRow};
use crate::pipeline::error::JobError;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::DatabaseError;
use crate::postgres::Session;
use crate::postgres::quote::identifier;

/// Which rows a scan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillScope {
    /// Rows whose destination does not fit their source at first sight: a text without a vector, or a vector without a text.
    Missing,
    /// Every row with a text or a vector: changes may have been missed, and a vector does not show which text it is of.
    All,
    /// Rows whose fingerprint is not that of their text. With `trust_unverified`, vectors without a fingerprint are taken for right.
    Mismatched { trust_unverified: bool },
}

/// What is there of a job on its target server when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// Publication and slot are in order: no change since the confirmed position is missed.
    Unbroken,
    /// Nothing, or parts that cannot be gone on with: changes may have been missed.
    Broken,
}

impl Continuity {
    pub fn from_check(unbroken: bool) -> Continuity {
        if unbroken {
            Continuity::Unbroken
        } else {
            Continuity::Broken
        }
    }
}

/// Why the vectors that are there cannot be taken for right as they are; `None` where they can, or where there are none.
pub async fn why_again(
    row: &JobRow,
    standing: Continuity,
    session: &Session,
    target: &TargetTable,
) -> Result<Option<&'static str>, JobError> {
    let definition = &row.definition;
    Ok(match (row.progress, standing) {
        (_, Continuity::Unbroken) => None,
        (InitProgress::New, Continuity::Broken) => {
            let trusted = definition.trust_existing || !definition.backfill;
            let found =
                !trusted && target.fingerprint.is_none() && has_vectors(session, target).await?;
            found.then_some("the destination holds vectors, and nothing says of which texts")
        }
        (_, Continuity::Broken) => Some("changes may have been missed since the job last ran"),
    })
}

/// What becomes of the existing rows when nothing vouches for their vectors, as the end of a sentence.
pub fn again(definition: &Definition) -> &'static str {
    if !definition.backfill {
        "rows that are there stay as they are (backfill is false); lantern-cli resync --all embeds them"
    } else if definition.fingerprint_column.is_some() {
        "rows whose fingerprint is not that of their text are embedded again"
    } else {
        "every row is embedded again"
    }
}

/// Which existing rows have to be looked at, given how far the job was and whether the stream since then is unbroken.
pub fn of(
    progress: InitProgress,
    standing: Continuity,
    definition: &Definition,
) -> Option<BackfillScope> {
    let first_run = match (progress, standing) {
        (InitProgress::Finished, Continuity::Unbroken) => return None,
        (InitProgress::New, _) | (InitProgress::Started, Continuity::Unbroken) => true,
        (InitProgress::StartedAgain, _) | (_, Continuity::Broken) => false,
    };
    if !definition.backfill {
        return None;
    }
    // What was trusted once may have missed changes since.
    let trust_unverified = first_run && definition.trust_existing;
    Some(if definition.fingerprint_column.is_some() {
        BackfillScope::Mismatched { trust_unverified }
    } else if first_run {
        BackfillScope::Missing
    } else {
        BackfillScope::All
    })
}

/// Whether any row of the table has a vector.
///
/// # Errors
/// The server's.
pub async fn has_vectors(session: &Session, target: &TargetTable) -> Result<bool, JobError> {
    let statement = format!(
        "SELECT EXISTS (SELECT FROM {} t WHERE t.{} IS NOT NULL)",
        target.from_clause(),
        identifier(&target.destination.name)
    );
    let row = session
        .query_one(&statement, &[])
        .await
        .map_err(DatabaseError::during(format!(
            "looking for vectors in {}",
            target.qualified()
        )))?;
    Ok(row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_stream_after_the_first_start_means_every_row() {
        use Continuity::*;
        use InitProgress::*;
        let mut definition = JobRow::example("1").definition;
        assert_eq!(of(New, Broken, &definition), Some(BackfillScope::Missing));
        assert_eq!(
            of(Started, Unbroken, &definition),
            Some(BackfillScope::Missing)
        );
        assert_eq!(of(Started, Broken, &definition), Some(BackfillScope::All));
        assert_eq!(of(Finished, Unbroken, &definition), None);
        assert_eq!(of(Finished, Broken, &definition), Some(BackfillScope::All));
        assert_eq!(
            of(StartedAgain, Unbroken, &definition),
            Some(BackfillScope::All)
        );
        definition.trust_existing = true;
        assert_eq!(of(New, Broken, &definition), Some(BackfillScope::Missing));
        assert_eq!(of(Finished, Broken, &definition), Some(BackfillScope::All));
        definition.fingerprint_column = Some("f".into());
        for (progress, trust_unverified) in [(New, true), (Finished, false)] {
            assert_eq!(
                of(progress, Broken, &definition),
                Some(BackfillScope::Mismatched { trust_unverified })
            );
        }
        definition.backfill = false;
        assert_eq!(of(Finished, Broken, &definition), None);
    }
}
