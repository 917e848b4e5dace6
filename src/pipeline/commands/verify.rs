//! Counting the rows whose vectors are not what they should be.
//!
//! ```text
//! by SQL         one scan inside the server: missing, leftover, and with fingerprints stale vectors
//! by embedding   texts are embedded again and compared: a sample of them, or all
//! ```
//!
//! A daemon may be at work meanwhile, and then some rows are wrong for a moment. So rows that look wrong are looked at
//! once more after a pause, and only those that are wrong both times count.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::Serialize;

use crate::embedding::{Engine, Model, TextRole};
use crate::pipeline::backfill::keyset::KeysetPages;
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::error::JobError;
use crate::pipeline::table::key_sql::parameters;
use crate::pipeline::table::row::Key;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::table::text;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// The pause before rows that look wrong are looked at again.
pub(super) const RECHECK_DELAY: Duration = Duration::from_secs(3);
/// The most rows that SQL looks at again. Where more look wrong, a daemon at work is not the reason.
pub(super) const MAX_RECHECKED: i64 = 10_000;
/// Rows that are embedded again at a time: enough for full batches, and for a progress that moves.
const COMPARED_ROWS: usize = 512;
/// Rows that are embedded again at a time, when they are looked at once more.
pub(super) const RECHECK_ROWS: usize = 256;
/// How far a vector may be from the one that is computed now, as a share of its length. `halfvec` rounds to 5e-4. The
/// vector of another text is ten times farther away than this.
const TOLERANCE: f32 = 0.01;

/// How much is embedded again where no fingerprint can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// About this many texts, chosen at random; with a fingerprint column none.
    Sample(NonZeroU64),
    /// Every text, with a fingerprint column too.
    Everything,
}

/// The vectors to look at, and what it takes to compute them.
#[derive(Clone, Copy)]
pub struct Vectors<'a> {
    /// A session to the target database.
    pub session: &'a Session,
    /// The target table.
    pub target: &'a TargetTable,
    /// The embedding engine.
    pub engine: &'a Engine,
    /// The job's model.
    pub model: &'a Model,
    /// What `resync` would scan.
    pub resync: BackfillScope,
}

/// What a comparison with vectors that were computed again has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Comparison {
    /// Texts that were embedded again.
    pub compared: u64,
    /// Vectors among them that are not of the row's text.
    pub stale: u64,
    /// Of these, those that `resync` does not recognize without `--all`.
    pub only_by_all: u64,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Rows of the table.
    pub rows: u64,
    /// Rows with a text.
    pub texts: u64,
    /// Texts without a vector.
    pub missing: u64,
    /// Vectors without a text.
    pub leftover: u64,
    /// Vectors that are not of the row's text. Without fingerprints: among those compared.
    pub stale: u64,
    /// Vectors without a fingerprint, of which SQL cannot tell whether they are stale.
    pub unverified: u64,
    /// Texts that were embedded again for comparison; `None` where fingerprints told.
    pub compared: Option<u64>,
    /// Stale vectors that `resync` does not recognize without `--all`.
    pub only_by_all: u64,
}

impl Findings {
    /// Whether every vector that was looked at is right.
    pub fn is_sound(&self) -> bool {
        self.missing + self.leftover + self.stale == 0
    }
}

/// How far a comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// Texts that were embedded again.
    pub done: u64,
    /// About how many there will be.
    pub total: u64,
}

/// Looks at every row, and at some or all vectors. `report` is told of each step where texts are embedded again.
///
/// # Errors
/// The server's, or the embedding engine's.
///
/// Cancellation safe: it only reads.
pub async fn verify(
    vectors: Vectors<'_>,
    extent: Extent,
    report: impl FnMut(Compared),
) -> Result<Findings, JobError> {
    refuse_hidden_rows(vectors).await?;
    let mut findings = by_sql(vectors.session, vectors.target).await?;
    let wanted = match extent {
        Extent::Everything => findings.texts,
        Extent::Sample(_) if vectors.target.fingerprint.is_some() => return Ok(findings),
        Extent::Sample(sample) => sample.get(),
    };
    let part = Share::new(wanted, &findings);
    let comparison = by_embedding(vectors, part, report).await?;
    findings.compared = Some(comparison.compared);
    findings.stale = findings.stale.max(comparison.stale);
    findings.only_by_all = comparison.only_by_all;
    Ok(findings)
}

