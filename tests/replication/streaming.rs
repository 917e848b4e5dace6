//! Streaming changes from a real server.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use futures_util::FutureExt;
use lantern::postgres::quote;
use lantern::postgres::sqlstate::classify;
use lantern::replication::pgoutput::{
    Message, RelationId, RelationSchema, TupleData, Value, decode,
};
use lantern::replication::{
    Frame, Lsn, ReplicationConnection, ReplicationError, ReplicationStream, SlotName,
};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use crate::postgres::{eventually, open, server};

/// A database with a table `docs` that is published, a slot, and a stream from it.
struct Scene {
    client: Client,
    slot: SlotName,
    publication: &'static str,
    stream: ReplicationStream,
    relations: HashMap<RelationId, RelationSchema>,
}

impl Scene {
    async fn new(name: &str) -> Scene {
        Scene::with_publication(name, "docs_publication").await
    }

    async fn with_publication(name: &str, publication: &'static str) -> Scene {
        let client = server().create_database(name).await;
        let mut connection = server().connect(name).await;
        let table = "CREATE TABLE docs (id int PRIMARY KEY, body text, views int)";
        connection.simple_query(table).await.unwrap();
        let publish = format!(
            "CREATE PUBLICATION {} FOR TABLE docs",
            quote::identifier(publication)
        );
        connection.simple_query(&publish).await.unwrap();
        let create = format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput NOEXPORT_SNAPSHOT");
        let rows = connection.simple_query(&create).await.unwrap();
        assert_eq!(rows[0][0].as_deref(), Some(name));
        let slot = SlotName::try_from(name).unwrap();
        let stream = connection
            .start_replication(&slot, Lsn::ZERO, &[publication])
            .await
            .unwrap();
        Scene {
            client,
            slot,
            publication,
            stream,
            relations: HashMap::new(),
        }
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    /// The next message as text, and the position to confirm if it is a commit. Answers keepalives.
    async fn next(&mut self) -> (String, Option<Lsn>) {
        loop {
            match self.stream.next().await.unwrap() {
                Frame::XLogData { payload, .. } => return self.take(&payload),
                Frame::Keepalive {
                    reply_requested: true,
                    ..
                } => {
                    self.stream.send_status(Lsn::ZERO, false).await.unwrap();
                }
                Frame::Keepalive { .. } => {}
            }
        }
    }

    /// How far the server has written its WAL.
    async fn flushed(&self) -> Lsn {
        let ask = "SELECT pg_current_wal_flush_lsn()::text";
        let row = self.client.query_one(ask, &[]).await.unwrap();
        row.get::<_, &str>(0).parse().unwrap()
    }

    /// The position of the next keepalive.
    async fn keepalive(&mut self) -> Lsn {
        loop {
            if let Frame::Keepalive { wal_end, .. } = self.stream.next().await.unwrap() {
                return wal_end;
            }
        }
    }

    /// The changes of the next transaction, and the position to confirm.
    async fn transaction(&mut self) -> (Vec<String>, Lsn) {
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                (_, Some(end)) => return (messages, end),
                (message, None) if message == "begin" || message.starts_with("relation") => {}
                (message, None) => messages.push(message),
            }
        }
    }

    fn take(&mut self, payload: &[u8]) -> (String, Option<Lsn>) {
        let message = decode(payload).unwrap();
        let end = match message {
            Message::Relation(body) => {
                self.relations.insert(body.id, body.to_owned());
                None
            }
            Message::Commit { end_lsn, .. } => Some(end_lsn),
            _ => None,
        };
        (self.describe(message), end)
    }

    fn describe(&self, message: Message<'_>) -> String {
        let name = |id: &RelationId| &self.relations[id].name;
        match message {
            Message::Begin { .. } => "begin".to_owned(),
            Message::Commit { .. } => "commit".to_owned(),
            Message::Relation(body) => format!("relation {}", body.name),
            Message::Insert { relation, new } => {
                format!("insert {}{}", name(&relation), self.row(relation, new))
            }
            Message::Update {
                relation,
                key,
                old,
                new,
            } => {
                let key = key
                    .map(|key| format!(" key{}", self.row(relation, key)))
                    .unwrap_or_default();
                let old = old
                    .map(|old| format!(" old{}", self.row(relation, old)))
                    .unwrap_or_default();
                format!(
                    "update {}{key}{old} new{}",
                    name(&relation),
                    self.row(relation, new)
                )
            }
            Message::Delete { relation, key, old } => {
                let row = key.or(old).unwrap();
                format!("delete {}{}", name(&relation), self.row(relation, row))
            }
            Message::Truncate {
                relations, cascade, ..
            } => {
                let names: Vec<&str> = relations
                    .iter()
                    .map(|id| self.relations[&id].name.as_str())
                    .collect();
                format!("truncate {} cascade={cascade}", names.join(", "))
            }
            Message::LogicalMessage {
                transactional,
                prefix,
                content,
                ..
            } => {
                format!(
                    "message {prefix} {} transactional={transactional}",
                    String::from_utf8_lossy(content)
                )
            }
            Message::Origin { name, .. } => format!("origin {name}"),
            Message::Type { name, .. } => format!("type {name}"),
        }
    }

    fn row(&self, relation: RelationId, row: TupleData<'_>) -> String {
        let columns = &self.relations[&relation].columns;
        assert_eq!(columns.len(), row.len());
        let mut text = String::new();
        for (column, value) in columns.iter().zip(row) {
            match value {
                Value::Null => write!(text, " {}=NULL", column.name).unwrap(),
                Value::UnchangedToast => write!(text, " {}=TOAST", column.name).unwrap(),
                value => write!(text, " {}={}", column.name, value.as_str().unwrap()).unwrap(),
            }
        }
        text
    }

    /// A column of the slot's row in `pg_replication_slots`.
    async fn slot_state(&self, column: &str) -> Option<String> {
        let sql = format!("SELECT {column}::text FROM pg_replication_slots WHERE slot_name = $1");
        self.client
            .query_one(&sql, &[&self.slot.as_str()])
            .await
            .unwrap()
            .get(0)
    }

    async fn confirmed(&self) -> Lsn {
        self.slot_state("confirmed_flush_lsn")
            .await
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Ends the stream and starts another from the confirmed position of the slot.
    async fn restart(mut self) -> Scene {
        self.stream.finish().await.unwrap();
        let database: String = self
            .client
            .query_one("SELECT current_database()::text", &[])
            .await
            .unwrap()
            .get(0);
        // The walsender releases the slot shortly after the stream has ended.
        let held = "SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active";
        while !self
            .client
            .query(held, &[&self.slot.as_str()])
            .await
            .unwrap()
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
        let connection = server().connect(&database).await;
        self.stream = connection
            .start_replication(&self.slot, Lsn::ZERO, &[self.publication])
            .await
            .unwrap();
        self
    }
}

