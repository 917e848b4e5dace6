//! The passages of each document, compared with those that are cut and embedded here from its text alone.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;

use super::checker::Checker;
use super::vectors::Job;
use crate::documents::PassageTableName;
use crate::documents::cutting::{Content, Cutting, Judge, Passage, same};
use crate::documents::reader::passage;
use crate::shape::REJECTED;

/// A document that was found.
struct Document {
    /// `None` where passages have no row.
    row: Option<Content>,
    is_noted: bool,
    passages: Vec<Passage>,
    seqs: Vec<i32>,
    /// Those of the passages.
    fingerprints: Vec<Option<String>>,
    /// Those of the document, on each passage.
    of_document: Vec<Option<String>>,
}

impl Checker<'_> {
    /// How the job with these options cuts documents.
    pub fn cutting(&self, params: Option<&str>) -> Cutting {
        let documents = self.testbed.schedule.documents.as_ref();
        let mut cuttings = documents.iter().flat_map(|documents| documents.cuttings());
        let is_of = |cutting: &&Cutting| {
            let expected = self.testbed.params_of_documents(cutting);
            params.and_then(|params| serde_json::from_str(params).ok()) == Some(expected)
        };
        let cutting = cuttings.find(is_of);
        cutting.cloned().expect("one of the schedule's")
    }

    /// The table has the passages of every row, and no others; and so has the view.
    pub async fn passages_are_right(
        &self,
        job: &Job,
        table: PassageTableName,
        cutting: &Cutting,
    ) -> Result<(), String> {
        let documents = self.documents(job, table).await?;
        let mut judge = Judge::new(cutting, job.model);
        let mut wrong = Vec::new();
        for (key, document) in &documents {
            if let Err(what) = document.check(&mut judge) {
                wrong.push(format!("{key}: {what}"));
            }
        }
        if !wrong.is_empty() {
            let shown = wrong.iter().take(4).cloned().collect::<Vec<_>>().join("; ");
            return Err(format!(
                "{} of {} documents are wrong in {}: {shown}",
                wrong.len(),
                documents.len(),
                table.qualified
            ));
        }
        fingerprints_are_right(&documents, cutting)?;
        self.view_is_right(table, &documents).await
    }

    /// The rows and their passages, in one snapshot, by the names of their keys.
    async fn documents(
        &self,
        job: &Job,
        table: PassageTableName,
    ) -> Result<HashMap<String, Document>, String> {
        let shape = &self.testbed.schedule.shape;
        let is_noted = match self.has_failures_table().await? {
            true => format!(
                "n.body LIKE '{REJECTED} %' AND EXISTS (SELECT FROM jobs_failures f WHERE f.job_id = '{}' AND f.key = {})",
                job.id,
                shape.key_as_json()
            ),
            false => "false".to_owned(),
        };
        let query = format!(
            "SELECT COALESCE({of_row}, {of_passage}), {of_row} IS NOT NULL, n.body, n.other, COALESCE({is_noted}, false), \
                    p.chunk_start, p.chunk_end, p.chunk, p.\"{destination}\"::real[], p.chunk_seq, p.chunk_fingerprint::text, \
                    p.document_fingerprint::text \
             FROM (SELECT true AS present, * FROM notes) n FULL JOIN {table} p ON {same_key} \
             ORDER BY 1, p.chunk_seq",
            of_row = format!("CASE WHEN n.present THEN {} END", shape.key_name("n")),
            of_passage = shape.key_name("p"),
            destination = job.destination.replace('"', "\"\""),
            table = table.qualified,
            same_key = shape.same_key("n", "p"),
        );
        let mut documents: HashMap<String, Document> = HashMap::new();
        for row in &self.rows(&query).await? {
            let document = documents.entry(row.get(0)).or_insert_with(|| Document {
                row: row.get::<_, bool>(1).then(|| content(row, 2)),
                is_noted: row.get(4),
                passages: Vec::new(),
                seqs: Vec::new(),
                fingerprints: Vec::new(),
                of_document: Vec::new(),
            });
            if let Some(seq) = row.get(9) {
                document.passages.push(passage(row, 5));
                document.seqs.push(seq);
                document.fingerprints.push(row.get(10));
                document.of_document.push(row.get(11));
            }
        }
        Ok(documents)
    }

    /// The view shows all passages of all documents, with the content of their rows.
    async fn view_is_right(
        &self,
        table: PassageTableName,
        documents: &HashMap<String, Document>,
    ) -> Result<(), String> {
        let shape = &self.testbed.schedule.shape;
        let query = format!(
            "SELECT {}, count(*), min(v.chunk_seq), max(v.chunk_seq), min(v.body), min(v.other), string_agg(v.chunk, '|' ORDER BY v.chunk_seq) \
             FROM {} v GROUP BY 1",
            shape.key_name("v"),
            table.view
        );
        let shown = self.rows(&query).await?;
        let mut shown: HashMap<String, &Row> = shown.iter().map(|row| (row.get(0), row)).collect();
        for (key, document) in documents {
            let expected = document.passages.len();
            let row = shown.remove(key);
            if document.is_noted || row.is_none() && expected == 0 {
                continue;
            }
            let chunks: Vec<&str> = document
                .passages
                .iter()
                .map(|it| it.chunk.as_str())
                .collect();
            let is_right = row.is_some_and(|row| {
                usize::try_from(row.get::<_, i64>(1)).ok() == Some(expected)
                    && row.get::<_, i32>(2) == 0
                    && document.row.as_ref() == Some(&content(row, 4))
                    && row.get::<_, String>(6) == chunks.join("|")
            });
            if !is_right {
                return Err(format!(
                    "{} does not show {key} as it is: {row:?}",
                    table.view
                ));
            }
        }
        match shown.keys().next() {
            Some(key) => Err(format!("{} shows {key}, which is not there", table.view)),
            None => Ok(()),
        }
    }
}