/// Embeds a sample of the texts again and compares, whether the table has fingerprints or not. `report` is told of each
/// step.
///
/// # Errors
/// The server's, or the embedding engine's.
///
/// Cancellation safe: it only reads.
pub async fn compare_sample(
    vectors: Vectors<'_>,
    sample: NonZeroU64,
    report: impl FnMut(Compared),
) -> Result<Comparison, JobError> {
    refuse_hidden_rows(vectors).await?;
    let found = tally(vectors.session, vectors.target, None).await?;
    by_embedding(vectors, Share::new(sample.get(), &found), report).await
}

/// A policy may come while the rows are counted, and what it hides would pass for right.
pub(super) async fn refuse_hidden_rows(vectors: Vectors<'_>) -> Result<(), JobError> {
    let refused = vectors.session.refuse_hidden_rows().await;
    Ok(refused.map_err(scanning(vectors.target))?)
}

/// Which part of the texts is embedded again.
#[derive(Clone, Copy)]
struct Share {
    fraction: f64,
    /// About how many texts that are: those with a vector.
    texts: u64,
}

impl Share {
    /// About so many of the texts that were counted.
    fn new(wanted: u64, counted: &Findings) -> Share {
        let fraction = wanted as f64 / counted.texts.max(1) as f64;
        let pairs = counted.texts.saturating_sub(counted.missing);
        Share {
            fraction,
            texts: (pairs as f64 * fraction.min(1.0)).round() as u64,
        }
    }
}

/// Embeds about this share of the texts again.
async fn by_embedding(
    vectors: Vectors<'_>,
    share: Share,
    mut report: impl FnMut(Compared),
) -> Result<Comparison, JobError> {
    let Vectors {
        session, target, ..
    } = vectors;
    let fraction = share.fraction;
    let condition = format!("{} AND random() < {fraction}::float8", has_pair(target));
    let pages = KeysetPages::new(session, target, condition);
    let mut pages = pages.with_column(vector_column(target));
    let mut found = Comparison::default();
    let mut differing = Vec::new();
    loop {
        let page = pages.next().await?;
        if page.is_empty() {
            break;
        }
        let pairs = page.iter().map(|row| read_pair(target, row));
        let pairs: Vec<Pair> = pairs.collect::<Result<_, _>>().map_err(scanning(target))?;
        let mut pairs = pairs.into_iter().peekable();
        while pairs.peek().is_some() {
            let some: Vec<Pair> = pairs.by_ref().take(COMPARED_ROWS).collect();
            found.compared += some.len() as u64;
            differing.extend(differences(vectors, some).await?);
            report(Compared {
                done: found.compared,
                total: share.texts,
            });
        }
    }
    if !differing.is_empty() {
        tokio::time::sleep(RECHECK_DELAY).await;
    }
    for keys in differing.chunks(RECHECK_ROWS) {
        let pairs = pairs_by_key(session, target, keys).await?;
        let stale = differences(vectors, pairs).await?;
        found.stale += stale.len() as u64;
        found.only_by_all += beyond_resync(vectors, &stale).await?;
    }
    Ok(found)
}

/// How many of these rows `resync` does not scan.
async fn beyond_resync(vectors: Vectors<'_>, keys: &[Key]) -> Result<u64, JobError> {
    let target = vectors.target;
    let statement = format!(
        "SELECT count(*) FROM {} WHERE NOT ({})",
        joined_by_key(target),
        vectors.resync.condition(target)
    );
    let arrays = target.key_arrays(keys);
    let (session, arrays) = (vectors.session, parameters(&arrays));
    let counted = session.query_one(&statement, &arrays).await;
    let counted = counted.and_then(|row| row.try_get::<_, i64>(0));
    Ok(counted.map_err(scanning(target))?.unsigned_abs())
}

