//! The daemon's writer of passages on tables that are known beforehand, without a job. Beside [`writer`](super::writer),
//! all that benchmarks know of documents and their write-backs is here.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use lantern::pipeline::chunks::found::{Document, StoredVersion};
use lantern::pipeline::chunks::plan::{Plan, PlannedDocument, Trust, WantedPassage};
use lantern::pipeline::chunks::write::{DocumentOutcome, DocumentWrite};
use lantern::pipeline::table::fingerprint::Fingerprint;
use lantern::pipeline::table::passages::{
    CHUNK_FINGERPRINT, Cutting, DocumentFingerprint, PassageCheck, PassageTable,
};
use lantern::pipeline::table::row::Key;
use lantern::pipeline::table::target::TargetTable;
use lantern::pipeline::write::documents::session::DocumentSession;
use lantern::postgres::{ConnectionString, Session};

use super::writer::target;

/// Writes into `public.docs_chunks` the passages of `public.docs (id bigint PRIMARY KEY, body text)`.
pub struct PassageWriter {
    session: DocumentSession,
    passages: PassageTable,
}

/// A document whose passages have their vectors.
pub struct EmbeddedDocument([DocumentWrite; 1]);

/// The table of passages, as the daemon would create it.
pub fn create_table(dimensions: usize) -> String {
    format!(
        "CREATE TABLE docs_chunks (id bigint, chunk_seq int, chunk_start int, chunk_end int, chunk text, \
                                   embedding vector({dimensions}), chunk_fingerprint uuid, document_fingerprint uuid, \
                                   PRIMARY KEY (id, chunk_seq)) WITH (fillfactor = 50)"
    )
}

impl PassageWriter {
    pub async fn open(database: &ConnectionString, dimensions: usize) -> PassageWriter {
        let session = Session::open(database).await.expect("a session");
        let oid = session.query_one("SELECT 'public.docs_chunks'::regclass::oid", &[]);
        let passages = PassageTable {
            oid: oid.await.expect("the table").get(0),
            schema: "public".into(),
            name: "docs_chunks".into(),
            passages: Fingerprint::new(CHUNK_FINGERPRINT, "model", "embedding"),
            documents: DocumentFingerprint::new("model", "embedding", "", None),
            cutting: Cutting::default(),
            max_document_bytes: 16 << 20,
            check: PassageCheck::Document,
        };
        let target = TargetTable {
            passages: Some(passages.clone()),
            ..target(&session, "docs", dimensions).await
        };
        let session =
            DocumentSession::prepare(session, Arc::new(target), &passages, (dimensions, false));
        PassageWriter {
            session: session.await.expect("a writer"),
            passages,
        }
    }

    /// The document `id` of ASCII, of which no passage is stored, with a vector for each of these parts.
    pub fn document(
        &self,
        id: i64,
        text: &str,
        parts: &[Range<usize>],
        vector: impl Fn(usize) -> Vec<f32>,
    ) -> EmbeddedDocument {
        let wanted = parts.iter().map(|bytes| WantedPassage {
            span: (bytes.start as i32, bytes.end as i32),
            fingerprint: self.passages.passages.compute(&text[bytes.clone()]),
            bytes: bytes.clone(),
        });
        let wanted: Vec<WantedPassage> = wanted.collect();
        let vectors = wanted.iter().zip(0..);
        let vectors: HashMap<_, _> = vectors
            .map(|(passage, number)| (passage.fingerprint, vector(number)))
            .collect();
        let document = PlannedDocument {
            fingerprint: self.passages.documents.compute(&[], text),
            document: Arc::new(Document {
                text: text.to_owned(),
                values: Vec::new(),
            }),
        };
        let none = StoredVersion(None);
        EmbeddedDocument([DocumentWrite {
            key: Key::new([id.to_string().into()]),
            xid: 0,
            plan: Plan::new(document, wanted, &[], none, Trust::Fingerprints),
            vectors,
        }])
    }

    /// Writes the passages of a document in one transaction.
    pub async fn write(&self, document: &EmbeddedDocument) {
        let outcomes = self.session.write(0, &document.0).await;
        let outcomes = outcomes.expect("a write-back");
        assert_eq!(outcomes, [DocumentOutcome::Written]);
    }
}
