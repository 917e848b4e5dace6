//! A database of its own for each test, so that tests run in parallel on one server.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use lantern::embedded::PrivatePostgres;
use tokio_postgres::Client;

use crate::client::{connect, execute, value};
use crate::psql::psql;
use crate::skip;
use crate::wait::wait_until;

/// A database for one test. It is dropped with everything in it, replication slots included.
pub struct TestDatabase {
    server: &'static PrivatePostgres,
    name: String,
    /// The extension pgvector is created.
    has_vector: bool,
}

impl TestDatabase {
    /// An empty database.
    pub async fn create(server: &'static PrivatePostgres) -> Self {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", CREATED.fetch_add(1, Ordering::Relaxed));
        create_database(&connect(&server.uri("postgres")).await, &name).await;
        Self {
            server,
            name,
            has_vector: false,
        }
    }

    /// An empty database with this encoding.
    pub async fn with_encoding(server: &'static PrivatePostgres, encoding: &str) -> Self {
        let database = Self::create(server).await;
        let client = connect(&server.uri("postgres")).await;
        let name = &database.name;
        execute(&client, &format!("DROP DATABASE {name}")).await;
        // The locale of the template may be one for UTF-8 alone.
        let provider = match server.version() >= 15 {
            true => "LOCALE_PROVIDER libc",
            false => "",
        };
        let create = format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' {provider}"
        );
        execute(&client, &create).await;
        database
    }

    /// A database with pgvector. On a server without, the distance of two arrays takes its place; there, statements
    /// with `vector(384)` have to go through [`adapted`](Self::adapted).
    pub async fn with_vector(server: &'static PrivatePostgres) -> Self {
        let mut database = Self::create(server).await;
        let client = database.client().await;
        database.has_vector = offers_vector(&client).await;
        let create = if database.has_vector {
            "CREATE EXTENSION vector"
        } else {
            "CREATE FUNCTION distance(real[], real[]) RETURNS float8 LANGUAGE sql IMMUTABLE STRICT AS \
               'SELECT CASE WHEN cardinality($1) = cardinality($2) THEN sqrt(sum((a - b) ^ 2)) END FROM unnest($1, $2) u(a, b)'; \
             CREATE OPERATOR <-> (LEFTARG = real[], RIGHTARG = real[], FUNCTION = distance)"
        };
        execute(&client, create).await;
        database
    }

    /// A statement in which `vector(384)` is the type of vectors that this server has.
    pub fn adapted(&self, statement: &str) -> String {
        if self.has_vector {
            statement.to_owned()
        } else {
            statement.replace("vector(384)", "real[]")
        }
    }

    /// Whether a test of pgvector has to be skipped here, which is reported. The servers of `make test-matrix` come
    /// without it.
    pub fn skips_vector(&self) -> bool {
        if !self.has_vector {
            let version = self.server.version();
            skip::missing(
                &format!("PostgreSQL {version} without pgvector"),
                &format!("apt-get install postgresql-{version}-pgvector"),
            );
        }
        !self.has_vector
    }

    /// The server's major version.
    pub fn version(&self) -> u32 {
        self.server.version()
    }

    /// The name of the database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The superuser's connection string.
    pub fn uri(&self) -> String {
        self.server.uri(&self.name)
    }

    /// A new connection as the superuser.
    pub async fn client(&self) -> Client {
        connect(&self.uri()).await
    }

    /// Runs `sql` in psql; returns what it prints.
    pub async fn psql(&self, sql: &str) -> String {
        psql(self.server, &self.name, sql).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (uri, name) = (self.server.uri("postgres"), self.name.clone());
        // `drop` cannot await anything, and the test's own runtime is busy running it.
        let dropping = thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(async { drop_database(&connect(&uri).await, &name).await });
        });
        let failed = dropping.join().is_err();
        assert!(
            !failed || thread::panicking(),
            "the database {} cannot be dropped: see above",
            self.name
        );
    }
}

async fn offers_vector(client: &Client) -> bool {
    let available = "SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'vector'";
    value(client, available).await
}

/// Creates an empty database. `client` is connected to another one of the server.
pub async fn create_database(client: &Client, name: &str) {
    // The template without anything that a session may hold open.
    let create = format!("CREATE DATABASE {name} TEMPLATE template0");
    execute(client, &create).await;
}

/// Drops a database with its replication slots and sessions. `client` is connected to another one of the server.
pub async fn drop_database(client: &Client, name: &str) {
    // A database with replication slots cannot be dropped, nor can a slot that is in use.
    let drop_slots = "SELECT CASE WHEN active THEN pg_terminate_backend(active_pid)::text \
                             ELSE pg_drop_replication_slot(slot_name)::text END \
                      FROM pg_replication_slots WHERE database = $1";
    wait_until("the slots are gone", Duration::from_secs(10), async || {
        match client.query(drop_slots, &[&name]).await {
            Ok(rows) if rows.is_empty() => Ok(()),
            Ok(rows) => Err(format!("{} slots", rows.len())),
            // Another session took the slot in between.
            Err(error) => Err(format!("{error:?}")),
        }
    })
    .await;
    execute(client, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}
