//! Which existing rows a scan is for, and what a starting job has to scan.
//!
//! Two things decide. How far the job has come is in its row of the jobs table. Whether its stream is unbroken, so that
//! no change was missed since, is seen on the target: publication and slot must be as the job left them.
//!
//! ```text
//!                     unbroken              broken
//! new                 initial backfill      initial backfill, unless there are unverified vectors: every row
//! started             initial backfill      every row
//! finished            nothing               every row
//! started again       every row             every row
//! ```
//!
//! An *initial backfill* scans the rows that lack a vector. *Every row* means that nothing tells which vectors are of
//! older texts. With a fingerprint column the rows tell themselves, and both become "rows whose fingerprint does not
//! match". So do the passages of a job that has them.

use crate::jobs::{Definition, InitProgress, JobRow};
use crate::pipeline::error::JobError;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// Which rows a scan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillScope {
    /// Rows with a text and no vector, or with a vector and no text.
    Missing,
    /// Every row with a text or a vector: a vector does not show which text it is of.
    All,
    /// Rows whose fingerprint is not that of their text.
    Mismatched {
        /// Vectors without a fingerprint are taken for right.
        trust_unverified: bool,
    },
}

impl BackfillScope {
    /// What a job has to scan when it starts; `None` for nothing.
    pub fn for_start(
        progress: InitProgress,
        continuity: Continuity,
        definition: &Definition,
    ) -> Option<BackfillScope> {
        let initial = match (progress, continuity) {
            (InitProgress::Finished, Continuity::Unbroken) => return None,
            (InitProgress::New, _) | (InitProgress::Started, Continuity::Unbroken) => true,
            (InitProgress::StartedAgain, _) | (_, Continuity::Broken) => false,
        };
        if !definition.backfill {
            return None;
        }
        // A vector that was trusted at first may have missed changes since.
        let trust_unverified = initial && definition.trust_existing;
        Some(if definition.tells_current_rows() {
            BackfillScope::Mismatched { trust_unverified }
        } else if initial {
            BackfillScope::Missing
        } else {
            BackfillScope::All
        })
    }

    /// What `resync` scans without `--all`: as much as can be told of a row from the row itself.
    pub fn for_resync(definition: &Definition, target: &TargetTable) -> BackfillScope {
        match target.fingerprint.is_some() || target.passages.is_some() {
            true => BackfillScope::Mismatched {
                trust_unverified: definition.trust_existing,
            },
            false => BackfillScope::Missing,
        }
    }

    /// SQL over the row `t` that is true for the rows of this scope.
    pub fn condition(self, target: &TargetTable) -> String {
        if target.passages.is_some() {
            return self.condition_of_documents(target);
        }
        let source = target.source.plain_sql("t");
        let destination = identifier(&target.destination.name);
        match self {
            BackfillScope::Missing => format!("({source} IS NULL) <> (t.{destination} IS NULL)"),
            BackfillScope::All => {
                format!("({source} IS NOT NULL OR t.{destination} IS NOT NULL)")
            }
            BackfillScope::Mismatched { trust_unverified } => {
                let current = target.is_current("t");
                match target.fingerprint.as_ref().filter(|_| trust_unverified) {
                    Some(fingerprint) => format!(
                        "NOT {current} AND NOT ({source} IS NOT NULL AND t.{destination} IS NOT NULL AND {} IS NULL)",
                        fingerprint.column("t")
                    ),
                    None => format!("NOT {current}"),
                }
            }
        }
    }
}

impl BackfillScope {
    /// The same for a job with passages: they are in a table of their own, and say which document they are of.
    fn condition_of_documents(self, target: &TargetTable) -> String {
        match self {
            BackfillScope::Missing | BackfillScope::Mismatched { .. } => {
                format!("NOT {}", target.is_current("t"))
            }
            BackfillScope::All => "true".into(),
        }
    }
}

/// Whether the stream of a job goes on where it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// Publication and slot are in order: no change since the confirmed position is missed.
    Unbroken,
    /// There are none, or they were replaced: changes may have been missed.
    Broken,
}