/// What SQL alone can tell of each row, in one scan, and once more of rows that look wrong.
async fn by_sql(session: &Session, target: &TargetTable) -> Result<Findings, JobError> {
    let findings = tally(session, target, None).await?;
    if findings.is_sound() {
        return Ok(findings);
    }
    let suspects = suspects(session, target).await?;
    if suspects.len() >= MAX_RECHECKED as usize {
        return Ok(findings);
    }
    tokio::time::sleep(RECHECK_DELAY).await;
    let again = tally(session, target, Some(&suspects)).await?;
    Ok(Findings {
        missing: again.missing,
        leftover: again.leftover,
        stale: again.stale,
        ..findings
    })
}

/// Counts the faults of all rows, or of those `among` some keys.
async fn tally(
    session: &Session,
    target: &TargetTable,
    among: Option<&[Key]>,
) -> Result<Findings, JobError> {
    let faults = Faults::new(target);
    let statement = format!(
        "SELECT count(*), count(*) FILTER (WHERE {source} IS NOT NULL), {columns} FROM {table}",
        source = target.source.plain_sql("t"),
        columns = [
            faults.missing,
            faults.leftover,
            faults.stale,
            faults.unverified
        ]
        .map(|fault| format!("count(*) FILTER (WHERE {fault})"))
        .join(", "),
        table = match among {
            None => format!("{} t", target.from_clause()),
            Some(_) => joined_by_key(target),
        },
    );
    let arrays = among.map(|keys| target.key_arrays(keys));
    let findings = session
        .query_one(
            &statement,
            &parameters(arrays.as_deref().unwrap_or_default()),
        )
        .await
        .and_then(|row| findings(&row))
        .map_err(scanning(target))?;
    Ok(findings)
}

fn findings(row: &tokio_postgres::Row) -> Result<Findings, tokio_postgres::Error> {
    let count = |index: usize| row.try_get::<_, i64>(index).map(i64::unsigned_abs);
    Ok(Findings {
        rows: count(0)?,
        texts: count(1)?,
        missing: count(2)?,
        leftover: count(3)?,
        stale: count(4)?,
        unverified: count(5)?,
        compared: None,
        only_by_all: 0,
    })
}

/// The keys of rows that look wrong.
async fn suspects(session: &Session, target: &TargetTable) -> Result<Vec<Key>, JobError> {
    let Faults {
        missing,
        leftover,
        stale,
        ..
    } = Faults::new(target);
    let statement = format!(
        "SELECT {} FROM {} t WHERE {missing} OR {leftover} OR {stale} LIMIT {MAX_RECHECKED}",
        target.key_texts("t"),
        target.from_clause(),
    );
    let rows = session.query(&statement, &[]).await;
    let keys = rows.and_then(|rows| rows.iter().map(|row| target.read_key(row)).collect());
    Ok(keys.map_err(scanning(target))?)
}

/// SQL over the row `t`, true where it has the fault.
struct Faults {
    missing: String,
    leftover: String,
    stale: String,
    unverified: String,
}

impl Faults {
    fn new(target: &TargetTable) -> Self {
        let source = target.source.plain_sql("t");
        let destination = format!("t.{}", identifier(&target.destination.name));
        let pair = has_pair(target);
        let (stale, unverified) = match &target.fingerprint {
            Some(fingerprint) => {
                let column = fingerprint.column("t");
                let expected = fingerprint.expected(&target.source.sql("t"));
                (
                    format!("({pair} AND {column} <> {expected})"),
                    format!("({pair} AND {column} IS NULL)"),
                )
            }
            None => ("false".into(), "false".into()),
        };
        Faults {
            missing: format!("({source} IS NOT NULL AND {destination} IS NULL)"),
            leftover: format!("({source} IS NULL AND {destination} IS NOT NULL)"),
            stale,
            unverified,
        }
    }
}

/// A row with a text and a vector.
pub(super) struct Pair {
    pub key: Key,
    /// A long one is cut: no model reads the rest.
    pub text: String,
    pub vector: Vec<f32>,
}

