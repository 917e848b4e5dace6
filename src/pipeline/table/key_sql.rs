//! SQL over the keys of a target table.
//!
//! Keys travel as text, one array a key column, and are cast to the columns' own types inside the statement. So one
//! statement serves every type of key, and a batch of any size has the same text, which the server prepares once:
//!
//! ```text
//! FROM unnest($1::text[], $2::text[], …) WITH ORDINALITY AS u(k0, k1, …, n)    unnest_keys
//!      SELECT u.k0::bigint AS k0, u.k1::uuid AS k1                             key_casts
//! JOIN target t ON t.id = i.k0 AND t.part = i.k1                               key_join
//! WHERE (t.id, t.part) > ($1::text::bigint, $2::text::uuid)                    after_key
//! ORDER BY t.id, t.part                                                        key_order
//! ```
//!
//! Keys are compared with the operators and the collation of their index ([`KeyOperators`]): what is above as `=` is
//! `OPERATOR("pg_catalog".=)` in the statement. So the index serves every comparison, and a page of a scan ends where
//! the next one begins.
//!
//! [`KeyOperators`]: super::target::KeyOperators
//!
//! The key columns are called `k0`, `k1`, … whatever their names are, so that they cannot collide with ours.

use tokio_postgres::types::ToSql;

use super::row::Key;
use super::target::{KeyColumn, KeyOperators, TargetTable};
use crate::postgres::quote::identifier;

impl TargetTable {
    /// The key columns of the row `alias` for ORDER BY, in the order of their index.
    pub fn key_order(&self, alias: &str) -> String {
        let column = |column: &KeyColumn| {
            format!(
                "{} USING {}",
                compared(alias, column),
                column.operators.less
            )
        };
        let columns: Vec<String> = self.key.iter().map(column).collect();
        columns.join(", ")
    }

    /// The key columns as their types print them: `format('%s', t.id) AS k0, …`. The stream carries the same text.
    pub fn key_texts(&self, alias: &str) -> String {
        let text = |(position, column): (usize, &KeyColumn)| {
            format!(
                "format('%s', {alias}.{}) AS k{position}",
                identifier(&column.name)
            )
        };
        let texts: Vec<String> = self.key.iter().enumerate().map(text).collect();
        texts.join(", ")
    }

    /// The condition that the row `alias` has the key `k0`, `k1`, … of `incoming`.
    pub fn key_join(&self, alias: &str, incoming: &str) -> String {
        let equal = |(position, column): (usize, &KeyColumn)| {
            format!(
                "{} {} {incoming}.k{position}",
                compared(alias, column),
                column.operators.equal
            )
        };
        let conditions: Vec<String> = self.key.iter().enumerate().map(equal).collect();
        conditions.join(" AND ")
    }

    /// The keys in `alias`, which came as text, in their own types: `u.k0::"pg_catalog"."int8" AS k0, …`.
    pub fn key_casts(&self, alias: &str) -> String {
        let cast = |(position, column): (usize, &KeyColumn)| {
            format!("{alias}.k{position}::{} AS k{position}", column.base_type)
        };
        let casts: Vec<String> = self.key.iter().enumerate().map(cast).collect();
        casts.join(", ")
    }

    /// A batch as a table expression called `u`: the key columns `k0`, `k1`, …, then `further` columns, each with its SQL
    /// type and name, then the place in the batch, `n`, counted from 1.
    ///
    /// Each column is a parameter, numbered from 1 in this order: see [`key_arrays`](Self::key_arrays) for those of the keys.
    pub fn unnest_keys(&self, further: &[(&str, &str)]) -> String {
        let keys = (0..self.key.len()).map(|position| ("text", format!("k{position}")));
        let further = further
            .iter()
            .map(|(kind, name)| (*kind, (*name).to_owned()));
        let columns: Vec<(&str, String)> = keys.chain(further).collect();
        let arrays: Vec<String> = (1..)
            .zip(&columns)
            .map(|(number, (kind, _))| format!("${number}::{kind}[]"))
            .collect();
        let names: Vec<&str> = columns.iter().map(|(_, name)| name.as_str()).collect();
        format!(
            "unnest({}) WITH ORDINALITY AS u({}, n)",
            arrays.join(", "),
            names.join(", ")
        )
    }