impl Continuity {
    /// The result of looking at publication and slot.
    pub fn from_check(unbroken: bool) -> Continuity {
        if unbroken {
            Continuity::Unbroken
        } else {
            Continuity::Broken
        }
    }
}

/// Why the existing vectors of a starting job are unverified; `None` where they can be trusted, or where there are
/// none.
///
/// # Errors
/// The server's.
pub async fn unverified_because(
    row: &JobRow,
    continuity: Continuity,
    session: &Session,
    target: &TargetTable,
) -> Result<Option<&'static str>, JobError> {
    let definition = &row.definition;
    Ok(match (row.progress, continuity) {
        (_, Continuity::Unbroken) => None,
        (InitProgress::New, Continuity::Broken) => {
            let trusted = definition.trust_existing || !definition.backfill;
            let tells = target.fingerprint.is_some() || target.passages.is_some();
            let found = !trusted && !tells && has_vectors(session, target).await?;
            found.then_some(
                "the destination holds vectors, and nothing shows which texts they are of",
            )
        }
        (_, Continuity::Broken) => Some("changes may have been missed since the job last ran"),
    })
}

/// What happens to existing rows whose vectors are unverified, as the end of a sentence.
pub fn effect_on_unverified(definition: &Definition) -> &'static str {
    if !definition.backfill {
        "existing rows stay as they are (backfill is false); lantern-cli resync --all embeds them"
    } else if definition.chunk_table.is_some() {
        "documents whose passages are not those of their text are embedded again"
    } else if definition.fingerprint_column.is_some() {
        "rows whose fingerprint is not that of their text are embedded again"
    } else {
        "every row is embedded again"
    }
}

/// Whether any row of the table has a vector, or may have one that a policy hides.
async fn has_vectors(session: &Session, target: &TargetTable) -> Result<bool, JobError> {
    let statement = format!(
        "SELECT row_security_active({}::oid) OR EXISTS (SELECT FROM {} t WHERE t.{} IS NOT NULL)",
        target.oid,
        target.from_clause(),
        identifier(&target.destination.name)
    );
    let row = session.query_one(&statement, &[]).await;
    let found = row.and_then(|row| row.try_get(0));
    let found = found.map_err(DatabaseError::during(format!(
        "looking for vectors in {}",
        target.qualified()
    )))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_stream_after_the_first_start_means_every_row() {
        use Continuity::*;
        use InitProgress::*;
        let for_start = BackfillScope::for_start;
        let mut definition = JobRow::example("1").definition;
        assert_eq!(
            for_start(New, Broken, &definition),
            Some(BackfillScope::Missing)
        );
        assert_eq!(
            for_start(Started, Unbroken, &definition),
            Some(BackfillScope::Missing)
        );
        assert_eq!(
            for_start(Started, Broken, &definition),
            Some(BackfillScope::All)
        );
        assert_eq!(for_start(Finished, Unbroken, &definition), None);
        assert_eq!(
            for_start(Finished, Broken, &definition),
            Some(BackfillScope::All)
        );
        assert_eq!(
            for_start(StartedAgain, Unbroken, &definition),
            Some(BackfillScope::All)
        );
        definition.trust_existing = true;
        assert_eq!(
            for_start(New, Broken, &definition),
            Some(BackfillScope::Missing)
        );
        assert_eq!(
            for_start(Finished, Broken, &definition),
            Some(BackfillScope::All)
        );
        definition.fingerprint_column = Some("f".into());
        for (progress, trust_unverified) in [(New, true), (Finished, false)] {
            assert_eq!(
                for_start(progress, Broken, &definition),
                Some(BackfillScope::Mismatched { trust_unverified })
            );
        }
        definition.fingerprint_column = None;
        definition.chunk_table = Some("docs_chunks".into());
        assert!(matches!(
            for_start(New, Broken, &definition),
            Some(BackfillScope::Mismatched { .. })
        ));
        definition.backfill = false;
        assert_eq!(for_start(Finished, Broken, &definition), None);
    }
}