/// The texts and vectors of the rows with these keys, as far as they still have both.
async fn pairs_by_key(
    session: &Session,
    target: &TargetTable,
    keys: &[Key],
) -> Result<Vec<Pair>, JobError> {
    let statement = format!(
        "SELECT {}, {}, {} FROM {} WHERE {}",
        target.key_texts("t"),
        text::sql(&target.source.sql("t")),
        vector_column(target),
        joined_by_key(target),
        has_pair(target)
    );
    let arrays = target.key_arrays(keys);
    let rows = session.query(&statement, &parameters(&arrays)).await;
    let pairs = rows.and_then(|rows| rows.iter().map(|row| read_pair(target, row)).collect());
    Ok(pairs.map_err(scanning(target))?)
}

/// The keys of rows whose vector is not that of their text. A text that cannot be embedded has none.
pub(super) async fn differences(
    vectors: Vectors<'_>,
    pairs: Vec<Pair>,
) -> Result<Vec<Key>, JobError> {
    let texts: BTreeMap<&str, usize> = pairs.iter().map(|pair| (pair.text.as_str(), 0)).collect();
    let places: BTreeMap<&str, usize> = texts.into_keys().zip(0..).collect();
    let texts = places.keys().map(|text| (*text).to_owned()).collect();
    let (engine, model) = (vectors.engine, vectors.model);
    let embedded = engine.embed_each(model, TextRole::Document, texts).await?;
    let mut right = Vec::with_capacity(embedded.len());
    for text in embedded {
        right.push(match text.vector {
            Ok(vector) => Some(vector),
            Err(error) if error.concerns_one_text() => None,
            Err(error) => return Err(error.into()),
        });
    }
    let wrong = pairs.iter().filter(|pair| {
        let right = right[places[pair.text.as_str()]].as_deref();
        right.is_none_or(|right| is_far(right, &pair.vector))
    });
    Ok(wrong.map(|pair| pair.key.clone()).collect())
}

fn is_far(expected: &[f32], found: &[f32]) -> bool {
    let square =
        |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>();
    let distance = square(&mut expected.iter().zip(found).map(|(a, b)| a - b));
    let length = square(&mut expected.iter().copied());
    // A vector with NaN in it is far from everything.
    expected.len() != found.len()
        || distance.is_nan()
        || distance.sqrt() > TOLERANCE * length.sqrt()
}

/// Every type of vector, as numbers that a client can read.
fn vector_column(target: &TargetTable) -> String {
    format!("t.{}::real[]", identifier(&target.destination.name))
}

fn has_pair(target: &TargetTable) -> String {
    format!(
        "{} IS NOT NULL AND t.{} IS NOT NULL",
        target.source.plain_sql("t"),
        identifier(&target.destination.name)
    )
}

/// The rows with given keys, as a FROM clause. Its parameters are [`key_arrays`](TargetTable::key_arrays).
pub(super) fn joined_by_key(target: &TargetTable) -> String {
    format!(
        "(SELECT {} FROM {}) i JOIN {} t ON {}",
        target.key_casts("u"),
        target.unnest_keys(&[]),
        target.from_clause(),
        target.key_join("t", "i")
    )
}

/// A row of key, source ([`text::sql`]) and vector.
fn read_pair(
    target: &TargetTable,
    row: &tokio_postgres::Row,
) -> Result<Pair, tokio_postgres::Error> {
    let keys = target.key.len();
    Ok(Pair {
        key: target.read_key(row)?,
        text: row.try_get(keys)?,
        vector: row.try_get(keys + 2)?,
    })
}

fn scanning(target: &TargetTable) -> impl FnOnce(tokio_postgres::Error) -> DatabaseError {
    DatabaseError::during(format!("scanning {}", target.qualified()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounded_vector_is_near_and_another_one_is_far() {
        assert!(!is_far(&[0.6, 0.8], &[0.6003, 0.7996]));
        assert!(is_far(&[0.6, 0.8], &[0.8, 0.6]));
        assert!(is_far(&[0.6, 0.8], &[0.6]));
        assert!(is_far(&[0.6, 0.8], &[0.6, f32::NAN]));
    }
}
