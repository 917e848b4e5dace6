//! SQL over passages and the rows that they are of.

use super::passages::{DOCUMENT_FINGERPRINT, DocumentFingerprint, PassageTable, SEQ};
use super::target::{KeyColumn, SourceColumn};
use crate::postgres::quote::{identifier, literal};

/// `a || b` under any search path.
const CAT: &str = " OPERATOR(pg_catalog.||) ";

impl PassageTable {
    /// The condition that the passage `passage` is of the row `alias`, whose table has this key.
    pub fn is_of(&self, key: &[KeyColumn], passage: &str, alias: &str) -> String {
        let equal = |column: &KeyColumn| {
            let name = identifier(&column.name);
            let collation = column
                .collation
                .as_ref()
                .map_or_else(String::new, |collation| format!(" COLLATE {collation}"));
            format!(
                "{passage}.{name}{collation} {} {alias}.{name}{collation}",
                column.operators.equal
            )
        };
        let conditions: Vec<String> = key.iter().map(equal).collect();
        conditions.join(" AND ")
    }

    /// SQL that is true where the passages of the row `alias` are those of its text and fields; for a row without a text,
    /// where there are none. Never true for a text that is too large to be cut.
    ///
    /// One index lookup for each row: EXISTS could be planned as a hash of the whole table, also for a few rows.
    pub fn is_current(&self, key: &[KeyColumn], source: &SourceColumn, alias: &str) -> String {
        let table = self.qualified();
        let of_row = self.is_of(key, "passage", alias);
        format!(
            "CASE WHEN {text} IS NULL THEN (SELECT true FROM {table} passage WHERE {of_row} LIMIT 1) IS NULL \
             WHEN octet_length({text}) > {limit} THEN false \
             ELSE COALESCE((SELECT passage.{DOCUMENT_FINGERPRINT} FROM {table} passage WHERE {of_row} AND passage.{SEQ} = 0) \
                           = {expected}, false) END",
            text = source.plain_sql(alias),
            limit = self.max_document_bytes,
            expected = self.documents.expected(source, alias),
        )
    }
}

impl DocumentFingerprint {
    /// SQL for the fingerprint of the row `alias`; NULL for a row without a text. It means the same under any search path.
    pub fn expected(&self, source: &SourceColumn, alias: &str) -> String {
        let columns = source
            .template
            .as_ref()
            .map_or(0, |template| template.columns().len());
        let field = |place| {
            let template = source.template.as_ref();
            let value =
                template.map_or_else(String::new, |template| template.value_sql(alias, place));
            let length = format!("pg_catalog.length({value})::pg_catalog.text");
            format!("COALESCE({length}{CAT}':'{CAT}{value}, '-'){CAT}','{CAT}")
        };
        let fields: String = (0..columns).map(field).collect();
        format!(
            "pg_catalog.md5(pg_catalog.convert_to({}{CAT}{fields}{}, 'UTF8'))::pg_catalog.uuid",
            literal(&self.prefix),
            source.qualified_sql(alias)
        )
    }
}
