//! Documents that no user changes, so that nothing mends what a fault does to them but a scan, or a TRUNCATE. Each fault
//! has some of its own.

use tokio_postgres::{Client, Error};

use super::edits::quoted;
use super::texts::BREAK;
use crate::shape::Shape;

/// The first row of those of the first fault.
const FIRST: u64 = 990_000;
/// From the first row of a fault to that of the next one.
const APART: u64 = 20;
/// How many rows a fault has.
const NUMBER: u64 = 6;
/// Enough for several passages.
const PARAGRAPHS: u64 = 6;
/// A paragraph that no text begins with.
const FRESH: &str = "'w21 w22 w23 w24 w25 w26 w27 w28 w29 w30 w31 w32 w33.'";

/// The rows of a fault.
#[derive(Clone, Copy, Debug)]
pub struct QuietRows {
    first: u64,
}

/// What becomes of the documents.
#[derive(Clone, Copy, Debug)]
pub enum Edit {
    /// A passage of each changes.
    Lengthen,
    /// A new paragraph comes first in each, and all passages move.
    Shift,
    /// Each is changed in a way of its own, in one transaction: a passage changes, all passages move, it is deleted, it
    /// is deleted and inserted with another text, it gets another key, it loses its text.
    Each,
}

impl QuietRows {
    /// The rows of the fault with this number.
    pub fn of_fault(number: usize) -> Self {
        QuietRows {
            first: FIRST + APART * number as u64,
        }
    }

    /// The numbers of the rows, with that of the key that one of them gets.
    pub fn numbers(self) -> impl Iterator<Item = u64> {
        self.edited().chain([self.other_key()])
    }

    /// The numbers of the rows that are edited.
    pub fn edited(self) -> impl Iterator<Item = u64> {
        self.first..self.first + NUMBER
    }

    fn other_key(self) -> u64 {
        self.first + APART - 1
    }

    /// The statement that makes those that are not there.
    pub fn create(self, shape: &Shape) -> String {
        self.upsert(shape, "NOTHING")
    }

    /// Changes the documents, and makes those that are not there.
    pub async fn edit(self, client: &Client, shape: &Shape, edit: Edit) -> Result<(), Error> {
        let edited = |how: &str| format!("edited(notes.body, {how})");
        let (lengthened, shifted) = (
            edited("'lengthen', 0, ''"),
            edited(&format!("'insert', 0, {FRESH}")),
        );
        let statements = match edit {
            Edit::Lengthen => self.upsert(shape, &format!("UPDATE SET body = {lengthened}")),
            Edit::Shift => self.upsert(shape, &format!("UPDATE SET body = {shifted}")),
            Edit::Each => {
                let update = |place: u64, set: &str| {
                    format!(
                        "; UPDATE notes SET {set} WHERE {}",
                        shape.is(self.first + place)
                    )
                };
                let delete = |place: u64| {
                    format!("; DELETE FROM notes WHERE {}", shape.is(self.first + place))
                };
                [
                    self.create(shape),
                    update(0, &format!("body = {lengthened}")),
                    update(1, &format!("body = {shifted}")),
                    delete(2),
                    delete(3),
                    format!(
                        "; INSERT INTO notes ({}, body) VALUES ({}, {FRESH})",
                        shape.key_columns(),
                        shape.key(self.first + 3)
                    ),
                    update(4, &shape.set(self.other_key())),
                    update(5, "body = NULL"),
                ]
                .concat()
            }
        };
        // Sent together, they are one transaction.
        client.batch_execute(&statements).await
    }

    fn upsert(self, shape: &Shape, otherwise: &str) -> String {
        let paragraph = |number: u64| {
            let words = (0..11).map(|word| format!("w{}", number * 11 + word));
            words.collect::<Vec<_>>().join(" ") + "."
        };
        let text: Vec<String> = (3..3 + PARAGRAPHS).map(paragraph).collect();
        let text = quoted(&text.join(BREAK));
        let rows = self
            .edited()
            .map(|row| format!("({}, {text})", shape.key(row)))
            .collect::<Vec<_>>();
        format!(
            "INSERT INTO notes ({keys}, body) VALUES {rows} ON CONFLICT ({keys}) DO {otherwise}",
            keys = shape.key_columns(),
            rows = rows.join(", "),
        )
    }
}
