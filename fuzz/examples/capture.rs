//! Makes the seeds of the fuzz targets from what a real server says: `capture BINDIR FOLDER`.
//!
//! `FOLDER/framing` gets whole conversations, one for each way of logging in, `FOLDER/decoder` one message of each form and length.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lantern::embedded::{Installation, PrivatePostgres};
use lantern::replication::{Frame, Lsn, pgoutput};
use lantern_fuzz::conversation;
use lantern_fuzz::transport::{Recorded, Recording};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;

/// Roles and how they log in; the number is how the target `framing` is told of them.
const LOGINS: [(&str, &str, u8); 4] = [
    ("trusted", "trust", 1),
    ("clear", "password", 2),
    ("hashed", "md5", 3),
    ("scram", "scram-sha-256", 1),
];

const TABLES: &str = r#"
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE plain (id int PRIMARY KEY, body text, other varchar(100));
    CREATE TABLE "Ful ""l" (id int PRIMARY KEY, mood mood, numbers int[]);
    ALTER TABLE "Ful ""l" REPLICA IDENTITY FULL;
    CREATE TABLE indexed (code text NOT NULL, n int);
    CREATE UNIQUE INDEX by_code ON indexed (code);
    ALTER TABLE indexed REPLICA IDENTITY USING INDEX by_code;
    CREATE TABLE long (id int PRIMARY KEY, body text, counter int);
    ALTER TABLE long ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE parted (id int PRIMARY KEY, body text) PARTITION BY RANGE (id);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
    CREATE PUBLICATION fuzz FOR ALL TABLES WITH (publish_via_partition_root = true);"#;

/// Every message of protocol version 1, in as many forms as a server has. Each entry is a transaction.
const WORKLOAD: &[&str] = &[
    r"INSERT INTO plain VALUES (1, 'a', 'b'), (2, NULL, ''), (3, repeat('ä', 60), E'new\nline')",
    "UPDATE plain SET body = 'c' WHERE id = 1",
    "UPDATE plain SET id = 10 WHERE id = 1",
    "DELETE FROM plain WHERE id = 2",
    r#"INSERT INTO "Ful ""l" VALUES (1, 'sad', '{1,2}'), (2, 'ok', NULL)"#,
    r#"UPDATE "Ful ""l" SET mood = 'ok' WHERE id = 1"#,
    r#"DELETE FROM "Ful ""l" WHERE id = 2"#,
    "INSERT INTO indexed VALUES ('k', 1), ('l', 2)",
    "UPDATE indexed SET code = 'm' WHERE code = 'k'",
    "INSERT INTO long SELECT 1, string_agg(md5(i::text), ''), 0 FROM generate_series(1, 80) i",
    "UPDATE long SET counter = 1",
    "ALTER TABLE plain ADD COLUMN more numeric(10, 2) DEFAULT 1.5",
    "UPDATE plain SET more = 2 WHERE id = 3",
    "INSERT INTO parted VALUES (1, 'x'), (11, 'y')",
    "UPDATE parted SET id = 12 WHERE id = 1",
    "TRUNCATE plain, indexed RESTART IDENTITY CASCADE",
    "SELECT pg_logical_emit_message(true, 'lantern', ''), pg_logical_emit_message(false, 'other', 'content')",
    "SELECT pg_replication_origin_create('elsewhere')",
    "SELECT pg_replication_origin_session_setup('elsewhere')",
    "SELECT pg_replication_origin_xact_setup('0/ABCDEF', now()); INSERT INTO plain VALUES (7, 'from elsewhere', '')",
    "SELECT pg_replication_origin_session_reset()",
];

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bindir, folder] = &arguments[..] else {
        panic!("usage: capture BINDIR FOLDER");
    };
    let installation = Installation::at(Path::new(bindir)).expect("the programs of a server");
    let server = PrivatePostgres::start_temporary(&installation, vec![]).expect("a server");
    let end = prepare(&server).await;
    let seed = |target: &str, name: String, bytes: &[u8]| {
        let folder = Path::new(folder).join(target);
        fs::create_dir_all(&folder).expect("a folder for seeds");
        let name = format!("{name}-{}", server.version());
        fs::write(folder.join(name), bytes).expect("a seed is written");
    };
    for (user, method, number) in LOGINS {
        let (conversation, payloads) = record(&server, user, end).await;
        seed(
            "framing",
            method.to_owned(),
            &in_pieces(number, &conversation),
        );
        if user == "trusted" {
            let stream = in_pieces(0, behind_copy_both(&conversation));
            seed("framing", "stream".to_owned(), &stream);
            for (form, payload) in one_of_each_form(payloads) {
                seed("decoder", form, &payload);
            }
        }
    }
}

