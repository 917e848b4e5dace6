//! Everything that a job needs to know of its table, checked.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::chunk_table::{ChunkTableLook, FoundChunkTable};
use crate::pipeline::setup::preflight::destination::usable_destination;
use crate::pipeline::setup::preflight::key::usable_key;
use crate::pipeline::setup::preflight::points::{Outcome, Points};
use crate::pipeline::setup::preflight::privileges::{check_all_rows_visible, check_type_usable};
use crate::pipeline::setup::preflight::relation::{
    TableUse, TargetColumn, TargetRelation, find_column, find_relation, read_columns,
};
use crate::pipeline::setup::preflight::source::{check_readable, find_fields, find_source};
use crate::pipeline::setup::preflight::subject::NO_SOURCE;
use crate::pipeline::table::target::{DestinationColumn, KeyColumn, SourceColumn};
use crate::postgres::Session;

/// A table that a job can work on, once it has the columns that are missing.
#[derive(Debug, Clone)]
pub struct FoundTable {
    /// What it was looked at for.
    pub table_use: TableUse,
    /// The table itself.
    pub relation: TargetRelation,
    /// All of its columns.
    pub columns: Vec<TargetColumn>,
    /// The columns of the key; at least one.
    pub key: Vec<KeyColumn>,
    /// The column with the text.
    pub source: SourceColumn,
    /// The column for the vectors, if it exists. Of the table for passages, where the job has one.
    pub destination: Option<DestinationColumn>,
    /// The OID of the table for passages, if the job has one and it exists.
    pub chunk_table: Option<u32>,
    /// The name of the fingerprint column, if the job has one and it exists.
    pub fingerprint: Option<String>,
}

impl FoundTable {
    /// Whether every column exists that the job needs.
    pub fn is_complete(&self, names: &TargetNames) -> bool {
        self.destination.is_some() && self.fingerprint == names.fingerprint
    }
}

/// The points of a table, in the order in which they are looked at.
pub const TABLE_POINTS: [&str; 6] = [
    "table",
    "source column",
    "reading",
    "row security",
    "key",
    "destination",
];

/// The table for passages, of a job that has one; in place of the destination.
pub const CHUNK_TABLE: &str = "chunk table";

/// Looks at the table of a job whose model has this many dimensions, if that is known.
///
/// # Errors
/// Permanent ones with a remedy, where the job cannot work on the table; and the server's.
///
/// Cancellation safe: it only reads.
pub async fn inspect(
    session: &Session,
    names: &TargetNames,
    dimensions: Option<usize>,
    table_use: TableUse,
) -> Result<FoundTable, JobError> {
    let mut points = Points::default();
    let look = TableLook {
        session,
        names,
        dimensions,
        table_use,
        asks_for_rights: true,
    };
    let looked = look.run(&mut points).await;
    points.into_advice()?;
    let found = looked.and_then(|looked| looked.whole(names));
    Ok(found.expect("where no point has failed, all of the table was found"))
}

/// What was found of a table, as far as no point has failed.
#[derive(Debug, Clone)]
pub struct LookedAt {
    /// What it was looked at for.
    pub table_use: TableUse,
    /// The table itself.
    pub relation: TargetRelation,
    /// All of its columns.
    pub columns: Vec<TargetColumn>,
    /// The column with the text.
    pub source: Option<SourceColumn>,
    /// The columns of the key.
    pub key: Option<Vec<KeyColumn>>,
    /// `None` where there is no such column yet, or its point has failed.
    pub destination: Option<DestinationColumn>,
    /// There is a column of that name which cannot hold the vectors, or a table for passages that does not fit.
    pub is_destination_unusable: bool,
    /// The OID of the table for passages, if the job has one and it exists.
    pub chunk_table: Option<u32>,
    /// The template names a column that the table lacks.
    pub is_template_unusable: bool,
}

impl LookedAt {
    /// `None` where a point has failed.
    pub fn whole(self, names: &TargetNames) -> Option<FoundTable> {
        if self.is_destination_unusable || self.is_template_unusable {
            return None;
        }
        let fingerprint = names.fingerprint.as_deref();
        let fingerprint = fingerprint.and_then(|name| find_column(&self.columns, name));
        Some(FoundTable {
            table_use: self.table_use,
            fingerprint: fingerprint.map(|column| column.name.clone()),
            relation: self.relation,
            key: self.key?,
            source: self.source?,
            destination: self.destination,
            chunk_table: self.chunk_table,
            columns: self.columns,
        })
    }
}

/// A look at the table of a job.
pub(super) struct TableLook<'a> {
    pub session: &'a Session,
    pub names: &'a TargetNames,
    /// Those of the model, where they are known.
    pub dimensions: Option<usize>,
    pub table_use: TableUse,
    /// Whether to ask what the role may read. Not where all that it lacks was said already.
    pub asks_for_rights: bool,
}

