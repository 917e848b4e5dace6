//! Which version of the columns with texts a table has: what must change if the texts in them change without a change of a
//! row. They are the source, and the columns that a template names.
//!
//! A change of a column's definition may give every row another text, and the stream brings none of them:
//!
//! - a generated column gets another expression: `SET EXPRESSION`, or dropped and added again;
//! - `ALTER COLUMN … TYPE … USING` rewrites the table. A rewrite is not decoded (`ATRewriteTable` in `tablecmds.c` writes a
//!   new file, whose records are left out);
//! - another type prints the same value in another way, without a rewrite: `timestamptz` and `timestamp` in UTC.

use crate::postgres::quote::literal;

/// The versions of the columns with texts in one table or partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceVersion(Vec<ColumnVersion>);

/// The version of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ColumnVersion {
    /// `attnum`: a column that is dropped and added again has another.
    place: String,
    /// The transaction that wrote the column's row in `pg_attribute`.
    attribute: String,
    /// The transaction that wrote its expression; "" unless it is generated.
    expression: String,
    /// The transaction that wrote the row in `pg_class` of the table's TOAST table; "" if it has none.
    toast: String,
    /// The type below the domain, if there is one; "" for all types whose values are texts themselves.
    kind: String,
}

impl SourceVersion {
    /// SQL for the version of the columns `columns`, an array of names, in the table whose `pg_class` row is `class`; NULL
    /// where it lacks one of them.
    pub fn sql(class: &str, columns: &str) -> String {
        format!(
            "(SELECT CASE WHEN count(va.attnum) = cardinality({columns}) THEN string_agg( \
                format('%s/%s/%s/%s/%s', va.attnum, va.xmin, vd.xmin, vt.xmin, \
                       CASE WHEN vy.typcategory <> 'S' THEN COALESCE(NULLIF(vy.typbasetype, 0), vy.oid) END), \
                ' ' ORDER BY vw.place) END \
              FROM unnest({columns}) WITH ORDINALITY AS vw(name, place) \
              LEFT JOIN pg_attribute va ON va.attrelid = {class}.oid AND va.attname = vw.name AND NOT va.attisdropped \
              LEFT JOIN pg_type vy ON vy.oid = va.atttypid \
              LEFT JOIN pg_attrdef vd \
                ON vd.adrelid = va.attrelid AND vd.adnum = va.attnum AND va.attgenerated <> '' \
              LEFT JOIN pg_class vt ON vt.oid = {class}.reltoastrelid)"
        )
    }

    /// Reads what [`sql`](Self::sql) selects.
    pub fn parse(text: &str) -> Option<Self> {
        let columns = text.split(' ').map(ColumnVersion::parse);
        columns.collect::<Option<_>>().map(SourceVersion)
    }

    /// Whether rows that are not in the stream may have other texts now than when this was the version.
    pub fn is_redefined_in(&self, now: &SourceVersion) -> bool {
        let mut columns = self.0.iter().zip(&now.0);
        columns.any(|(before, now)| before.is_redefined_in(now))
    }
}

impl ColumnVersion {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        Some(ColumnVersion {
            place: parts.next()?,
            attribute: parts.next()?,
            expression: parts.next()?,
            toast: parts.next()?,
            kind: parts.next()?,
        })
    }

    /// Much else writes the column's row in `pg_attribute` (GRANT, SET STATISTICS), or another TOAST table (VACUUM FULL,
    /// TRUNCATE). Only a rewrite by ALTER TABLE does both in one transaction. The destination is a reason for every table to
    /// have a TOAST table.
    fn is_redefined_in(&self, now: &ColumnVersion) -> bool {
        self.place != now.place
            || self.expression != now.expression
            || self.kind != now.kind
            || self.attribute != now.attribute && now.attribute == now.toast
    }
}

/// SQL for the OIDs of the types that make up the columns of `class` for which `columns` (SQL over the `pg_attribute` row
/// `ta`) is true: the types themselves, and those of which arrays, domains, ranges and composites consist. A common table
/// expression with the name `types`, for a `WITH RECURSIVE`.
pub fn types_of_columns(class: &str, columns: &str) -> String {
    format!(
        "types(oid) AS ( \
           SELECT ta.atttypid FROM pg_attribute ta \
           WHERE ta.attrelid = {class} AND ta.attnum > 0 AND NOT ta.attisdropped AND ({columns}) \
           UNION \
           SELECT tp.oid FROM types JOIN pg_type tt ON tt.oid = types.oid CROSS JOIN LATERAL ( \
             SELECT tt.typelem UNION ALL SELECT tt.typbasetype \
             UNION ALL SELECT tr.rngsubtype FROM pg_range tr WHERE tr.rngtypid = tt.oid \
             UNION ALL SELECT tm.atttypid FROM pg_attribute tm \
               WHERE tm.attrelid = tt.typrelid AND tm.attnum > 0 AND NOT tm.attisdropped) tp(oid) \
           WHERE tp.oid <> 0)"
    )
}

