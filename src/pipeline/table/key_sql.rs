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
//! ```
//!
//! The key columns are called `k0`, `k1`, … whatever their names are, so that they cannot collide with ours.

use tokio_postgres::types::ToSql;

use super::row::Key;
use super::target::TargetTable;
use crate::postgres::quote::identifier;

impl TargetTable {
    /// The key columns of the row `alias`, in order: `t.id, t.part`.
    pub fn key_columns(&self, alias: &str) -> String {
        self.each_key_column(", ", |_, name, _| format!("{alias}.{name}"))
    }

    /// The key columns as their types print them: `format('%s', t.id) AS k0, …`. The stream carries the same text.
    pub fn key_texts(&self, alias: &str) -> String {
        self.each_key_column(", ", |position, name, _| {
            format!("format('%s', {alias}.{name}) AS k{position}")
        })
    }

    /// The condition that the row `alias` has the key `k0`, `k1`, … of `incoming`.
    pub fn key_join(&self, alias: &str, incoming: &str) -> String {
        self.each_key_column(" AND ", |position, name, _| {
            format!("{alias}.{name} = {incoming}.k{position}")
        })
    }

    /// The keys in `alias`, which came as text, in their own types: `u.k0::bigint AS k0, …`.
    pub fn key_casts(&self, alias: &str) -> String {
        self.each_key_column(", ", |position, _, type_name| {
            format!("{alias}.k{position}::{type_name} AS k{position}")
        })
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
    /// `first`: see [`key_parameters`].
    ///
    /// A row comparison, not `OFFSET`: each page of a scan starts with one index lookup, however far the scan has come.
    pub fn after_key(&self, alias: &str, first: usize) -> String {
        let bounds: Vec<String> = (first..)
            .zip(&self.key)
            .map(|(number, column)| format!("${number}::text::{}", column.type_name))
            .collect();
        format!("({}) > ({})", self.key_columns(alias), bounds.join(", "))
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
    pub fn read_key(&self, row: &tokio_postgres::Row) -> Key {
        Key::new((0..self.key.len()).map(|position| row.get::<_, &str>(position).into()))
    }

    /// Each key column by its place, quoted name and type.
    fn each_key_column(
        &self,
        separator: &str,
        sql: impl Fn(usize, String, &str) -> String,
    ) -> String {
        let columns: Vec<String> = self
            .key
            .iter()
            .enumerate()
            .map(|(position, column)| sql(position, identifier(&column.name), &column.type_name))
            .collect();
        columns.join(separator)
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
    use crate::pipeline::table::target::KeyColumn;

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
        assert_eq!(table.key_columns("t"), r#"t."id", t."a ""b""""#);
        assert_eq!(
            table.key_join("t", "i"),
            r#"t."id" = i.k0 AND t."a ""b""" = i.k1"#
        );
        assert_eq!(table.key_casts("u"), "u.k0::bigint AS k0, u.k1::uuid AS k1");
        assert_eq!(
            table.after_key("t", 2),
            r#"(t."id", t."a ""b""") > ($2::text::bigint, $3::text::uuid)"#
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
