//! What users do where the rows hold documents.

use super::tables::load;
use super::texts;
use crate::workload::User;

/// Where a document is edited: at its beginning, in the middle, at its end.
const PLACES: [&str; 3] = ["0", "0.5", "0.999"];

/// How many documents of each user get another key at the end.
const LAST_MOVES: u64 = 6;

impl User {
    /// The text of a document, as SQL, which may be NULL or empty.
    pub fn document(&mut self) -> String {
        match self.random.below(14) {
            0 => "NULL".to_owned(),
            1 => "''".to_owned(),
            2..4 => self.short_text(),
            _ => quoted(&texts::document(&mut self.random)),
        }
    }

    /// What to do next: one statement, or those of a transaction.
    pub fn next_of_documents(&mut self) -> Vec<String> {
        match self.random.below(100) {
            0..68 => vec![self.change_of_document()],
            68..71 => vec![self.load_documents()],
            71 => vec![self.equal_texts()],
            72..78 => vec![self.hot_document()],
            78 if self.truncates => vec!["TRUNCATE notes".to_owned()],
            79 if self.truncates => self.truncate_and_insert(),
            80..84 => self.chain_of_keys(),
            84..87 => self.swap_of_keys(),
            _ => self.transaction(),
        }
    }

    /// One statement on documents.
    pub fn change_of_document(&mut self) -> String {
        let (row, text) = (self.row(), self.document());
        let is = self.shape.is(row);
        match self.random.below(20) {
            0..5 => self.insert_document(row, &text),
            5 | 6 => format!("UPDATE notes SET body = {text} WHERE {is}"),
            7..12 => self.edit(row),
            12 => format!("UPDATE notes SET views = views + 1 WHERE {is}"),
            13..15 => format!(
                "UPDATE notes SET other = {} WHERE {is}",
                texts::field(&mut self.random)
            ),
            15 | 16 => format!("DELETE FROM notes WHERE {is}"),
            17 => self.change_few(&text),
            _ => self.change_key_of(row, &text),
        }
    }

    fn insert_document(&mut self, row: u64, text: &str) -> String {
        format!(
            "INSERT INTO notes ({keys}, body, other) VALUES ({key}, {text}, {other}) \
             ON CONFLICT ({keys}) DO UPDATE SET body = excluded.body",
            keys = self.shape.key_columns(),
            key = self.shape.key(row),
            other = texts::field(&mut self.random),
        )
    }

    /// Edits a paragraph, which shifts the passages behind it.
    fn edit(&mut self, row: u64) -> String {
        let what = *self.random.pick(&[
            "insert", "insert", "append", "delete", "delete", "rewrite", "rewrite", "rotate",
            "lengthen",
        ]);
        let place = *self.random.pick(&PLACES);
        let fresh = quoted(&texts::paragraph(&mut self.random));
        let also = match self.random.below(8) {
            0 => ", views = views + 1".to_owned(),
            1 => format!(", other = {}", texts::field(&mut self.random)),
            _ => String::new(),
        };
        format!(
            "UPDATE notes SET body = edited(body, '{what}', {place}, {fresh}){also} WHERE {}",
            self.shape.is(row)
        )
    }

    /// Many edits of one document, or of its field, in one moment; in one transaction, or in one each.
    pub fn hot_document(&mut self) -> String {
        let row = self.row();
        let is = self.shape.is(row);
        let times = self.random.within(3..30);
        let fresh = quoted(&texts::paragraph(&mut self.random));
        let commit = *self.random.pick(&["COMMIT;", "COMMIT;", ""]);
        let last = match self.random.below(4) {
            0 => format!("DELETE FROM notes WHERE {is}"),
            1 => format!("UPDATE notes SET other = 'w' || {times} WHERE {is}"),
            2 => self.insert_document(row, &fresh),
            _ => self.edit(row),
        };
        format!(
            "DO $do$ BEGIN FOR i IN 1..{times} LOOP \
               UPDATE notes SET body = edited(body, CASE i % 3 WHEN 0 THEN 'insert' WHEN 1 THEN 'rewrite' ELSE 'delete' END, \
                 (i % 4) / 4.0, 'w' || i || ' w3. ' || {fresh}) WHERE {is}; {commit} \
             END LOOP; {last}; END $do$"
        )
    }

    /// Documents get keys that no document had, and leave keys that none gets again: no later change mends what is left
    /// under them.
    pub fn last_moves(&mut self) -> Vec<String> {
        let moves = (0..LAST_MOVES).map(|number| {
            let row = self.row();
            self.rename(row, self.fresh_row(number))
        });
        moves.collect()
    }

    fn load_documents(&mut self) -> String {
        let from = self.first_bulk_row();
        let to = from + self.random.within(20..150);
        load(&self.shape, from, to)
    }

    /// Everyone's rows are gone, and some of this user's are back, at one moment.
    fn truncate_and_insert(&mut self) -> Vec<String> {
        let mut statements = vec!["BEGIN".to_owned(), "TRUNCATE notes".to_owned()];
        for _ in 0..self.random.within(1..6) {
            let (row, text) = (self.row(), self.document());
            statements.push(self.insert_document(row, &text));
        }
        statements.push((*self.random.pick(&["COMMIT", "COMMIT", "ROLLBACK"])).to_owned());
        statements
    }

    /// b becomes c and a becomes b, in one transaction.
    fn chain_of_keys(&mut self) -> Vec<String> {
        let [a, b, c] = [self.row(), self.row(), self.row()];
        let mut statements = vec!["BEGIN".to_owned(), self.rename(b, c), self.rename(a, b)];
        if self.random.percent(30) {
            statements.push(self.edit(b));
        }
        statements.push(
            (*self
                .random
                .pick(&["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]))
            .to_owned(),
        );
        statements
    }

    /// Two rows exchange their keys.
    fn swap_of_keys(&mut self) -> Vec<String> {
        let [a, b] = [self.row(), self.row()];
        let between = self.spare_row();
        let statements = [
            "BEGIN".to_owned(),
            self.rename(a, between),
            self.rename(b, a),
            self.rename(between, b),
            "COMMIT".to_owned(),
        ];
        statements.into()
    }
}

/// A text as an SQL literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
