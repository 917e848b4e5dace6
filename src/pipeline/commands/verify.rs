//! Counting the rows whose vectors are not what they should be.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::Serialize;
use tokio_postgres::types::ToSql;

use crate::embedding::{Engine, Model, TextRole};
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::Key;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// Rows that look wrong are looked at again after this long: a daemon may have been at them.
const SETTLE: Duration = Duration::from_secs(3);
/// So many rows are looked at again at most.
const MOST_AGAIN: i64 = 10_000;
/// Rows that are embedded again at a time.
const PAGE_ROWS: usize = 256;
/// How far a vector may be from the one that is computed now, as a share of its length. `halfvec` rounds to 5e-4; another
/// text is ten times farther away than this.
const TOLERANCE: f32 = 0.01;

/// How much is embedded again where no fingerprint can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// About so many texts, chosen at random; with a fingerprint column none.
    Sample(NonZeroU64),
    /// Every text, with a fingerprint column too.
    Everything,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Findings {
    pub rows: u64,
    /// Rows with a text.
    pub texts: u64,
    /// Texts without a vector.
    pub missing: u64,
    /// Vectors without a text.
    pub leftover: u64,
    /// Vectors that are not of the row's text. Without fingerprints: among those compared.
    pub stale: u64,
    /// Vectors without a fingerprint, which nobody vouches for.
    pub unmarked: u64,
    /// Texts that were embedded again for comparison; `None` where fingerprints told.
    pub compared: Option<u64>,
}

impl Findings {
    /// Whether every vector that was looked at is right.
    pub fn is_sound(&self) -> bool {
        self.missing + self.leftover + self.stale == 0
    }
}

/// Looks at every row, and at some or all vectors.
///
/// # Errors
/// The server's, or the embedder's.
pub async fn verify(
    session: &Session,
    target: &TargetTable,
    engine: &Engine,
    model: &Model,
    extent: Extent,
) -> Result<Findings, JobError> {
    let mut findings = by_sql(session, target).await?;
    let share = match extent {
        Extent::Everything => 1.0,
        Extent::Sample(_) if target.fingerprint.is_some() => return Ok(findings),
        Extent::Sample(sample) => sample.get() as f64 / findings.texts.max(1) as f64,
    };
    let mut compared = 0;
    let mut differing = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let page = page(session, target, after.as_ref(), share).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        compared += page.len() as u64;
        differing.extend(differences(engine, model, page).await?);
    }
    if !differing.is_empty() {
        tokio::time::sleep(SETTLE).await;
    }
    let mut stale = 0;
    for keys in differing.chunks(PAGE_ROWS) {
        let again = by_keys(session, target, keys).await?;
        stale += differences(engine, model, again).await?.len() as u64;
    }
    findings.compared = Some(compared);
    findings.stale = findings.stale.max(stale);
    Ok(findings)
}

/// What SQL alone can tell of each row, in one scan; and once more of rows that seem wrong.
async fn by_sql(session: &Session, target: &TargetTable) -> Result<Findings, JobError> {
    let mut findings = tally(session, target, None).await?;
    if !findings.is_sound() {
        let suspects = suspects(session, target).await?;
        if suspects.len() < MOST_AGAIN as usize {
            tokio::time::sleep(SETTLE).await;
            let again = tally(session, target, Some(&suspects)).await?;
            findings = Findings {
                missing: again.missing,
                leftover: again.leftover,
                stale: again.stale,
                ..findings
            };
        }
    }
    Ok(findings)
}

async fn tally(
    session: &Session,
    target: &TargetTable,
    among: Option<&[Key]>,
) -> Result<Findings, JobError> {
    let columns: Vec<String> = faults(target)
        .iter()
        .map(|fault| format!("count(*) FILTER (WHERE {fault})"))
        .collect();
    let statement = format!(
        "SELECT count(*), count(*) FILTER (WHERE {source} IS NOT NULL), {columns} FROM {table}",
        source = target.source.sql("t"),
        columns = columns.join(", "),
        table = match among {
            None => format!("{} t", target.from_clause()),
            Some(_) => keyed(target),
        },
    );
    let arrays = among
        .map(|keys| key_columns(target, keys))
        .unwrap_or_default();
    let row = session
        .query_one(&statement, &parameters(&arrays))
        .await
        .map_err(scanning(target))?;
    let count = |index: usize| row.get::<_, i64>(index).unsigned_abs();
    Ok(Findings {
        rows: count(0),
        texts: count(1),
        missing: count(2),
        leftover: count(3),
        stale: count(4),
        unmarked: count(5),
        compared: None,
    })
}

/// The keys of rows that seem wrong.
async fn suspects(session: &Session, target: &TargetTable) -> Result<Vec<Key>, JobError> {
    let [missing, leftover, stale, _] = faults(target);
    let statement = format!(
        "SELECT {} FROM {} t WHERE {missing} OR {leftover} OR {stale} LIMIT {MOST_AGAIN}",
        target.key_texts("t"),
        target.from_clause(),
    );
    let rows = session
        .query(&statement, &[])
        .await
        .map_err(scanning(target))?;
    Ok(rows.iter().map(|row| key(target, row)).collect())
}

