//! What goes to the writer, and what became of it.

use crate::pipeline::table::row::{Row, SourceText};

/// A row with its vector.
#[derive(Debug, Clone)]
pub struct EmbeddedRow {
    /// The row. Its text guards the write-back.
    pub row: Row,
    /// As many numbers as the destination has dimensions; `None` clears the destination.
    pub vector: Option<Vec<f32>>,
}

/// What became of one row of a batch. The numbers are those of the statement's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Outcome {
    /// The destination holds the vector of this text, or nothing where the text is empty.
    Written = 0,
    /// Another session holds the row or changed it this very moment: retry.
    Locked = 1,
    /// The row is gone: finished.
    Superseded = 2,
    /// The change was streamed before its commit became visible: retry.
    ///
    /// A commit first flushes its WAL record, which wakes the walsenders, then waits for synchronous standbys, and only
    /// then leaves the list of running transactions (`RecordTransactionCommit` and `CommitTransaction` in `xact.c`). In
    /// between, a snapshot of ours does not see what the stream has already brought.
    NotYetVisible = 3,
    /// A trigger of the table has canceled the update.
    Canceled = 4,
    /// The row is there with another text. Nearly always that is of a later change, which the stream brings: then the row is
    /// superseded. But a text may also change without a change of its row, as when a label of an enum is renamed.
    Changed = 5,
}

impl Outcome {
    /// The outcome that the statement reports by this number.
    pub fn from_number(number: i32) -> Self {
        match number {
            0 => Outcome::Written,
            1 => Outcome::Locked,
            2 => Outcome::Superseded,
            3 => Outcome::NotYetVisible,
            4 => Outcome::Canceled,
            _ => Outcome::Changed,
        }
    }
}

/// What the source of a row holds, read by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// A text to embed, or an empty source to clear the destination for.
    Found(SourceText),
    /// The row's fingerprint says that its vector is that of its text: there is nothing to do.
    Current,
    /// The row does not exist.
    Gone,
    /// As [`Outcome::NotYetVisible`]: what is there now may be the row as it was before the change.
    NotYetVisible,
}

impl Reading {
    /// The length of the text, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Reading::Found(source) => source.bytes(),
            Reading::Current | Reading::Gone | Reading::NotYetVisible => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_number() {
        use Outcome::*;
        for outcome in [
            Written,
            Locked,
            Superseded,
            NotYetVisible,
            Canceled,
            Changed,
        ] {
            assert_eq!(Outcome::from_number(outcome as i32), outcome);
        }
    }
}