#[tokio::test]
async fn every_kind_of_change_arrives_as_it_was_made() {
    let mut scene = Scene::new("every_kind").await;
    scene
        .run("INSERT INTO docs VALUES (1, 'grüße 🦀', 5), (2, NULL, NULL), (3, '', 0)")
        .await;
    let (messages, _) = scene.transaction().await;
    assert_eq!(
        messages,
        [
            "insert docs id=1 body=grüße 🦀 views=5",
            "insert docs id=2 body=NULL views=NULL",
            "insert docs id=3 body= views=0",
        ]
    );
    scene.run("BEGIN; UPDATE docs SET views = 6 WHERE id = 1; UPDATE docs SET id = 20 WHERE id = 2; DELETE FROM docs WHERE id = 3; COMMIT").await;
    let (messages, _) = scene.transaction().await;
    assert_eq!(
        messages,
        [
            "update docs new id=1 body=grüße 🦀 views=6",
            "update docs key id=2 body=NULL views=NULL new id=20 body=NULL views=NULL",
            "delete docs id=3 body=NULL views=NULL",
        ]
    );
    scene
        .run("SELECT pg_logical_emit_message(true, 'lantern', 'in')")
        .await;
    assert_eq!(
        scene.transaction().await.0,
        ["message lantern in transactional=true"]
    );
    scene
        .run("SELECT pg_logical_emit_message(false, 'lantern', 'out')")
        .await;
    assert_eq!(
        scene.next().await.0,
        "message lantern out transactional=false"
    );
    scene.run("TRUNCATE docs CASCADE").await;
    assert_eq!(scene.transaction().await.0, ["truncate docs cascade=true"]);
}

