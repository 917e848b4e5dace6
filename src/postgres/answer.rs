//! Reading the rows of an answer, whatever the server has sent.
//!
//! The driver's `Row::get` panics at a value of another type than expected. PostgreSQL never sends one, but a target
//! server is of a row author's choice and may be anything. So answers are read with `try_get`, in the same expression as
//! the query, and what was asked stands in the error: `query(…).await.and_then(|row| columns(&row)).map_err(during(…))`.

use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Error, Row};

/// All columns of a row, in their order, as a tuple.
///
/// # Errors
/// A column is missing, or its value has another type.
pub fn columns<T: Columns>(row: &Row) -> Result<T, Error> {
    T::read(row)
}

/// The columns of each row.
///
/// # Errors
/// As [`columns`].
pub fn all<T: Columns>(rows: &[Row]) -> Result<Vec<T>, Error> {
    rows.iter().map(columns).collect()
}

/// What [`columns`] can make of a row.
pub trait Columns: Sized {
    /// Reads the row.
    ///
    /// # Errors
    /// As [`columns`].
    fn read(row: &Row) -> Result<Self, Error>;
}

macro_rules! tuples {
    ($($name:ident $index:tt),+) => {
        impl<$($name: FromSqlOwned),+> Columns for ($($name,)+) {
            fn read(row: &Row) -> Result<Self, Error> {
                Ok(($(row.try_get::<_, $name>($index)?,)+))
            }
        }
    };
}

tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);
tuples!(A 0, B 1, C 2, D 3, E 4);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
