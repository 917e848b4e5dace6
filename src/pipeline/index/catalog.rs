//! Reads the indexes of a column that can order rows by a distance of its vectors.
//!
//! Whatever access method they have: what counts is the operator that the catalog has for ordering (`pg_amop`), of the
//! schema of pgvector. So indexes of extensions beside pgvector count, and those over something else than the column or
//! a cast of it (`subvector`, `binary_quantize`) do not.

use tokio_postgres::Row;

use crate::pipeline::table::distance::Distance;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// An index over the vectors of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorIndex {
    /// The OID in `pg_class`.
    pub oid: u32,
    /// As the catalog has it, not quoted.
    pub schema: String,
    /// As the catalog has it, not quoted.
    pub name: String,
    /// The access method: `hnsw`, `ivfflat`.
    pub method: String,
    /// The distance that it serves.
    pub distance: Distance,
    /// The type to which the vectors are cast in it, as SQL; `None` for the column itself.
    pub cast: Option<String>,
    /// A build of it was completed.
    pub is_valid: bool,
    /// It has the rows that have a vector. A partial index with another predicate has only some of them.
    pub is_whole: bool,
    /// It has a predicate, whatever that is.
    pub is_partial: bool,
    /// The index of a partitioned table of which it is a part, not quoted.
    pub parent: Option<String>,
}

impl VectorIndex {
    /// Schema and name, quoted.
    pub fn qualified(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }

    /// Whether a search for the nearest vectors may rely on it.
    pub fn is_usable(&self) -> bool {
        self.is_valid && self.is_whole
    }

    /// What decides between several indexes: the smallest is taken.
    fn rank(&self) -> (Distance, bool, bool, &str) {
        let is_other_method = self.method != "hnsw";
        (
            self.distance,
            self.cast.is_some(),
            is_other_method,
            &self.name,
        )
    }
}

/// The index that a search uses: the cosine first, the column's own type before a cast, HNSW before others.
pub fn best(indexes: &[VectorIndex]) -> Option<&VectorIndex> {
    let usable = indexes.iter().filter(|index| index.is_usable());
    usable.min_by_key(|index| index.rank())
}

/// The server prints the expression of an index as it prints that of a view. The column is a key of the index by its
/// number, or as the operand of a cast to the type of the index's own column.
const STATEMENT: &str = "SELECT c.oid, n.nspname::text, c.relname::text, m.amname::text, o.oprname::text, \
       CASE WHEN i.indkey[0] = 0 THEN format_type(k.atttypid, k.atttypmod) END, \
       i.indisvalid AND i.indisready AND i.indislive, \
       i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) = format('(%I IS NOT NULL)', a.attname), \
       i.indpred IS NOT NULL, \
       (SELECT p.relname::text FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent WHERE h.inhrelid = c.oid) \
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_am m ON m.oid = c.relam \
     JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = 1 \
     JOIN pg_opclass oc ON oc.oid = i.indclass[0] \
     JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoppurpose = 'o' AND ao.amoplefttype = oc.opcintype \
     JOIN pg_operator o ON o.oid = ao.amopopr \
     JOIN pg_type ot ON ot.oid = oc.opcintype AND ot.typnamespace = o.oprnamespace \
     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = $2::text AND NOT a.attisdropped \
     WHERE i.indrelid = $1::oid AND ot.typname IN ('vector', 'halfvec') \
       AND (i.indkey[0] = a.attnum OR i.indkey[0] = 0 AND ltrim(rtrim(pg_get_indexdef(c.oid, 1, false), ')'), '(') \
         = ltrim(rtrim(format('(%I)::%s', a.attname, format_type(k.atttypid, k.atttypmod)), ')'), '(')) \
     ORDER BY c.relname";

/// The indexes of a column of a table. Those of partitions are read from the partitions.
///
/// # Errors
/// The server's.
pub async fn read(
    session: &Session,
    table: u32,
    column: &str,
) -> Result<Vec<VectorIndex>, DatabaseError> {
    session
        .query(STATEMENT, &[&table, &column])
        .await
        .and_then(|rows| {
            rows.iter()
                .filter_map(|row| index(row).transpose())
                .collect()
        })
        .map_err(DatabaseError::during("looking for indexes of the vectors"))
}

/// `None` for one of a distance that is not known.
fn index(row: &Row) -> Result<Option<VectorIndex>, tokio_postgres::Error> {
    let operator: &str = row.try_get(4)?;
    let Some(distance) = Distance::from_operator(operator) else {
        return Ok(None);
    };
    Ok(Some(VectorIndex {
        oid: row.try_get(0)?,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        method: row.try_get(3)?,
        distance,
        cast: row.try_get(5)?,
        is_valid: row.try_get(6)?,
        is_whole: row.try_get(7)?,
        is_partial: row.try_get(8)?,
        parent: row.try_get(9)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str, distance: Distance) -> VectorIndex {
        VectorIndex {
            oid: 1,
            schema: "public".into(),
            name: name.into(),
            method: "hnsw".into(),
            distance,
            cast: None,
            is_valid: true,
            is_whole: true,
            is_partial: false,
            parent: None,
        }
    }

    #[test]
    fn the_cosine_comes_first_and_what_is_invalid_or_partial_does_not_count() {
        let chosen = |indexes: &[VectorIndex]| best(indexes).map(|index| index.name.clone());
        let l2 = index("a", Distance::L2);
        let cosine = index("b", Distance::Cosine);
        let cast = VectorIndex {
            cast: Some("public.halfvec(3)".into()),
            ..index("a", Distance::Cosine)
        };
        let other_method = VectorIndex {
            method: "ivfflat".into(),
            ..index("a", Distance::Cosine)
        };
        let all = [l2.clone(), cast.clone(), other_method, cosine.clone()];
        assert_eq!(chosen(&all).as_deref(), Some("b"));
        assert_eq!(chosen(&[l2.clone(), cast]).as_deref(), Some("a"));
        let unfit = [
            VectorIndex {
                is_valid: false,
                ..cosine.clone()
            },
            VectorIndex {
                is_whole: false,
                ..cosine
            },
        ];
        assert_eq!(chosen(&unfit), None);
        assert_eq!(chosen(&[unfit[0].clone(), l2]).as_deref(), Some("a"));
    }
}