#[tokio::test]
async fn a_long_text_that_an_update_leaves_alone_is_not_sent() {
    let mut scene = Scene::new("toast").await;
    scene
        .run("ALTER TABLE docs ALTER body SET STORAGE EXTERNAL")
        .await;
    scene
        .run("INSERT INTO docs VALUES (1, repeat('x', 10000), 0)")
        .await;
    scene.transaction().await;
    scene.run("UPDATE docs SET views = 1").await;
    assert_eq!(
        scene.transaction().await.0,
        ["update docs new id=1 body=TOAST views=1"]
    );
    scene.run("UPDATE docs SET id = 2").await;
    let (messages, _) = scene.transaction().await;
    assert_eq!(
        messages,
        ["update docs key id=1 body=NULL views=NULL new id=2 body=TOAST views=1"]
    );
}

#[tokio::test]
async fn the_whole_old_row_comes_under_full_replica_identity() {
    let mut scene = Scene::new("identity_full").await;
    scene
        .run("ALTER TABLE docs REPLICA IDENTITY FULL; INSERT INTO docs VALUES (1, 'a', 0)")
        .await;
    scene.transaction().await;
    scene.run("UPDATE docs SET body = 'b'").await;
    let (messages, _) = scene.transaction().await;
    assert_eq!(
        messages,
        ["update docs old id=1 body=a views=0 new id=1 body=b views=0"]
    );
    scene.run("DELETE FROM docs").await;
    assert_eq!(
        scene.transaction().await.0,
        ["delete docs id=1 body=b views=0"]
    );
}

#[tokio::test]
async fn a_table_that_was_altered_is_described_again() {
    let mut scene = Scene::new("altered").await;
    scene.run("INSERT INTO docs VALUES (1, 'a', 0)").await;
    scene.transaction().await;
    scene
        .run("ALTER TABLE docs RENAME body TO content; INSERT INTO docs VALUES (2, 'b', 0)")
        .await;
    let (messages, _) = scene.transaction().await;
    assert_eq!(messages, ["insert docs id=2 content=b views=0"]);
}

#[tokio::test]
async fn confirming_moves_the_slot_and_unconfirmed_changes_are_sent_again() {
    let mut scene = Scene::new("confirming").await;
    scene.run("INSERT INTO docs VALUES (1, 'a', 0)").await;
    let (_, first_end) = scene.transaction().await;
    assert!(scene.confirmed().await < first_end);
    scene.stream.send_status(first_end, false).await.unwrap();
    eventually("the slot is confirmed", async || {
        scene.confirmed().await >= first_end
    })
    .await;

    scene.run("INSERT INTO docs VALUES (2, 'b', 0)").await;
    let (messages, second_end) = scene.transaction().await;
    assert_eq!(messages, ["insert docs id=2 body=b views=0"]);
    let mut scene = scene.restart().await;
    let (messages, again) = scene.transaction().await;
    assert_eq!(messages.last().unwrap(), "insert docs id=2 body=b views=0");
    assert_eq!(again, second_end);
}

#[tokio::test]
async fn a_status_whose_future_is_dropped_at_once_still_arrives() {
    let mut scene = Scene::new("given_up").await;
    scene.run("INSERT INTO docs VALUES (1, 'a', 0)").await;
    let (_, end) = scene.transaction().await;
    let _ = scene.stream.send_status(end, true).now_or_never();
    let Frame::Keepalive { wal_end, .. } = scene.stream.next().await.unwrap() else {
        panic!("the reply asked for")
    };
    assert!(wal_end >= end);
    eventually("the slot is confirmed", async || {
        scene.confirmed().await >= end
    })
    .await;
}

#[tokio::test]
async fn finishing_confirms_first_and_frees_the_slot() {
    let mut scene = Scene::new("finishing").await;
    assert_eq!(
        scene.slot_state("active_pid").await,
        Some(scene.stream.process_id().to_string())
    );
    scene.run("INSERT INTO docs VALUES (1, 'a', 0)").await;
    let (_, end) = scene.transaction().await;
    let _ = scene.stream.send_status(end, false).now_or_never();
    let scene = scene.restart().await;
    assert!(scene.confirmed().await >= end);
}