impl Document {
    fn check(&self, judge: &mut Judge) -> Result<(), String> {
        let mut numbers = (0..).zip(&self.seqs);
        if let Some((place, seq)) = numbers.find(|(place, seq)| place != *seq) {
            return Err(format!("passage number {place} is {seq}"));
        }
        let of_document =
            |(seq, fingerprint): (usize, &Option<String>)| fingerprint.is_some() == (seq == 0);
        if !self.of_document.iter().enumerate().all(of_document) {
            return Err(format!("document_fingerprint is {:?}", self.of_document));
        }
        if self.is_noted {
            return Ok(());
        }
        let expected = match &self.row {
            Some(content) => judge.passages(content),
            None => &[],
        };
        if self.passages.len() != expected.len() {
            return Err(format!(
                "{} passages instead of {} of {:?}",
                self.passages.len(),
                expected.len(),
                self.row
                    .as_ref()
                    .map(|row| row.body.chars().take(60).collect::<String>())
            ));
        }
        let differs =
            |(_, (expected, found)): &(usize, (&Passage, &Passage))| !same(expected, found);
        let mut pairs = expected.iter().zip(&self.passages).enumerate();
        match pairs.find(differs) {
            Some((seq, (expected, found))) => Err(format!(
                "passage {seq} is {found:?} instead of {expected:?}"
            )),
            None => Ok(()),
        }
    }
}

/// Two passages have one fingerprint exactly where one text was embedded for both, wherever they stand; two documents
/// exactly where text and field are the same.
fn fingerprints_are_right(
    documents: &HashMap<String, Document>,
    cutting: &Cutting,
) -> Result<(), String> {
    let mut of_passages = Pairs::default();
    let mut of_documents = Pairs::default();
    for document in documents.values().filter(|document| !document.is_noted) {
        let Some(content) = &document.row else {
            continue;
        };
        let other = content.other.as_deref();
        for (passage, fingerprint) in document.passages.iter().zip(&document.fingerprints) {
            of_passages.add(
                cutting.embedded(&passage.chunk, other),
                fingerprint.as_ref(),
            )?;
        }
        if let Some(fingerprint) = document.of_document.first() {
            let field = cutting.template.as_ref().map(|_| other);
            of_documents.add(format!("{field:?} {}", content.body), fingerprint.as_ref())?;
        }
    }
    Ok(())
}

/// Texts and fingerprints, each of which belongs to one of the others.
#[derive(Default)]
struct Pairs {
    by_text: HashMap<String, String>,
    fingerprints: HashSet<String>,
}

impl Pairs {
    fn add(&mut self, text: String, fingerprint: Option<&String>) -> Result<(), String> {
        let fingerprint = fingerprint.ok_or_else(|| format!("no fingerprint of {text:?}"))?;
        let is_right = match self.by_text.get(&text) {
            Some(known) => known == fingerprint,
            None => self.fingerprints.insert(fingerprint.clone()),
        };
        if !is_right {
            return Err(format!(
                "{fingerprint} is not the fingerprint of {text:?} alone"
            ));
        }
        self.by_text.insert(text, fingerprint.clone());
        Ok(())
    }
}

fn content(row: &Row, first: usize) -> Content {
    Content {
        body: row.get::<_, Option<String>>(first).unwrap_or_default(),
        other: row.get(first + 1),
    }
}

/// Whether two vectors are the same but for rounding.
pub fn same_vector(expected: Option<&[f32]>, found: Option<&[f32]>) -> bool {
    match (expected, found) {
        (None, None) => true,
        (Some(expected), Some(found)) => {
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
            expected.len() == found.len() && expected.iter().zip(found).all(near)
        }
        _ => false,
    }
}
