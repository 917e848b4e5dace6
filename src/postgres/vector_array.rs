//! pgvector's `vector[]` in binary form, for parameters.
//!
//! ```text
//! array:   dimensions, null flag, element type, then for each dimension length and lower bound,
//!          then each element after its length                        (array_recv in PostgreSQL's arrayfuncs.c)
//! vector:  dimensions (2 bytes), unused (2 bytes), then the numbers  (vector_recv of pgvector)
//! ```
//!
//! All numbers are in network byte order.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

/// The elements of a `vector[]` parameter.
#[derive(Debug)]
pub struct VectorArray<'a>(Vec<&'a [f32]>);

impl<'a> VectorArray<'a> {
    /// These vectors, in order.
    pub fn new(vectors: Vec<&'a [f32]>) -> Self {
        VectorArray(vectors)
    }

    /// Distributes vectors over `parts` arrays in turn: the vector at index `n` goes to array `n % parts`, at index
    /// `n / parts`.
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