impl TableLook<'_> {
    /// Adds what it finds to `points`. `None` where there is no table that can be followed.
    pub async fn run(&self, points: &mut Points) -> Option<LookedAt> {
        let (session, names) = (self.session, self.names);
        let [table, source_point, .., key_point, _] = TABLE_POINTS;
        let relation = find_relation(session, names, self.table_use).await;
        let Some(relation) = points.note(table, relation, |found| describe(names, found)) else {
            points.skip(&TABLE_POINTS[1..], "there is no table to look at");
            return None;
        };
        let columns = read_columns(session, relation.oid).await;
        let columns = points.note_failure(table, columns)?;
        let source = points.note(source_point, find_source(names, &columns), |column| {
            self.show(column)
        });
        let fields = self.look_at_template(points, &columns);
        let texts: Vec<&TargetColumn> = source
            .into_iter()
            .chain(fields.iter().flatten().copied())
            .collect();
        self.look_at_rights(points, source.map(|_| &*texts), relation.oid)
            .await;
        let key = usable_key(session, names, &relation, &columns, self.table_use).await;
        let key = points.note(key_point, key, |key| list(key));
        let template = names.text.template.as_ref().filter(|_| fields.is_some());
        let source = source.map(|column| {
            SourceColumn::from_catalog(column, template, fields.as_deref().unwrap_or_default())
        });
        if let Some(chunk_table) = &names.passages {
            let found = match &key {
                Some(key) => {
                    let look = ChunkTableLook {
                        session,
                        names,
                        table: chunk_table,
                        source: relation.oid,
                        columns: &columns,
                        key,
                        dimensions: self.dimensions,
                    };
                    self.look_at_chunk_table(points, look).await
                }
                None => {
                    points.skip(&[CHUNK_TABLE], "the table has no usable key");
                    None
                }
            };
            let is_unusable = found.is_none();
            let found = found.flatten();
            return Some(LookedAt {
                table_use: self.table_use,
                is_destination_unusable: is_unusable,
                is_template_unusable: fields.is_none(),
                relation,
                source,
                key,
                chunk_table: found.as_ref().map(|found| found.oid),
                destination: found.map(|found| found.destination),
                columns,
            });
        }
        let column = find_column(&columns, &names.destination);
        let destination = match column {
            Some(column) => self.look_at_destination(points, column).await,
            None => None,
        };
        Some(LookedAt {
            table_use: self.table_use,
            is_destination_unusable: column.is_some() && destination.is_none(),
            chunk_table: None,
            is_template_unusable: fields.is_none(),
            relation,
            source,
            key,
            destination,
            columns,
        })
    }

    /// The table for passages, or `Some(None)` where it does not exist yet.
    async fn look_at_chunk_table(
        &self,
        points: &mut Points,
        look: ChunkTableLook<'_>,
    ) -> Option<Option<FoundChunkTable>> {
        let shown = look.table.qualified();
        let found = points.note_failure(CHUNK_TABLE, look.find().await)?;
        if found.is_some() {
            points.add(CHUNK_TABLE, Outcome::Passed(format!("{shown} fits")));
        }
        Some(found)
    }

    /// The columns that the template names; `None` where the table lacks one of them.
    fn look_at_template<'c>(
        &self,
        points: &mut Points,
        columns: &'c [TargetColumn],
    ) -> Option<Vec<&'c TargetColumn>> {
        let found = find_fields(self.names, columns);
        if matches!(&found, Ok(fields) if fields.is_empty()) {
            return found.ok();
        }
        points.note("template", found, |fields| {
            let fields: Vec<String> = fields.iter().map(|column| self.show(column)).collect();
            fields.join(", ")
        })
    }

    async fn look_at_destination(
        &self,
        points: &mut Points,
        column: &TargetColumn,
    ) -> Option<DestinationColumn> {
        let [.., point] = TABLE_POINTS;
        let usable = self.usable_destination(column).await;
        points.note(point, usable, |_| self.show(column))
    }

    /// `texts` are the columns with texts; `None` without a source.
    async fn look_at_rights(&self, points: &mut Points, texts: Option<&[&TargetColumn]>, oid: u32) {
        let (session, names) = (self.session, self.names);
        let [_, _, reading, row_security, ..] = TABLE_POINTS;
        match texts {
            Some(texts) if self.asks_for_rights => {
                let readable = check_readable(session, names, texts).await;
                points.note(reading, readable, |()| "the role may read the texts".into());
            }
            Some(_) => points.skip(&[reading], "see what the role lacks, above"),
            None => points.skip(&[reading], NO_SOURCE),
        }
        let visible = check_all_rows_visible(session, &names.qualified(), oid).await;
        points.note(row_security, visible, |()| {
            "hides no row from the role".into()
        });
    }

    async fn usable_destination(
        &self,
        column: &TargetColumn,
    ) -> Result<DestinationColumn, JobError> {
        check_type_usable(self.session, self.names, column).await?;
        usable_destination(self.names, column, self.dimensions)
    }
}

impl TableLook<'_> {
    fn show(&self, column: &TargetColumn) -> String {
        let name = self.names.qualified_column(&column.name);
        format!("{name} {}", column.declared)
    }
}

fn describe(names: &TargetNames, relation: &TargetRelation) -> String {
    let kind = match relation.partitioned {
        true => ", partitioned",
        false => "",
    };
    format!("{}{kind}", names.qualified())
}

fn list(key: &[KeyColumn]) -> String {
    let names: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
    format!("({})", names.join(", "))
}