    /// The condition that the row `alias` follows a key in key order. The parts of the key are parameters, numbered from
    /// `first`: see [`key_arrays`](Self::key_arrays) for their form.
    ///
    /// No `OFFSET`: each page of a scan starts with one index lookup, however far the scan has come. A row comparison
    /// does that for any number of columns, but takes one operator for all of them (PostgreSQL manual, "Row Constructor
    /// Comparison"). Where the columns have several, the first column alone finds the place in the index.
    pub fn after_key(&self, alias: &str, first: usize) -> String {
        let columns: Vec<(String, String, &KeyOperators)> = (first..)
            .zip(&self.key)
            .map(|(number, column)| {
                let bound = format!("${number}::text::{}", column.base_type);
                (compared(alias, column), bound, &column.operators)
            })
            .collect();
        let (_, _, operators) = columns[0];
        if columns.iter().all(|(.., other)| *other == operators) {
            let values: Vec<&str> = columns.iter().map(|(value, ..)| value.as_str()).collect();
            let bounds: Vec<&str> = columns.iter().map(|(_, bound, _)| bound.as_str()).collect();
            return match columns.len() {
                1 => format!("{} {} {}", values[0], operators.greater, bounds[0]),
                _ => format!(
                    "ROW({}) {} ROW({})",
                    values.join(", "),
                    operators.greater,
                    bounds.join(", ")
                ),
            };
        }
        let (value, bound, operators) = &columns[0];
        let start = format!("{value} {} {bound}", operators.at_least);
        let after = columns
            .iter()
            .rev()
            .fold(String::from("false"), |rest, column| {
                let (value, bound, operators) = column;
                format!(
                    "({value} {} {bound} OR {value} {} {bound} AND {rest})",
                    operators.greater, operators.equal
                )
            });
        format!("{start} AND {after}")
    }

    /// One array for each key column, for the parameters of [`unnest_keys`](Self::unnest_keys).
    pub fn key_arrays<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) -> Vec<Vec<&'a str>> {
        let mut arrays = vec![Vec::new(); self.key.len()];
        for key in keys {
            for (array, part) in arrays.iter_mut().zip(key.parts()) {
                array.push(part);
            }
        }
        arrays
    }

    /// The key at the head of a result row, as [`key_texts`](Self::key_texts) selects it.
    ///
    /// # Panics
    /// Where the row does not begin with the key columns as text.
    ///
    /// # Errors
    /// The row has other columns, as no answer of PostgreSQL has.
    pub fn read_key(&self, row: &tokio_postgres::Row) -> Result<Key, tokio_postgres::Error> {
        let values = (0..self.key.len()).map(|position| row.try_get::<_, &str>(position));
        let values: Vec<Box<str>> = values
            .map(|value| value.map(Box::from))
            .collect::<Result<_, _>>()?;
        Ok(Key::new(values))
    }
}

/// The column of the row `alias` as its index compares it.
fn compared(alias: &str, column: &KeyColumn) -> String {
    let value = format!("{alias}.{}", identifier(&column.name));
    match &column.collation {
        Some(collation) => format!("{value} COLLATE {collation}"),
        None => value,
    }
}

/// Values as the parameters of a statement.
pub fn parameters<T: ToSql + Sync>(values: &[T]) -> Vec<&(dyn ToSql + Sync)> {
    values
        .iter()
        .map(|value| value as &(dyn ToSql + Sync))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TargetTable {
        TargetTable {
            key: vec![
                KeyColumn::example("id", "bigint"),
                KeyColumn::example("a \"b\"", "uuid"),
            ],
            ..TargetTable::example()
        }
    }

    #[test]
    fn names_are_quoted_and_keys_are_cast_to_their_own_types() {
        let table = table();
        assert_eq!(
            table.key_join("t", "i"),
            r#"t."id" OPERATOR("pg_catalog".=) i.k0 AND t."a ""b""" OPERATOR("pg_catalog".=) i.k1"#
        );
        assert_eq!(table.key_casts("u"), "u.k0::bigint AS k0, u.k1::uuid AS k1");
        assert_eq!(
            table.after_key("t", 2),
            r#"ROW(t."id", t."a ""b""") OPERATOR("pg_catalog".>) ROW($2::text::bigint, $3::text::uuid)"#
        );
    }

    #[test]
    fn columns_of_different_operators_are_compared_one_by_one() {
        let mut table = table();
        table.key[1].operators = KeyOperators::new("ext", ["~<~", "=", "~>=~", "~>~"]);
        table.key[1].collation = Some(r#""pg_catalog"."C""#.into());
        let second = r#"t."a ""b""" COLLATE "pg_catalog"."C""#;
        assert_eq!(
            table.after_key("t", 1),
            format!(
                r#"t."id" OPERATOR("pg_catalog".>=) $1::text::bigint AND (t."id" OPERATOR("pg_catalog".>) $1::text::bigint OR t."id" OPERATOR("pg_catalog".=) $1::text::bigint AND ({second} OPERATOR("ext".~>~) $2::text::uuid OR {second} OPERATOR("ext".=) $2::text::uuid AND false))"#
            )
        );
        assert_eq!(
            table.key_order("t"),
            format!(r#"t."id" USING OPERATOR("pg_catalog".<), {second} USING OPERATOR("ext".~<~)"#)
        );
    }

    #[test]
    fn a_batch_is_one_array_a_column() {
        let table = table();
        assert_eq!(
            table.unnest_keys(&[("bigint", "xid")]),
            "unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS u(k0, k1, xid, n)"
        );
        let keys = [
            Key::new(["1".into(), "x".into()]),
            Key::new(["2".into(), "y".into()]),
        ];
        assert_eq!(table.key_arrays(&keys), [["1", "2"], ["x", "y"]]);
    }
}
