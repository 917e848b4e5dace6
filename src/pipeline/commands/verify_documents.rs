//! Counting the documents whose passages are not what they should be.
//!
//! ```text
//! by SQL         one scan of the documents with their passages: missing, stale and incomplete ones; one of the passages:
//!                those without a document
//! by embedding   passages are embedded again and compared: a sample of them, or all
//! ```
//!
//! As for rows ([`verify`](super::verify)), what looks wrong is looked at once more after a pause.

use serde::Serialize;

use super::verify::{
    Compared, Extent, MAX_RECHECKED, Pair, RECHECK_DELAY, RECHECK_ROWS, Vectors, differences,
    joined_by_key, refuse_hidden_rows,
};
use crate::pipeline::commands::passage_pages::{PassagePages, SampledPassage, passages_by_key};
use crate::pipeline::error::JobError;
use crate::pipeline::table::key_sql::parameters;
use crate::pipeline::table::passages::PassageTable;
use crate::pipeline::table::row::Key;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{DatabaseError, Session};

/// What was found of a job with passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DocumentFindings {
    /// Rows of the table with the texts.
    pub rows: u64,
    /// Rows with a text: documents.
    pub texts: u64,
    /// Passages of the chunk table.
    pub passages: u64,
    /// Documents without passages.
    pub missing: u64,
    /// Documents with passages that are not those of their text.
    pub stale: u64,
    /// Of the stale ones, those whose passages are of the right text, but one is missing, has no vector or was changed.
    pub incomplete: u64,
    /// Passages of rows that are gone or have no text.
    pub orphaned: u64,
    /// Passages that were embedded again for comparison; `None` where fingerprints told.
    pub compared: Option<u64>,
    /// Of these, passages whose vector or place is wrong, although their fingerprints are right.
    pub wrong_vectors: u64,
}

impl DocumentFindings {
    /// Whether all that was looked at is right.
    pub fn is_sound(&self) -> bool {
        self.is_sound_by_sql() && self.wrong_vectors == 0
    }

    /// Whether all is right as far as fingerprints tell, which is what `resync` repairs without `--all`.
    pub fn is_sound_by_sql(&self) -> bool {
        self.missing + self.stale + self.orphaned == 0
    }
}

/// Looks at every document with its passages, and embeds some or all passages again where an `extent` asks for it. `report`
/// is told of each step of that.
///
/// # Errors
/// The server's, or the embedding engine's.
///
/// Cancellation safe: it only reads.
pub async fn verify_documents(
    vectors: Vectors<'_>,
    passages: &PassageTable,
    extent: Option<Extent>,
    report: impl FnMut(Compared),
) -> Result<DocumentFindings, JobError> {
    refuse_hidden_rows(vectors).await?;
    let documents = Documents {
        session: vectors.session,
        target: vectors.target,
        passages,
    };
    let mut findings = documents.by_sql().await?;
    let wanted = match extent {
        None => return Ok(findings),
        Some(Extent::Everything) => findings.passages,
        Some(Extent::Sample(sample)) => sample.get(),
    };
    let comparison = by_embedding(vectors, passages, wanted, findings.passages, report).await?;
    Ok(DocumentFindings {
        compared: Some(comparison.compared),
        wrong_vectors: comparison.wrong,
        ..std::mem::take(&mut findings)
    })
}

/// The documents of a job and their passages.
#[derive(Clone, Copy)]
struct Documents<'a> {
    session: &'a Session,
    target: &'a TargetTable,
    passages: &'a PassageTable,
}

/// Keys of rows that look wrong, and of passages whose row is gone.
struct Suspects {
    rows: Vec<Key>,
    gone: Vec<Key>,
}

