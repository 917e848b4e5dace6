//! A table as the writer knows it.

use lantern::pipeline::table::target::{
    DestinationColumn, KeyColumn, SourceColumn, TargetTable, TextForm,
};
use lantern::postgres::Session;

/// `public.table (id bigint PRIMARY KEY, body text, embedding public.vector(dimensions))`.
pub async fn target(session: &Session, table: &str, dimensions: usize) -> TargetTable {
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
        key: vec![KeyColumn {
            name: "id".into(),
            type_name: "bigint".into(),
        }],
        identity_full: false,
        source: SourceColumn {
            name: "body".into(),
            form: TextForm::Plain,
            published: true,
        },
        destination: DestinationColumn {
            name: "embedding".into(),
            type_name: format!("public.vector({dimensions})"),
            vector_schema: Some("public".into()),
        },
        fingerprint: None,
    }
}