/// The columns of a table whose definitions decide what the stream shows of its rows.
#[derive(Debug, Clone, Copy)]
pub struct DefinedColumns<'a> {
    /// The OID of the table.
    pub table: u32,
    /// The columns with texts, not quoted.
    pub sources: &'a [&'a str],
    /// The columns of the key, not quoted.
    pub key: &'a [&'a str],
    /// The columns that the publication lists, not quoted: the server refuses to change their types, and another column of
    /// the name is not published.
    pub listed: &'a [String],
}

/// SQL that is true if a definition changed, in the table or in a partition of it, after the transaction of a reference, so
/// that rows which are not in the stream may have other texts or keys.
///
/// `age` is SQL for the age of the reference, and `oid` for an OID that was assigned with it. Transaction ids wrap around,
/// so ages are compared: what is younger has an age that is not negative and less than that of the reference. What came
/// with a newer partition is none of this: a new partition is scanned by itself. A label of an enum with a higher OID than
/// the reference was added, not renamed.
///
/// A column with texts that is not listed may also have changed its name with another column. Nothing tells that from a GRANT
/// on the column, so each change of its row in `pg_attribute` counts.
pub fn redefined_since(columns: DefinedColumns<'_>, (age, oid): (&str, &str)) -> String {
    let DefinedColumns {
        table,
        sources,
        key,
        listed,
    } = columns;
    let source = array(sources);
    let key = array(key);
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    let listed = array(&listed);
    let types = types_of_columns(
        &table.to_string(),
        &format!("ta.attname = ANY ({source} || {key})"),
    );
    format!(
        "(WITH RECURSIVE reference AS (SELECT {age} AS age, {oid} AS oid), \
           tree(relid, linked) AS ( \
             SELECT {table}::oid, NULL::int \
             UNION ALL SELECT i.inhrelid, age(i.xmin) FROM tree \
               JOIN pg_class p ON p.oid = tree.relid AND p.relkind = 'p' JOIN pg_inherits i ON i.inhparent = p.oid), \
           {types}, \
           versions(age, linked) AS ( \
             SELECT age(d.xmin), tree.linked FROM tree JOIN pg_attribute a ON a.attrelid = tree.relid \
               JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
             WHERE a.attname = ANY ({source}) AND a.attgenerated <> '' \
             UNION ALL \
             SELECT age(a.xmin), tree.linked FROM tree JOIN pg_class c ON c.oid = tree.relid \
               JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_class f ON f.oid = c.reltoastrelid \
             WHERE a.attname = ANY ({source}) AND (a.xmin = f.xmin OR a.attname <> ALL ({listed})) \
             UNION ALL \
             SELECT age(e.xmin), NULL FROM pg_enum e JOIN types ON types.oid = e.enumtypid CROSS JOIN reference \
             WHERE e.oid < reference.oid) \
         SELECT EXISTS (SELECT FROM versions v CROSS JOIN reference r \
           WHERE v.age >= 0 AND (r.age < 0 OR v.age < r.age) AND (v.linked IS NULL OR v.age < v.linked)))"
    )
}

/// SQL for an array of names.
fn array(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    format!("ARRAY[{}]::text[]", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> SourceVersion {
        SourceVersion::parse(text).unwrap()
    }

    #[test]
    fn another_expression_or_a_rewrite_by_alter_table_redefines_a_source() {
        let before = version("2/700/701/702/");
        for (now, redefined) in [
            ("2/700/701/702/", false),
            ("2/700/701/800/", false),    // VACUUM FULL
            ("2/800/701/702/", false),    // GRANT
            ("2/800/701/801/", false),    // GRANT, VACUUM FULL
            ("2/800/701/800/", true),     // ALTER COLUMN … TYPE … USING
            ("2/700/801/702/", true),     // SET EXPRESSION of a virtual column
            ("3/800/801/702/", true),     // DROP COLUMN, ADD COLUMN
            ("2/700//702/", true),        // DROP EXPRESSION
            ("2/800/701/702/1114", true), // TYPE timestamp
        ] {
            assert_eq!(before.is_redefined_in(&version(now)), redefined, "{now}");
        }
        let two = version("2/700//702/ 3/700//702/23");
        assert!(!two.is_redefined_in(&version("2/800//702/ 3/700//702/23")));
        assert!(two.is_redefined_in(&version("2/700//702/ 4/800//702/23")));
    }
}
