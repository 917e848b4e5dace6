//! How a table is stored, and what follows for the versions of rows that write-backs leave behind.

use crate::pipeline::setup::preflight::points::Outcome;
use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};

/// Where a table has fewer rows, advice about its storage is not worth a person's time.
pub(super) const MANY_ROWS: f64 = 10_000.0;

/// How a table, or all of its partitions, are stored.
pub(super) struct Storage {
    /// By the statistics; negative where there are none.
    pub rows: f64,
    pub bytes: i64,
    /// The lowest of all partitions.
    pub fillfactor: i32,
    pub autovacuum: bool,
    pub scale_factor: f64,
}

impl Storage {
    /// Reads it for the table with this OID.
    ///
    /// # Errors
    /// The server's.
    pub async fn read(session: &Session, oid: u32) -> Result<Storage, DatabaseError> {
        let found: (f64, i64, i32, bool, f64) = session
            .query_one(
                "WITH RECURSIVE parts AS ( \
                   SELECT c.oid, c.relkind FROM pg_class c WHERE c.oid = $1 \
                   UNION ALL SELECT c.oid, c.relkind FROM parts p JOIN pg_inherits i ON i.inhparent = p.oid \
                   JOIN pg_class c ON c.oid = i.inhrelid WHERE p.relkind = 'p'), \
                 leaves AS (SELECT c.*, (SELECT option_value FROM pg_options_to_table(c.reloptions) \
                                         WHERE option_name = 'fillfactor')::int AS fill, \
                                   (SELECT option_value FROM pg_options_to_table(c.reloptions) \
                                    WHERE option_name = 'autovacuum_enabled')::bool AS vacuums, \
                                   (SELECT option_value FROM pg_options_to_table(c.reloptions) \
                                    WHERE option_name = 'autovacuum_vacuum_scale_factor')::float8 AS scale \
                            FROM parts p JOIN pg_class c ON c.oid = p.oid WHERE p.relkind = 'r') \
                 SELECT COALESCE(CASE WHEN bool_or(reltuples >= 0) THEN sum(greatest(reltuples, 0)) ELSE -1 END, \
                        0)::float8, COALESCE(sum(pg_relation_size(oid)), 0)::bigint, \
                        COALESCE(min(COALESCE(fill, 100)), 100), \
                        COALESCE(bool_and(COALESCE(vacuums, true)), true) AND current_setting('autovacuum')::bool, \
                        COALESCE(max(COALESCE(scale, current_setting('autovacuum_vacuum_scale_factor')::float8)), 0) \
                 FROM leaves",
                &[&oid],
            )
            .await
            .and_then(|row| columns(&row))
            .map_err(DatabaseError::during("reading how the table is stored"))?;
        let (rows, bytes, fillfactor, autovacuum, scale_factor) = found;
        Ok(Storage {
            rows,
            bytes,
            fillfactor,
            autovacuum,
            scale_factor,
        })
    }

    /// Where autovacuum is off, or begins late. `what` names rows of the table, whose name is quoted.
    pub fn advise_on_autovacuum(&self, table: &str, what: &str) -> Option<Outcome> {
        if !self.autovacuum {
            return Some(Outcome::Advice(format!(
                "off: the versions of {what} that write-backs replace stay until VACUUM {table}; is run"
            )));
        }
        let dead = self.rows * self.scale_factor;
        (dead >= 100.0 * MANY_ROWS).then(|| {
            Outcome::Advice(format!(
                "begins only after about {} replaced {what}; earlier: ALTER TABLE {table} SET \
                 (autovacuum_vacuum_scale_factor = 0.02);",
                rounded(dead)
            ))
        })
    }
}

/// An estimate with two digits: more of them would promise too much.
pub(super) fn rounded(number: f64) -> f64 {
    let unit = 10_f64.powf((number.max(1.0).log10().floor() - 1.0).max(0.0));
    (number / unit).round() * unit
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn an_estimate_has_two_digits() {
        for (number, expected) in [
            (0.0, 0.0),
            (7.4, 7.0),
            (99.6, 100.0),
            (20_065.0, 20_000.0),
            (1_350_000.0, 1_400_000.0),
        ] {
            assert!((rounded(number) - expected).abs() < 1e-6, "{number}");
        }
    }
}
