//! Debian's PostgreSQL with a certificate, and roles that log in by every method. The build that `make setup` fetches
//! has no TLS.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::LazyLock;

use lantern::embedded::PrivatePostgres;
use testkit::client::{execute, value, wait_for_value};
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill, wait_for_failure};
use testkit::{Process, TestDatabase, server};
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use super::certificates::{Authority, Signed};
use crate::support::{assert_check_says, start_daemon};

/// The password of every role that has one.
pub const PASSWORD: &str = "sw0rd fish:\\%";
/// As it is written in a URL.
pub const PASSWORD_IN_URL: &str = "sw0rd%20fish%3A%5C%25";

/// Roles, all of them superusers, with the connection type and the method of their rules in pg_hba.conf.
const ROLES: &[(&str, &str, &str)] = &[
    ("anybody", "host", "trust"),
    ("secured", "hostssl", "trust"),
    ("unsecured", "hostnossl", "trust"),
    ("certified", "hostssl", "cert"),
    ("scram", "host", "scram-sha-256"),
    ("hashed", "host", "md5"),
    ("clear", "host", "password"),
];

/// A server with TLS.
pub struct SecureServer {
    server: PrivatePostgres,
    is_ready: OnceCell<()>,
    pub authority: Authority,
}

impl SecureServer {
    /// The server that the tests of this folder share; its certificate is for `localhost` alone. `None`, which is
    /// reported as a skip, where Debian's PostgreSQL is not installed.
    pub fn shared() -> Option<&'static SecureServer> {
        static SHARED: LazyLock<Option<SecureServer>> =
            LazyLock::new(|| SecureServer::start(|authority| authority.server(&["localhost"])));
        // Reports the skip for each test, not only for the one that comes first.
        server::debian_installation()?;
        SHARED.as_ref()
    }

    /// A server with a certificate that `make` makes; as [`shared`](Self::shared).
    pub fn start(make: impl FnOnce(&Authority) -> Signed) -> Option<SecureServer> {
        let server = server::start_with_room(
            &server::debian_installation()?,
            &[("listen_addresses", "127.0.0.1,::1")],
        );
        let authority = Authority::new();
        let secure = SecureServer {
            server,
            is_ready: OnceCell::new(),
            authority,
        };
        secure.configure(&make(&secure.authority));
        Some(secure)
    }

    fn configure(&self, certificate: &Signed) {
        let data = self.server.data_directory().join("data");
        let owner = fs::metadata(&data).expect("the data directory is there");
        let give = |from: &Path, name: &str| {
            let to = data.join(name);
            fs::copy(from, &to).expect("a file is copied");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("permissions");
            chown(&to, Some(owner.uid()), Some(owner.gid())).expect("the server's own file");
        };
        give(&certificate.certificate, "server.crt");
        give(&certificate.key, "server.key");
        give(&self.authority.root(), "root.crt");
        let rule = |(role, kind, method): &(&str, &str, &str)| {
            let local = if *method == "cert" { "reject" } else { method };
            format!(
                "{kind} all {role} all {method}\nlocal all {role} {local}\nhost all {role} all reject\n"
            )
        };
        let rules: String = ROLES.iter().map(rule).collect();
        let hba = data.join("pg_hba.conf");
        let present = fs::read_to_string(&hba).expect("pg_hba.conf is read");
        fs::write(&hba, rules + &present).expect("pg_hba.conf is written");
    }

    /// A database with the jobs table.
    pub async fn jobs_database(&'static self) -> JobsDatabase {
        let target = JobsDatabase::create(&self.server).await;
        let prepare = || prepare(&target.client);
        self.is_ready.get_or_init(prepare).await;
        target
    }

    pub fn port(&self) -> u16 {
        self.server.port()
    }
}