#[tokio::test]
async fn dropped_futures_lose_no_change() {
    const TRANSACTIONS: i32 = 300;
    let mut scene = Scene::new("given_up_waits").await;
    let writer = server().client("given_up_waits").await;
    let writing = tokio::spawn(async move {
        for number in 0..TRANSACTIONS {
            let sql = format!(
                "INSERT INTO docs SELECT {number} * 100 + i, repeat('text ', i * 20), i FROM generate_series(0, 99) i"
            );
            writer.batch_execute(&sql).await.unwrap();
        }
    });
    let mut ids = Vec::new();
    let mut given_up = 0;
    while ids.len() < TRANSACTIONS as usize * 100 {
        let frame = tokio::select! {
            frame = scene.stream.next() => frame.unwrap(),
            () = tokio::task::yield_now() => {
                given_up += 1;
                let _ = scene.stream.send_status(Lsn::ZERO, given_up % 7 == 0).now_or_never();
                continue;
            }
        };
        let Frame::XLogData { payload, .. } = frame else {
            continue;
        };
        if let Message::Insert { new, .. } = decode(&payload).unwrap() {
            let id: usize = new.get(0).and_then(Value::as_str).unwrap().parse().unwrap();
            assert_eq!(
                new.get(1).and_then(Value::as_str).unwrap().len(),
                id % 100 * 100
            );
            ids.push(id);
        }
    }
    writing.await.unwrap();
    assert!(ids.iter().copied().eq(0..ids.len()));
    assert!(given_up > 0);
}

#[tokio::test]
async fn a_text_of_many_megabytes_arrives_whole() {
    let mut scene = Scene::new("megabytes").await;
    scene
        .run("INSERT INTO docs VALUES (1, repeat('0123456789', 3000000), 0)")
        .await;
    scene.run("INSERT INTO docs VALUES (2, 'small', 0)").await;
    let (messages, _) = scene.transaction().await;
    let text = messages[0]
        .strip_prefix("insert docs id=1 body=")
        .and_then(|rest| rest.strip_suffix(" views=0"));
    assert!(text.unwrap() == "0123456789".repeat(3_000_000));
    assert_eq!(
        scene.transaction().await.0,
        ["insert docs id=2 body=small views=0"]
    );
}

