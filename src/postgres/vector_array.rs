//! pgvector's `vector[]` in binary form, for parameters.
//!
//! An array parameter is: dimensions, a flag for nulls, the element type, then length and lower bound of each dimension,
//! then each element behind its length (`array_recv` in `arrayfuncs.c`). A vector is: its dimensions and an unused field,
//! two bytes each, then its numbers (`vector_recv` of pgvector). Everything is in network byte order.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

/// Vectors on their way to a `vector[]` parameter.
#[derive(Debug)]
pub struct VectorArray<'a>(Vec<&'a [f32]>);

impl<'a> VectorArray<'a> {
    /// Deals vectors among arrays like cards: that at `n` goes to array `n % parts`, there at `n / parts`.
    pub fn dealt(vectors: &[&'a [f32]], parts: usize) -> Vec<VectorArray<'a>> {
        let part = |from| vectors.iter().skip(from).step_by(parts).copied();
        (0..parts)
            .map(|from| VectorArray(part(from).collect()))
            .collect()
    }
}

impl ToSql for VectorArray<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Kind::Array(element) = kind.kind() else {
            return Err("the parameter is not an array".into());
        };
        out.reserve(
            20 + self
                .0
                .iter()
                .map(|vector| 8 + 4 * vector.len())
                .sum::<usize>(),
        );
        out.put_i32(1);
        out.put_i32(0);
        out.put_u32(element.oid());
        out.put_i32(i32::try_from(self.0.len())?);
        out.put_i32(1);
        for vector in &self.0 {
            out.put_i32(i32::try_from(4 + 4 * vector.len())?);
            out.put_i16(i16::try_from(vector.len())?);
            out.put_i16(0);
            for number in *vector {
                out.put_f32(*number);
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        matches!(kind.kind(), Kind::Array(element) if element.name() == "vector")
    }

    to_sql_checked!();
}
