//! The users: clients that change their own rows of one table at random. None of their statements may fail.
//!
//! Each client owns a range of row numbers. So users never wait for each other, TRUNCATE excepted, and what a statement
//! waits for is the daemon. What they do with documents is in [`edits`](super::documents::edits).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use testkit::client::{connect_when_ready, try_connect};
use testkit::random::Random;
use testkit::tiny_model::{long_text, short_text};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::documents::edits::quoted;
use super::record::Record;
use super::shape::{REJECTED, Shape, Triggers, UNCLEAN};

/// The clients' `application_name`.
pub const USER: &str = "chaos-user";
/// Row numbers of each client that are changed one by one; those of bulk loads follow.
const HOT_ROWS: u64 = 40;
const ROWS: u64 = 10_000;

pub struct User {
    pub number: u64,
    pub uri: String,
    pub shape: Shape,
    /// The texts are documents.
    pub has_documents: bool,
    /// Where they are documents, TRUNCATE is among the statements.
    pub truncates: bool,
    pub random: Random,
    pub record: Arc<Record>,
    pub stop: Arc<AtomicBool>,
}

impl User {
    /// Works until told to stop. Reconnects after the server was down.
    pub async fn run(mut self) {
        let mut client = connect_when_ready(&self.uri, USER).await;
        while !self.stop.load(Ordering::SeqCst) {
            let statements = self.next();
            for statement in &statements {
                if !self.execute(&client, statement).await {
                    client = self.reconnect().await;
                    break;
                }
            }
            let pause = self.random.below(25);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        // The last versions of a document come in a burst: no later change mends what one of them does to it.
        if self.has_documents {
            let moves = self.last_moves();
            let burst = self.hot_document();
            for statement in moves.iter().chain([&burst]) {
                self.execute(&client, statement).await;
            }
        }
    }

    async fn reconnect(&self) -> Client {
        let began = Instant::now();
        loop {
            match try_connect(&self.uri, USER).await {
                Ok(client) => return client,
                Err(error) if !self.record.outage_since(began) => {
                    self.record
                        .violation(format!("a user cannot connect: {error:?}"));
                    return connect_when_ready(&self.uri, USER).await;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// False where the connection is gone.
    async fn execute(&self, client: &Client, statement: &str) -> bool {
        let began = Instant::now();
        let result = client.batch_execute(statement).await;
        match result {
            Ok(()) => {
                if !self.record.outage_since(began) {
                    self.record.statement(began.elapsed());
                }
                true
            }
            Err(error) if self.record.outage_since(began) && is_outage(&error) => false,
            Err(error) => {
                let shown: String = statement.chars().take(300).collect();
                self.record
                    .violation(format!("a user's statement failed: {error:?}: {shown}"));
                // Out of the transaction, if there is one.
                !client.is_closed() && client.batch_execute("ROLLBACK").await.is_ok()
            }
        }
    }

    /// One row of this client's.
    pub fn row(&mut self) -> u64 {
        self.number * ROWS + self.random.below(HOT_ROWS)
    }

    /// A row that exists within transactions alone.
    pub fn spare_row(&self) -> u64 {
        self.number * ROWS + ROWS - 1
    }

    /// A row that no other change makes.
    pub fn fresh_row(&self, number: u64) -> u64 {
        self.spare_row() - 1 - number
    }

    /// The first of some rows for a bulk load.
    pub fn first_bulk_row(&mut self) -> u64 {
        self.number * ROWS + HOT_ROWS + self.random.below(2000)
    }

    /// A text of a few words, as SQL, now and then one that a trigger is about.
    pub fn short_text(&mut self) -> String {
        let text = short_text(&mut self.random);
        match self.random.below(4) {
            0 if self.shape.rejects => quoted(&format!("{REJECTED} {text}")),
            1 if self.shape.triggers == Triggers::Clean => quoted(&format!("{UNCLEAN} {text}")),
            _ => quoted(&text),
        }
    }

    fn text(&mut self) -> String {
        match self.random.below(12) {
            0 => "NULL".to_owned(),
            1 => "''".to_owned(),
            2 | 3 => quoted(&long_text(&mut self.random)),
            4 if self.shape.rejects => {
                quoted(&format!("{REJECTED} {}", short_text(&mut self.random)))
            }
            5 if self.shape.triggers == Triggers::Clean => {
                quoted(&format!("{UNCLEAN} {}", short_text(&mut self.random)))
            }
            _ => quoted(&short_text(&mut self.random)),
        }
    }

    /// What to do next: one statement, or those of a transaction.
    fn next(&mut self) -> Vec<String> {
        if self.has_documents {
            return self.next_of_documents();
        }
        match self.random.below(100) {
            0..80 => vec![self.change()],
            80..83 => vec![self.bulk_load()],
            83 => vec![self.equal_texts()],
            84..88 => vec![self.hot_rows()],
            88 => vec!["TRUNCATE notes".to_owned()],
            _ => self.transaction(),
        }
    }

    pub fn transaction(&mut self) -> Vec<String> {
        let mut statements = vec!["BEGIN".to_owned()];
        for _ in 0..self.random.within(1..6) {
            if self.random.percent(20) {
                statements.extend([
                    "SAVEPOINT s".to_owned(),
                    self.change(),
                    (*self.random.pick(&["ROLLBACK TO s", "RELEASE s"])).to_owned(),
                ]);
            } else {
                statements.push(self.change());
            }
            if self.random.percent(20) {
                statements.push(format!("SELECT pg_sleep(0.0{})", self.random.below(10)));
            }
        }
        statements.push((*self.random.pick(&["COMMIT", "COMMIT", "ROLLBACK"])).to_owned());
        statements
    }

    fn change(&mut self) -> String {
        if self.has_documents {
            return self.change_of_document();
        }
        let (row, text) = (self.row(), self.text());
        let (shape, is) = (self.shape.clone(), self.shape.is(row));
        match self.random.below(20) {
            0..7 => format!(
                "INSERT INTO notes ({keys}, body) VALUES ({key}, {text}) ON CONFLICT ({keys}) DO UPDATE SET body = excluded.body",
                keys = shape.key_columns(),
                key = shape.key(row)
            ),
            7..11 => format!("UPDATE notes SET body = {text} WHERE {is}"),
            11..14 => format!("UPDATE notes SET views = views + 1 WHERE {is}"),
            14 => format!("UPDATE notes SET body = body || ' w7', views = views + 1 WHERE {is}"),
            15 => format!("DELETE FROM notes WHERE {is}"),
            16 => self.change_few(&text),
            _ => self.change_key_of(row, &text),
        }
    }

    /// Some rows get one text.
    pub fn change_few(&self, text: &str) -> String {
        let from = self.number * ROWS;
        let keys: Vec<String> = (from..from + 10)
            .map(|row| format!("({})", self.shape.key(row)))
            .collect();
        format!(
            "UPDATE notes SET body = {text} WHERE ({}) IN ({})",
            self.shape.key_columns(),
            keys.join(", ")
        )
    }

    /// A row gets another key, and now and then this text.
    pub fn change_key_of(&mut self, row: u64, text: &str) -> String {
        let other = self.row();
        match self.random.percent(30) {
            true => self.rename_with(row, other, &format!(", body = {text}")),
            false => self.rename(row, other),
        }
    }

    /// A row gets the key of another one that there is not.
    pub fn rename(&self, row: u64, other: u64) -> String {
        self.rename_with(row, other, "")
    }

    fn rename_with(&self, row: u64, other: u64, also: &str) -> String {
        format!(
            "UPDATE notes SET {}{also} WHERE {} AND NOT EXISTS (SELECT FROM notes WHERE {})",
            self.shape.set(other),
            self.shape.is(row),
            self.shape.is(other)
        )
    }

    /// Many changes of few rows, in one moment: of their texts, and at the end now and then to none, or of their keys.
    fn hot_rows(&mut self) -> String {
        let (row, other, text) = (self.row(), self.row(), self.text());
        let shape = self.shape.clone();
        let times = self.random.within(5..60);
        let last = match self.random.below(4) {
            0 => format!(
                "UPDATE notes SET {} WHERE {} AND NOT EXISTS (SELECT FROM notes WHERE {})",
                shape.set(other),
                shape.is(row),
                shape.is(other)
            ),
            _ => format!("UPDATE notes SET body = {text} WHERE {}", shape.is(row)),
        };
        format!(
            "DO $do$ BEGIN FOR i IN 1..{times} LOOP \
               UPDATE notes SET body = 'w' || i || ' w' || i % 7 WHERE {} OR {}; \
             END LOOP; {last}; END $do$",
            shape.is(row),
            shape.is(other)
        )
    }

    /// Rows with one and the same text.
    pub fn equal_texts(&mut self) -> String {
        let from = self.first_bulk_row();
        let to = from + self.random.within(50..400);
        format!(
            "INSERT INTO notes ({keys}, body) SELECT {key}, 'w5 w6 w7' FROM generate_series({from}, {to}) n \
             ON CONFLICT ({keys}) DO UPDATE SET body = excluded.body",
            keys = self.shape.key_columns(),
            key = self.shape.key("n"),
        )
    }

    fn bulk_load(&mut self) -> String {
        let from = self.first_bulk_row();
        let to = from + self.random.within(50..400);
        load(&self.shape, from, to)
    }
}

/// The rows of so many clients that are changed one by one.
pub fn hot_rows_of(clients: u64) -> impl Iterator<Item = u64> {
    (0..clients).flat_map(|number| number * ROWS..number * ROWS + HOT_ROWS)
}

/// Inserts rows `from` to `to`, with texts that follow from their numbers; existing rows stay as they are.
pub fn load(shape: &Shape, from: u64, to: u64) -> String {
    format!(
        "INSERT INTO notes ({keys}, body) SELECT {key}, CASE WHEN n % 17 = 0 THEN NULL ELSE 'w' || n % 400 || ' w' || n % 391 END \
         FROM generate_series({from}, {to}) n ON CONFLICT DO NOTHING",
        keys = shape.key_columns(),
        key = shape.key("n"),
    )
}

/// Whether clients see this error when the server stops.
fn is_outage(error: &tokio_postgres::Error) -> bool {
    let codes = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
    ];
    error.code().is_none_or(|code| codes.contains(code))
}