#[tokio::test]
async fn a_publication_with_any_name_can_be_streamed() {
    let mut scene = Scene::with_publication("odd_names", r#"it's "a, b\c" — ü"#).await;
    scene.run("INSERT INTO docs VALUES (1, 'a', 0)").await;
    assert_eq!(scene.transaction().await.0.len(), 1);
}

#[tokio::test]
async fn a_slot_in_use_is_transient_and_a_missing_one_is_not() {
    let scene = Scene::new("in_use").await;
    let start = async |slot: &str| {
        let slot = SlotName::try_from(slot).unwrap();
        let connection = server().connect("in_use").await;
        connection
            .start_replication(&slot, Lsn::ZERO, &["docs_publication"])
            .await
            .err()
            .unwrap()
    };
    let error = start(scene.slot.as_str()).await;
    assert_eq!(error.code().unwrap().code(), "55006");
    assert!(classify(error.code().unwrap()).is_transient());
    let error = start("nowhere").await;
    assert_eq!(error.code().unwrap().code(), "42704");
    assert!(!classify(error.code().unwrap()).is_transient());
}

#[tokio::test]
async fn a_terminated_walsender_ends_the_stream_with_the_reason() {
    let mut scene = Scene::new("terminated").await;
    scene
        .run(&format!(
            "SELECT pg_terminate_backend({})",
            scene.stream.process_id()
        ))
        .await;
    let error = loop {
        if let Err(error) = scene.stream.next().await {
            break error;
        }
    };
    assert_eq!(error.code().unwrap().code(), "57P01", "{error}");
    assert!(matches!(
        scene.stream.next().await,
        Err(ReplicationError::Closed | ReplicationError::Io(_))
    ));
}

/// The slot reader relies on this while it pauses: it is not woken for what arrives, and later reads all of it.
#[tokio::test]
async fn a_resting_stream_is_not_woken_and_later_reads_all() {
    let mut scene = Scene::new("resting").await;
    scene.stream.finish().await.unwrap();
    let mut config = server().tcp_config("postgres");
    config.dbname("resting");
    let connection = ReplicationConnection::connect(open(&config).await, NoTls, &config, &[])
        .await
        .unwrap();
    let publications = [scene.publication];
    let start = connection.start_replication(&scene.slot, Lsn::ZERO, &publications);
    scene.stream = start.await.unwrap();
    scene.run("INSERT INTO docs VALUES (1)").await;
    scene.transaction().await;
    let moment = Duration::from_millis(200);
    // Read the keepalives that are still to come.
    while timeout(moment, scene.stream.next()).await.is_ok() {}
    scene.stream.rest();
    scene.run("INSERT INTO docs VALUES (2)").await;
    let sent = "SELECT sent_lsn >= pg_current_wal_lsn() FROM pg_stat_replication r JOIN pg_replication_slots s \
                ON r.pid = s.active_pid WHERE slot_name = 'resting'";
    eventually("everything is sent", async || {
        scene.client.query_one(sent, &[]).await.unwrap().get(0)
    })
    .await;
    let woken = timeout(moment, scene.stream.next()).await;
    assert!(woken.is_err(), "{woken:?}");
    scene.stream.resume();
    let found = timeout(Duration::from_secs(10), scene.transaction()).await;
    let (messages, _) = found.expect("nothing else has to arrive first");
    assert_eq!(messages, ["insert docs id=2 body=NULL views=NULL"]);

    scene.stream.rest();
    scene.stream.finish().await.expect("it ends in order");
}

/// The runtime does not watch a Unix socket while the stream rests.
#[tokio::test]
async fn a_stream_over_a_unix_socket_rests_and_later_reads_all() {
    let mut scene = Scene::new("resting_unix").await;
    for id in 1..=20 {
        scene.stream.rest();
        if id % 2 == 0 {
            let status = scene.stream.send_status(Lsn::ZERO, false);
            status.await.expect("a status goes out meanwhile");
            scene.stream.rest();
        }
        scene.run(&format!("INSERT INTO docs VALUES ({id})")).await;
        scene.stream.resume();
        let found = timeout(Duration::from_secs(10), scene.transaction()).await;
        let (messages, _) = found.expect("the socket is watched again");
        let expected = format!("insert docs id={id} body=NULL views=NULL");
        assert_eq!(messages.last(), Some(&expected));
    }
    scene.stream.rest();
    scene.stream.finish().await.expect("it ends in order");
}

/// Beside transactions that are not published.
#[tokio::test]
async fn keepalives_come_unasked_up_to_what_is_reported_as_written() {
    let mut scene = Scene::new("declining").await;
    scene.run("CREATE TABLE others (n int)").await;
    for _ in 0..3 {
        scene.run("INSERT INTO others VALUES (1)").await;
        let end = scene.flushed().await;
        while scene.keepalive().await < end {}
    }

    scene.stream.report_written(Lsn(1 << 60));
    scene.stream.send_status(Lsn::ZERO, true).await.unwrap();
    let walsender = format!(
        "FROM pg_stat_replication WHERE pid = {}",
        scene.stream.process_id()
    );
    let told = format!("SELECT COALESCE(write_lsn = '10000000/0', false) {walsender}");
    eventually("the server knows what is written", async || {
        let row = scene.client.query_one(&told, &[]).await.unwrap();
        row.get(0)
    })
    .await;
    for _ in 0..100 {
        scene.run("INSERT INTO others VALUES (1)").await;
    }
    let end = scene.flushed().await;
    let sent = format!("SELECT COALESCE(sent_lsn >= '{end}', false) {walsender}");
    eventually("the server has caught up", async || {
        let row = scene.client.query_one(&sent, &[]).await.unwrap();
        row.get(0)
    })
    .await;
    scene.stream.send_status(Lsn::ZERO, true).await.unwrap();
    let mut received = 1;
    while scene.keepalive().await < end {
        received += 1;
    }
    // Some may still be on their way from before.
    assert!(received < 20, "{received}");
}