/// Puts before `server` who talks and four sizes of pieces, as the target `framing` reads it.
fn in_pieces(number: u8, server: &[u8]) -> Vec<u8> {
    [&[4 << 2 | number, 7, 0, 250, 31], server].concat()
}

/// Lets the roles in, and puts the workload into the log behind a new slot. Returns where it ends.
async fn prepare(server: &PrivatePostgres) -> Lsn {
    let (client, connection) = tokio_postgres::connect(&server.uri("postgres"), NoTls)
        .await
        .expect("a session");
    tokio::spawn(connection);
    let run = async |sql: &str| {
        let done = client.batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    };
    let mut rules = String::new();
    for (user, method, _) in LOGINS {
        let encryption = if method == "md5" {
            "md5"
        } else {
            "scram-sha-256"
        };
        run(&format!(
            "SET password_encryption = '{encryption}'; CREATE ROLE {user} SUPERUSER LOGIN PASSWORD 'swordfish'"
        ))
        .await;
        rules.push_str(&format!("host all {user} 127.0.0.1/32 {method}\n"));
    }
    let file: String = client
        .query_one("SHOW hba_file", &[])
        .await
        .expect("an answer")
        .get(0);
    let present = fs::read_to_string(&file).expect("pg_hba.conf is read");
    fs::write(&file, rules + &present).expect("pg_hba.conf is written");
    run("SELECT pg_reload_conf()").await;
    run(TABLES).await;
    run("SELECT pg_create_logical_replication_slot('fuzz', 'pgoutput')").await;
    for transaction in WORKLOAD {
        run(transaction).await;
    }
    let end: String = client
        .query_one("SELECT pg_current_wal_lsn()::text", &[])
        .await
        .expect("an answer")
        .get(0);
    end.parse().expect("a position")
}

/// What the server says to `user` from the first byte to the end of the stream at `end`, and the payloads in it.
async fn record(server: &PrivatePostgres, user: &str, end: Lsn) -> (Vec<u8>, Vec<Vec<u8>>) {
    let received = Recorded::default();
    let transport = Recording {
        transport: TcpStream::connect(("127.0.0.1", server.port()))
            .await
            .expect("the server is there"),
        received: Recorded::clone(&received),
    };
    let mut stream = conversation::open(transport, &conversation::config(user), &mut Vec::new())
        .await
        .expect("a stream");
    let mut payloads = Vec::new();
    let mut reached = Lsn::ZERO;
    while reached < end {
        match stream.next().await.expect("a frame") {
            Frame::XLogData { payload, .. } => payloads.push(payload.to_vec()),
            Frame::Keepalive { wal_end, .. } => reached = wal_end,
        }
        // Asks for a keepalive, which comes when everything else has been sent. Confirms nothing.
        stream
            .send_status(Lsn::ZERO, true)
            .await
            .expect("a status update is sent");
    }
    stream
        .finish()
        .await
        .expect("the stream ends in good order");
    let received = received.lock().unwrap().clone();
    (received, payloads)
}

/// What stands behind the CopyBothResponse of a conversation.
fn behind_copy_both(mut rest: &[u8]) -> &[u8] {
    loop {
        let length = u32::from_be_bytes(rest[1..5].try_into().expect("four bytes")) as usize;
        let (message, behind) = rest.split_at(1 + length);
        if message[0] == b'W' {
            return behind;
        }
        rest = behind;
    }
}

/// By name: the tag, the kind of the first row, and the number of columns or what else sets messages apart.
fn one_of_each_form(payloads: Vec<Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let mut forms = BTreeMap::new();
    for payload in payloads {
        pgoutput::decode(&payload).expect("the server sends messages");
        let (tag, length) = (char::from(payload[0]), payload.len());
        let kind = match tag {
            'U' | 'D' => format!("{tag}{}", char::from(payload[5])),
            _ => tag.to_string(),
        };
        forms.insert(format!("{kind}-{length}"), payload);
    }
    forms
}
