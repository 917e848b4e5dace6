//! The rows that a search finds, read from the server's answer.

use tokio_postgres::Row;

use crate::pipeline::commands::search::passages::FIRST_SHOWN;
use crate::postgres::DatabaseError;

/// A row that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundRow {
    /// The cosine of the angle between its vector and the query's; `None` where one of them has the length 0.
    pub similarity: Option<f64>,
    /// The distance by which the rows are ordered.
    pub distance: Option<f64>,
    /// The values of the key and the shown columns, as text.
    pub cells: Vec<Option<String>>,
    /// Its nearest passage, of a job that cuts its documents. Then the distance is that of the passage.
    pub passage: Option<FoundPassage>,
}

/// The nearest passage of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPassage {
    /// The passage.
    pub itself: Passage,
    /// The passage before it.
    pub before: Option<Passage>,
    /// The passage after it.
    pub after: Option<Passage>,
}

/// A passage of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// Its place in the document, from 0.
    pub seq: i32,
    /// Where it begins in the text, in characters from 0.
    pub start: Option<i32>,
    /// Where it ends.
    pub end: Option<i32>,
    /// The passage.
    pub chunk: String,
}

/// NULL and NaN come last, as in SQL.
pub(super) fn order(a: Option<f64>, b: Option<f64>) -> std::cmp::Ordering {
    let key = |distance: Option<f64>| distance.filter(|distance| !distance.is_nan());
    match (key(a), key(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

/// The rows of an answer.
///
/// # Errors
/// The answer is none of the statement.
pub(super) fn read_rows(rows: &[Row], have_passages: bool) -> Result<Vec<FoundRow>, DatabaseError> {
    let read = |row| match have_passages {
        true => found_document(row),
        false => found_row(row, 2, None),
    };
    let rows: Result<_, _> = rows.iter().map(read).collect();
    rows.map_err(DatabaseError::during("reading the rows that were found"))
}

/// A row whose cells begin with column `first`.
fn found_row(
    row: &Row,
    first: usize,
    passage: Option<FoundPassage>,
) -> Result<FoundRow, tokio_postgres::Error> {
    let figure = |index: usize| row.try_get::<_, Option<f64>>(index);
    let cells = (first..row.len()).map(|index| row.try_get(index));
    Ok(FoundRow {
        distance: figure(0)?,
        similarity: figure(1)?.filter(|similarity| !similarity.is_nan()),
        cells: cells.collect::<Result<_, _>>()?,
        passage,
    })
}

fn found_document(row: &Row) -> Result<FoundRow, tokio_postgres::Error> {
    let [itself, before, after] = [3, 7, 11].map(|first| passage(row, first));
    let itself = itself?;
    let (before, after) = (before?, after?);
    let passage = itself.map(|itself| FoundPassage {
        itself,
        before,
        after,
    });
    found_row(row, FIRST_SHOWN, passage)
}

/// The passage whose columns begin with `first`; `None` where there is none.
fn passage(row: &Row, first: usize) -> Result<Option<Passage>, tokio_postgres::Error> {
    let Some(seq) = row.try_get(first)? else {
        return Ok(None);
    };
    let chunk: Option<String> = row.try_get(first + 3)?;
    Ok(Some(Passage {
        seq,
        start: row.try_get(first + 1)?,
        end: row.try_get(first + 2)?,
        chunk: chunk.unwrap_or_default(),
    }))
}

/// From how many passages the documents were taken.
///
/// # Errors
/// As [`read_rows`].
pub(super) fn read_candidates(rows: &[Row]) -> Result<u64, DatabaseError> {
    let first = rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(2));
    let candidates = first.map_err(DatabaseError::during(
        "reading the passages that were found",
    ))?;
    Ok(candidates.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn distances_that_are_unknown_come_last() {
        let mut distances = [Some(f64::NAN), Some(2.0), None, Some(-1.0)];
        distances.sort_by(|a, b| order(*a, *b));
        assert_eq!(distances[..2], [Some(-1.0), Some(2.0)]);
    }
}
