//! Documents that no user changes, so that nothing mends what a fault does to them.

use tokio_postgres::{Client, Error};

use super::edits::quoted;
use super::texts::BREAK;
use crate::shape::Shape;

/// Their rows. A TRUNCATE takes them, too.
const ROWS: std::ops::Range<u64> = 999_900..999_910;
/// Enough for several passages.
const PARAGRAPHS: u64 = 6;

/// What becomes of their texts.
#[derive(Clone, Copy)]
pub enum Edit {
    /// A passage changes.
    Lengthen,
    /// A new paragraph comes first, and all passages move.
    Shift,
}

/// Changes the text of each of them, or makes those that are not there.
pub async fn edit(client: &Client, shape: &Shape, edit: Edit) -> Result<(), Error> {
    let edited = match edit {
        Edit::Lengthen => "'lengthen', 0, ''",
        Edit::Shift => "'insert', 0, 'w21 w22 w23 w24 w25 w26 w27 w28 w29 w30 w31 w32 w33.'",
    };
    let paragraph = |number: u64| {
        let words: Vec<String> = (0..11)
            .map(|word| format!("w{}", number * 11 + word))
            .collect();
        words.join(" ") + "."
    };
    let text: Vec<String> = (3..3 + PARAGRAPHS).map(paragraph).collect();
    let text = quoted(&text.join(BREAK));
    let rows: Vec<String> = ROWS
        .map(|row| format!("({}, {text})", shape.key(row)))
        .collect();
    let statement = format!(
        "INSERT INTO notes ({keys}, body) VALUES {rows} ON CONFLICT ({keys}) DO UPDATE SET body = edited(notes.body, {edited})",
        keys = shape.key_columns(),
        rows = rows.join(", "),
    );
    client.batch_execute(&statement).await
}
