//! Rows: the TupleData part of Insert, Update and Delete.
//!
//! ```text
//! count (2 bytes), then for each column:
//!   n              NULL
//!   u              an unchanged TOAST value, which is not sent
//!   t length text  or  b length bytes
//! ```

use std::str;

use super::reader::{DecodeError, Reader};

/// One value of a row. Its column is the one at the same index of the Relation message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// A value that is stored out of line (TOAST) and that the update did not change, so the WAL does not have it.
    UnchangedToast,
    /// In the text format of its type.
    Text(&'a [u8]),
    /// In the binary format of its type; only if the stream was started with `binary`.
    Binary(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The text of a text value. `None` if it is not UTF-8, which does not occur if `client_encoding` is UTF8.
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            Value::Text(bytes) => str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Value<'a>, DecodeError> {
        let kind = reader.u8()?;
        match kind {
            b'n' => Ok(Value::Null),
            b'u' => Ok(Value::UnchangedToast),
            b't' | b'b' => {
                let length = reader.u32()?;
                let bytes = reader.take(length as usize)?;
                Ok(if kind == b't' {
                    Value::Text(bytes)
                } else {
                    Value::Binary(bytes)
                })
            }
            kind => Err(DecodeError::UnknownValue(kind)),
        }
    }
}

/// The values of one row, in the order of the columns of its Relation.
///
/// Borrows the bytes of the message, which were checked when it was decoded. Iterating reads them again instead of
/// allocating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TupleData<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> TupleData<'a> {
    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<TupleData<'a>, DecodeError> {
        let count = reader.u16()?;
        let bytes = reader.span(|reader| {
            for _ in 0..count {
                Value::read(reader)?;
            }
            Ok(())
        })?;
        Ok(TupleData { count, bytes })
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.count.into()
    }

    /// Whether the row has no columns, as for a table without any.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values, in the order of the columns.
    pub fn iter(&self) -> Values<'a> {
        Values {
            remaining: self.len(),
            reader: Reader::new(self.bytes),
        }
    }

    /// The value at `index`, or `None` if the row is shorter. Reads all values before it.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        self.iter().nth(index)
    }
}

impl<'a> IntoIterator for TupleData<'a> {
    type Item = Value<'a>;
    type IntoIter = Values<'a>;

    fn into_iter(self) -> Values<'a> {
        self.iter()
    }
}

/// An iterator over the values of a row.
#[derive(Clone)]
pub struct Values<'a> {
    remaining: usize,
    reader: Reader<'a>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        // The bytes were checked when the message was decoded, so an error can only be their end.
        let value = Value::read(&mut self.reader).ok()?;
        self.remaining -= 1;
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Values<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_in_order_and_by_index() {
        let bytes = b"\0\x04t\0\0\0\x02hinb\0\0\0\x01\xFFu";
        let row = TupleData::read(&mut Reader::new(bytes)).unwrap();
        assert_eq!((row.len(), row.iter().len()), (4, 4));
        assert_eq!(row.get(0).and_then(Value::as_str), Some("hi"));
        assert_eq!(row.get(1), Some(Value::Null));
        assert_eq!(row.get(2), Some(Value::Binary(b"\xFF")));
        assert_eq!(row.get(3), Some(Value::UnchangedToast));
        assert_eq!(row.get(4), None);
    }

    #[test]
    fn a_row_without_columns_is_a_row() {
        let row = TupleData::read(&mut Reader::new(b"\0\0")).unwrap();
        assert!(row.is_empty() && row.iter().next().is_none());
    }
}
