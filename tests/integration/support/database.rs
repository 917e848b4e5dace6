use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lantern::embedded::PrivatePostgres;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use super::server::program_of;
use super::wait::wait_until;

/// A database of its own for one test. Dropped with everything in it, replication slots included.
pub struct TestDatabase {
    server: &'static PrivatePostgres,
    name: String,
    /// pgvector is there.
    vector: bool,
}

impl TestDatabase {
    /// An empty database.
    pub async fn create(server: &'static PrivatePostgres) -> Self {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", CREATED.fetch_add(1, Ordering::Relaxed));
        connect(&server.uri("postgres"))
            .await
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
            .await
            .unwrap_or_else(|error| panic!("cannot create the database {name}: {error:?}"));
        Self {
            server,
            name,
            vector: false,
        }
    }

    /// A database with pgvector, or on a server that lacks it with the distance of two arrays in its place: what a test says
    /// of `vector(384)` has to go through [`adapted`](Self::adapted) then.
    pub async fn with_vector(server: &'static PrivatePostgres) -> Self {
        let mut database = Self::create(server).await;
        database.vector = database.knows_vector().await;
        let client = database.client().await;
        let create = if database.vector {
            "CREATE EXTENSION vector"
        } else {
            "CREATE FUNCTION distance(real[], real[]) RETURNS float8 LANGUAGE sql IMMUTABLE STRICT AS \
               'SELECT CASE WHEN cardinality($1) = cardinality($2) THEN sqrt(sum((a - b) ^ 2)) END FROM unnest($1, $2) u(a, b)'; \
             CREATE OPERATOR <-> (LEFTARG = real[], RIGHTARG = real[], FUNCTION = distance)"
        };
        let created = client.batch_execute(create).await;
        created.unwrap_or_else(|error| panic!("no vectors in {}: {error:?}", database.name));
        database
    }

    /// A statement with the type of vectors that there is.
    pub fn adapted(&self, statement: &str) -> String {
        if self.vector {
            statement.to_owned()
        } else {
            statement.replace("vector(384)", "real[]")
        }
    }

    /// True, and says so, where a test cannot go on for want of pgvector.
    pub async fn lacks_vector(&self) -> bool {
        let lacks = !self.knows_vector().await;
        if lacks {
            let version = self.server.version();
            println!("passed over: PostgreSQL {version} without pgvector");
        }
        lacks
    }

    /// The server's major version.
    pub fn version(&self) -> u32 {
        self.server.version()
    }

    /// Whether the server has pgvector: what `make setup` fetches does, Debian's need not.
    pub async fn knows_vector(&self) -> bool {
        let available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'";
        self.psql(available).await == "1\n"
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The superuser's connection string.
    pub fn uri(&self) -> String {
        self.server.uri(&self.name)
    }

    /// A new connection as superuser. It lives as long as the test's runtime or the client, whichever ends first.
    pub async fn client(&self) -> Client {
        connect(&self.uri()).await
    }

    /// Runs `sql` in the real psql, as a person would; returns what it prints, unaligned and without headings.
    ///
    /// # Panics
    ///
    /// At the first statement that fails, with psql's message.
    pub async fn psql(&self, sql: &str) -> String {
        let mut psql = Command::new(program_of(self.server, "psql"))
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
            .args(["--set=ON_ERROR_STOP=1", "--file=-", "--dbname"])
            .arg(self.uri())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("psql starts");
        let mut input = psql.stdin.take().expect("its input is a pipe");
        // A psql that has failed reads no further: what it says of that is shown below.
        let _ = input.write_all(sql.as_bytes()).await;
        drop(input);
        let output = psql.wait_with_output().await.expect("psql ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "psql failed: {errors}\n{sql}");
        String::from_utf8(output.stdout).expect("psql prints UTF-8")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (uri, name) = (self.server.uri("postgres"), self.name.clone());
        // The test's own runtime cannot wait for anything here.
        let dropping = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(drop_database(&uri, &name));
        });
        if dropping.join().is_err() && !std::thread::panicking() {
            panic!("the database {} cannot be dropped: see above", self.name);
        }
    }
}

async fn connect(uri: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(uri, NoTls)
        .await
        .unwrap_or_else(|error| panic!("cannot connect to {uri}: {error:?}"));
    tokio::spawn(connection);
    client
}

/// A database with replication slots cannot be dropped, nor can a slot that is in use.
async fn drop_database(uri: &str, name: &str) {
    let client = connect(uri).await;
    wait_until("the slots are gone", Duration::from_secs(10), async || {
        let slots = client
            .query(
                "SELECT slot_name::text, active_pid, \
                        CASE WHEN active THEN pg_terminate_backend(active_pid)::text \
                             ELSE pg_drop_replication_slot(slot_name)::text END \
                 FROM pg_replication_slots WHERE database = $1",
                &[&name],
            )
            .await;
        match slots {
            Ok(rows) if rows.is_empty() => Ok(()),
            Ok(rows) => Err(format!("{} slots", rows.len())),
            // Somebody took the slot again in between.
            Err(error) => Err(format!("{error:?}")),
        }
    })
    .await;
    client
        .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
        .await
        .unwrap_or_else(|error| panic!("cannot drop the database {name}: {error:?}"));
}