/// SQL for what can be wrong with a row: no vector, no text, another text's vector; and for a vector that nothing vouches for.
fn faults(target: &TargetTable) -> [String; 4] {
    let source = target.source.sql("t");
    let destination = format!("t.{}", identifier(&target.destination.name));
    let both = format!("{source} IS NOT NULL AND {destination} IS NOT NULL");
    let (stale, unmarked) = match &target.fingerprint {
        Some(fingerprint) => {
            let column = fingerprint.column("t");
            let expected = fingerprint.expected(&source);
            (
                format!("({both} AND {column} <> {expected})"),
                format!("({both} AND {column} IS NULL)"),
            )
        }
        None => ("false".into(), "false".into()),
    };
    [
        format!("({source} IS NOT NULL AND {destination} IS NULL)"),
        format!("({source} IS NULL AND {destination} IS NOT NULL)"),
        stale,
        unmarked,
    ]
}

/// A row with a text and a vector.
struct Pair {
    key: Key,
    text: String,
    vector: Vec<f32>,
}

/// Texts with their vectors after a key, each with the probability `share`.
async fn page(
    session: &Session,
    target: &TargetTable,
    after: Option<&Key>,
    share: f64,
) -> Result<Vec<Pair>, JobError> {
    let order = target.key_columns("t");
    let mut conditions = vec![has_pair(target), "random() < $1".to_string()];
    if after.is_some() {
        conditions.push(target.after_key("t", 2));
    }
    let statement = format!(
        "SELECT {} FROM {} t WHERE {} ORDER BY {order} LIMIT {PAGE_ROWS}",
        pair(target),
        target.from_clause(),
        conditions.join(" AND "),
    );
    let parts: Vec<&str> = after.iter().flat_map(|key| key.parts()).collect();
    let mut all: Vec<&(dyn ToSql + Sync)> = vec![&share];
    all.extend(parts.iter().map(|part| part as &(dyn ToSql + Sync)));
    let rows = session
        .query(&statement, &all)
        .await
        .map_err(scanning(target))?;
    Ok(rows.iter().map(|row| read_pair(target, row)).collect())
}

async fn by_keys(
    session: &Session,
    target: &TargetTable,
    keys: &[Key],
) -> Result<Vec<Pair>, JobError> {
    let statement = format!(
        "SELECT {} FROM {} WHERE {}",
        pair(target),
        keyed(target),
        has_pair(target)
    );
    let arrays = key_columns(target, keys);
    let rows = session
        .query(&statement, &parameters(&arrays))
        .await
        .map_err(scanning(target))?;
    Ok(rows.iter().map(|row| read_pair(target, row)).collect())
}

/// The keys of rows whose vector is not that of their text.
async fn differences(
    engine: &Engine,
    model: &Model,
    pairs: Vec<Pair>,
) -> Result<Vec<Key>, JobError> {
    let texts: BTreeMap<&str, usize> = pairs.iter().map(|pair| (pair.text.as_str(), 0)).collect();
    let places: BTreeMap<&str, usize> = texts.into_keys().zip(0..).collect();
    let texts = places.keys().map(|text| (*text).to_owned()).collect();
    let vectors = engine.embed(model, TextRole::Document, texts).await?;
    let wrong = pairs
        .iter()
        .filter(|pair| is_far(&vectors[places[pair.text.as_str()]], &pair.vector));
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

fn pair(target: &TargetTable) -> String {
    format!(
        "{}, {}, t.{}::real[]",
        target.key_texts("t"),
        target.source.sql("t"),
        identifier(&target.destination.name)
    )
}

fn has_pair(target: &TargetTable) -> String {
    format!(
        "{} IS NOT NULL AND t.{} IS NOT NULL",
        target.source.sql("t"),
        identifier(&target.destination.name)
    )
}

/// The rows with given keys, as a FROM clause; its parameters are [`key_columns`].
fn keyed(target: &TargetTable) -> String {
    let columns = 0..target.key.len();
    let arrays: Vec<String> = columns
        .clone()
        .map(|n| format!("${}::text[]", n + 1))
        .collect();
    let names: Vec<String> = columns.map(|n| format!("k{n}")).collect();
    format!(
        "(SELECT {} FROM unnest({}) AS u({})) i JOIN {} t ON {}",
        target.key_casts("u"),
        arrays.join(", "),
        names.join(", "),
        target.from_clause(),
        target.key_join("t", "i")
    )
}

fn key_columns<'a>(target: &TargetTable, keys: &'a [Key]) -> Vec<Vec<&'a str>> {
    (0..target.key.len())
        .map(|position| keys.iter().map(|key| key.part(position)).collect())
        .collect()
}

fn parameters<'a>(arrays: &'a [Vec<&'a str>]) -> Vec<&'a (dyn ToSql + Sync)> {
    arrays
        .iter()
        .map(|array| array as &(dyn ToSql + Sync))
        .collect()
}

fn key(target: &TargetTable, row: &tokio_postgres::Row) -> Key {
    Key::new((0..target.key.len()).map(|position| row.get::<_, &str>(position).into()))
}

fn read_pair(target: &TargetTable, row: &tokio_postgres::Row) -> Pair {
    let keys = target.key.len();
    Pair {
        key: key(target, row),
        text: row.get(keys),
        vector: row.get(keys + 1),
    }
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
