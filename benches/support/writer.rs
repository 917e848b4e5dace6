//! The daemon's writer on a table that is known beforehand, without a job. All that benchmarks know of rows and
//! write-backs is here.

use std::sync::Arc;

use lantern::pipeline::table::row::{Key, Row, SourceText};
use lantern::pipeline::table::target::{DestinationColumn, KeyColumn, SourceColumn, TargetTable};
use lantern::pipeline::table::text_form::TextForm;
use lantern::pipeline::write::outcome::{EmbeddedRow, Outcome};
use lantern::pipeline::write::writer::Writer;
use lantern::postgres::{ConnectionString, Session};
use testkit::client;

/// Writes vectors into `public.table (id bigint PRIMARY KEY, body text, embedding public.vector(dimensions))`.
pub struct RowWriter(Writer);

/// An embedded row.
pub struct Embedded(EmbeddedRow);

impl RowWriter {
    pub async fn open(database: &ConnectionString, table: &str, dimensions: usize) -> RowWriter {
        let session = Session::open(database).await.expect("a session");
        let target = target(&session, table, dimensions).await;
        let writer = Writer::prepare(session, Arc::new(target), dimensions);
        RowWriter(writer.await.expect("a writer"))
    }

    /// The server process of its session.
    pub async fn process(&self) -> u32 {
        let pid: i32 = client::value(self.0.session(), "SELECT pg_backend_pid()").await;
        pid.unsigned_abs()
    }

    /// Writes rows in one transaction; returns how many of them still had their texts.
    pub async fn write(&self, rows: &[Embedded]) -> usize {
        let batch: Vec<&EmbeddedRow> = rows.iter().map(|row| &row.0).collect();
        let outcomes = self.0.write(&batch).await.expect("a write-back");
        let written = outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::Written);
        written.count()
    }
}

impl Embedded {
    pub fn new(id: i64, text: &str, vector: Vec<f32>) -> Embedded {
        Embedded(EmbeddedRow {
            row: row(id, text),
            vector: Some(vector),
        })
    }
}

/// A row of an initial backfill.
pub fn row(id: i64, text: &str) -> Row {
    let key = Key::new([id.to_string().into()]);
    Row::backfill(key, SourceText::from_column(Some(text)))
}

pub(super) async fn target(session: &Session, table: &str, dimensions: usize) -> TargetTable {
    let oid = format!("SELECT 'public.{table}'::regclass::oid");
    let oid = session
        .query_one(&oid, &[])
        .await
        .expect("the table")
        .get(0);
    TargetTable {
        oid,
        schema: "public".into(),
        name: table.into(),
        partitioned: false,
        ancestors: Vec::new(),
        key: vec![KeyColumn::of_the_system("id", "bigint")],
        identity_full: false,
        source: SourceColumn {
            name: "body".into(),
            form: TextForm::Plain,
            published: true,
            template: None,
        },
        destination: DestinationColumn {
            name: "embedding".into(),
            type_name: format!("public.vector({dimensions})"),
            base_type: "vector".into(),
            dimensions: u32::try_from(dimensions).ok(),
            vector_schema: Some("public".into()),
            exists: true,
        },
        fingerprint: None,
        passages: None,
    }
}