impl Documents<'_> {
    /// What SQL alone can tell, and once more of what looks wrong.
    async fn by_sql(self) -> Result<DocumentFindings, JobError> {
        let findings = self.tally(None).await?;
        if findings.is_sound() {
            return Ok(findings);
        }
        let suspects = self.suspects().await?;
        let count = suspects.rows.len().max(suspects.gone.len());
        if count >= MAX_RECHECKED as usize {
            return Ok(findings);
        }
        tokio::time::sleep(RECHECK_DELAY).await;
        let again = self.tally(Some(&suspects)).await?;
        Ok(DocumentFindings {
            missing: again.missing,
            stale: again.stale,
            incomplete: again.incomplete,
            orphaned: again.orphaned,
            ..findings
        })
    }

    /// Counts the faults of all documents and passages, or of those `among` some keys.
    async fn tally(self, among: Option<&Suspects>) -> Result<DocumentFindings, JobError> {
        let (rows, gone) = match among {
            Some(suspects) => (Some(&suspects.rows[..]), Some(&suspects.gone[..])),
            None => (None, None),
        };
        let mut findings = self.tally_rows(rows).await?;
        let orphaned = self.count_of_gone_rows(gone).await?;
        findings.orphaned += orphaned;
        findings.passages += orphaned;
        Ok(findings)
    }

    async fn tally_rows(self, among: Option<&[Key]>) -> Result<DocumentFindings, JobError> {
        let Documents {
            target, passages, ..
        } = self;
        let statement = format!(
            "SELECT count(*), count(*) FILTER (WHERE f.has_text), COALESCE(sum(f.passages), 0)::bigint, \
                    count(*) FILTER (WHERE f.has_text AND f.passages = 0), \
                    count(*) FILTER (WHERE f.has_text AND f.passages > 0 AND NOT (f.is_of_text AND f.is_whole)), \
                    count(*) FILTER (WHERE f.has_text AND f.is_of_text AND NOT f.is_whole), \
                    COALESCE(sum(f.passages) FILTER (WHERE NOT f.has_text), 0)::bigint \
             FROM {rows} CROSS JOIN LATERAL ( \
               SELECT {text} IS NOT NULL AS has_text, count(*) AS passages, COALESCE({is_whole}, false) AS is_whole, \
                      COALESCE({is_of_text}, false) AS is_of_text \
               FROM {table} p WHERE {of_row}) f",
            rows = match among {
                None => format!("{} t", target.from_clause()),
                Some(_) => joined_by_key(target),
            },
            text = target.source.plain_sql("t"),
            is_whole = target.is_whole_set(passages, "p", "t"),
            is_of_text = target.is_of_text(passages, "p", "t"),
            table = passages.qualified(),
            of_row = passages.is_of(&target.key, "p", "t"),
        );
        let arrays = among.map(|keys| target.key_arrays(keys));
        let arrays = arrays.unwrap_or_default();
        let row = self
            .session
            .query_one(&statement, &parameters(&arrays))
            .await;
        let findings = row.and_then(|row| {
            let count = |index: usize| row.try_get::<_, i64>(index).map(i64::unsigned_abs);
            Ok(DocumentFindings {
                rows: count(0)?,
                texts: count(1)?,
                passages: count(2)?,
                missing: count(3)?,
                stale: count(4)?,
                incomplete: count(5)?,
                orphaned: count(6)?,
                ..DocumentFindings::default()
            })
        });
        Ok(findings.map_err(self.scanning())?)
    }

    /// Passages whose row is gone.
    async fn count_of_gone_rows(self, among: Option<&[Key]>) -> Result<u64, JobError> {
        let Documents { target, .. } = self;
        let statement = format!(
            "SELECT count(*) FROM {} WHERE {}",
            match among {
                None => format!("{} p", self.passages.qualified()),
                Some(_) => format!(
                    "(SELECT {} FROM {}) i JOIN {} p ON {}",
                    target.key_casts("u"),
                    target.unnest_keys(&[]),
                    self.passages.qualified(),
                    target.key_join("p", "i")
                ),
            },
            self.is_gone()
        );
        let arrays = among.map(|keys| target.key_arrays(keys));
        let arrays = arrays.unwrap_or_default();
        let counted = self
            .session
            .query_one(&statement, &parameters(&arrays))
            .await;
        let counted = counted.and_then(|row| row.try_get::<_, i64>(0));
        Ok(counted.map_err(self.scanning())?.unsigned_abs())
    }

    /// SQL that is true where the passage `p` has no row.
    fn is_gone(self) -> String {
        format!(
            "NOT EXISTS (SELECT FROM {} t WHERE {})",
            self.target.from_clause(),
            self.passages.is_of(&self.target.key, "p", "t")
        )
    }

    async fn suspects(self) -> Result<Suspects, JobError> {
        let Documents { target, .. } = self;
        let rows = format!(
            "SELECT {} FROM {} t WHERE NOT {} LIMIT {MAX_RECHECKED}",
            target.key_texts("t"),
            target.from_clause(),
            target.has_whole_passages(self.passages, "t"),
        );
        let gone = format!(
            "SELECT DISTINCT {} FROM {} p WHERE {} LIMIT {MAX_RECHECKED}",
            target.key_texts("p"),
            self.passages.qualified(),
            self.is_gone()
        );
        Ok(Suspects {
            rows: self.keys(&rows).await?,
            gone: self.keys(&gone).await?,
        })
    }

    async fn keys(self, statement: &str) -> Result<Vec<Key>, JobError> {
        let rows = self.session.query(statement, &[]).await;
        let target = self.target;
        let keys = rows.and_then(|rows| rows.iter().map(|row| target.read_key(row)).collect());
        Ok(keys.map_err(self.scanning())?)
    }

    fn scanning(self) -> impl FnOnce(tokio_postgres::Error) -> DatabaseError {
        DatabaseError::during(format!(
            "scanning {} with {}",
            self.target.qualified(),
            self.passages.qualified()
        ))
    }
}

/// What a comparison with vectors that were computed again has found.
#[derive(Default)]
struct Comparison {
    compared: u64,
    wrong: u64,
}

/// Embeds about `wanted` of the `stored` passages again.
async fn by_embedding(
    vectors: Vectors<'_>,
    passages: &PassageTable,
    wanted: u64,
    stored: u64,
    mut report: impl FnMut(Compared),
) -> Result<Comparison, JobError> {
    let share = (wanted as f64 / stored.max(1) as f64).min(1.0);
    let total = (stored as f64 * share).round() as u64;
    let mut pages = PassagePages::new(vectors.session, vectors.target, passages, share);
    let mut found = Comparison::default();
    let mut suspects = Vec::new();
    while let Some(page) = pages.next().await? {
        found.compared += page.len() as u64;
        suspects.extend(wrong_among(vectors, page).await?);
        report(Compared {
            done: found.compared,
            total,
        });
    }
    if !suspects.is_empty() {
        tokio::time::sleep(RECHECK_DELAY).await;
    }
    for keys in suspects.chunks(RECHECK_ROWS) {
        let again = passages_by_key(vectors.session, vectors.target, passages, keys).await?;
        found.wrong += wrong_among(vectors, again).await?.len() as u64;
    }
    Ok(found)
}

/// The keys of passages whose place is not that of their text, or whose vector is that of another one.
async fn wrong_among(
    vectors: Vectors<'_>,
    page: Vec<SampledPassage>,
) -> Result<Vec<Key>, JobError> {
    let (placed, misplaced): (Vec<_>, Vec<_>) =
        page.into_iter().partition(|passage| passage.is_in_place);
    let pairs: Vec<Pair> = placed.into_iter().map(|passage| passage.pair).collect();
    let mut wrong = differences(vectors, pairs).await?;
    wrong.extend(misplaced.into_iter().map(|passage| passage.pair.key));
    Ok(wrong)
}