/// Creates the roles, and reloads the configuration.
async fn prepare(client: &Client) {
    for (role, _, method) in ROLES {
        let encryption = match *method {
            "md5" => "md5",
            _ => "scram-sha-256",
        };
        let create = format!(
            "SET password_encryption = '{encryption}'; CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{PASSWORD}'"
        );
        execute(client, &create).await;
    }
    for setting in ["ssl = on", "ssl_ca_file = 'root.crt'"] {
        execute(client, &format!("ALTER SYSTEM SET {setting}")).await;
    }
    execute(client, "SELECT pg_reload_conf()").await;
    wait_for_value(client, "SHOW ssl", "on".to_owned()).await;
    let errors = "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL";
    assert_eq!(value::<i64>(client, errors).await, 0);
}

/// A database on a server, with the jobs table in it.
pub struct JobsDatabase {
    pub server: &'static PrivatePostgres,
    pub database: TestDatabase,
    pub client: Client,
}

impl JobsDatabase {
    pub async fn create(server: &'static PrivatePostgres) -> JobsDatabase {
        let (database, client) = articles(server).await;
        JobsDatabase {
            server,
            database,
            client,
        }
    }

    /// Creates a table with one text and a job on it with this connection string; returns the job's id.
    pub async fn job(&self, table: &str, connection: &str) -> i32 {
        let create = format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, t TEXT); INSERT INTO {table} VALUES (1, 'a text')"
        );
        execute(&self.client, &create).await;
        let job = Job {
            db_connection: connection.to_owned(),
            ..Job::on(&self.database, table, "t", "v")
        };
        insert_job(&self.client, job).await
    }

    /// A connection string for TCP: `postgresql://` + `user` + `@` + `host` + the port, the database and `?` +
    /// `options`.
    pub fn uri(&self, user: &str, host: &str, options: &str) -> String {
        let (port, database) = (self.server.port(), self.database.name());
        format!("postgresql://{user}@{host}:{port}/{database}?{options}")
    }

    /// A daemon on the jobs table, as the server's superuser. Jobs may name the certificates of these tests.
    pub fn start_daemon(&self) -> Process {
        start_daemon(
            &self.database,
            &Self::certificates().each_ref().map(String::as_str),
        )
    }

    fn certificates() -> [String; 2] {
        let folder = std::env::temp_dir();
        [
            "--tls-directory".into(),
            folder.to_str().expect("a path").into(),
        ]
    }

    /// A [`job`](Self::job) fails with a reason that has these parts, and `check` gives the same.
    pub async fn assert_failure(&self, table: &str, connection: &str, said: &[&str]) {
        let job = self.job(table, connection).await;
        let reason = wait_for_failure(&self.client, job).await;
        for part in said {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        let certificates = Self::certificates();
        let certificates = certificates.each_ref().map(String::as_str);
        assert_check_says(&self.database.uri(), job, &reason, &certificates).await;
    }

    /// Waits until a change in the job's table has its vector: replication and SQL connections both work.
    pub async fn wait_for_stream(&self, job: i32, table: &str) {
        wait_for_backfill(&self.client, job).await;
        execute(
            &self.client,
            &format!("INSERT INTO {table} VALUES (2, 'another text')"),
        )
        .await;
        let missing = format!("SELECT count(*) FROM {table} WHERE v IS NULL");
        wait_for_value(&self.client, &missing, 0_i64).await;
    }

    /// Whether the connections with that `application_name` use TLS: walsender and session, in this order.
    pub async fn uses_tls(&self, application: &str) -> Vec<bool> {
        let ssl = format!(
            "SELECT array_agg(DISTINCT (backend_type = 'walsender', ssl)::text) \
             FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = '{application}' AND datname = current_database()"
        );
        let seen: Vec<String> = value(&self.client, &ssl).await;
        let of = |kind: &str| {
            let mut all = seen.iter().filter(|row| row.starts_with(kind));
            let row = all
                .next()
                .unwrap_or_else(|| panic!("{kind} is not among {seen:?}"));
            assert!(all.next().is_none(), "{seen:?}");
            row.ends_with(",t)")
        };
        vec![of("(t,"), of("(f,")]
    }
}
