//! A private PostgreSQL server for the tests of this binary.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use lantern::postgres::socket::Socket;
use lantern::replication::ReplicationConnection;
use nix::unistd::{User, geteuid};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

/// The roles that can log in, and their authentication methods, over TCP and the Unix socket alike.
const LOGINS: [(&str, &str); 4] = [
    ("postgres", "trust"),
    ("scram", "scram-sha-256"),
    ("md5", "md5"),
    ("plain", "password"),
];

/// The password of every role that has one.
pub const PASSWORD: &str = r"cörrect 'horse' \battery";

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

/// The server that all tests share. Each creates its own database.
pub fn server() -> &'static Server {
    &SERVER
}

pub struct Server {
    /// Holds the data directory and the Unix socket.
    directory: PathBuf,
    port: u16,
    has_tls: bool,
    /// Stops the server when this process ends, however it ends: its standard input is a pipe from here. (Statics are
    /// never dropped.)
    _watchdog: Child,
}

impl Server {
    fn start() -> Server {
        let tools = Tools::find();
        let directory = tempfile::Builder::new()
            .prefix("lantern-pg")
            .tempdir()
            .unwrap()
            .keep();
        tools.give(&directory);
        let data = directory.join("data");
        let watchdog = tools.watch_over(&directory, &data);

        tools.run(tools.command("initdb").arg("-D").arg(&data).args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]));
        let has_tls = tools.output(
            tools
                .command("postgres")
                .arg("-D")
                .arg(&data)
                .args(["-C", "ssl_library"]),
        ) == "OpenSSL";
        tools.configure(&data, &directory, has_tls);
        tools.create_roles(&data);
        let port = (0..5)
            .find_map(|_| tools.try_start(&data))
            .unwrap_or_else(|| {
                panic!(
                    "no server:\n{}",
                    fs::read_to_string(data.join("log")).unwrap_or_default()
                )
            });
        Server {
            directory,
            port,
            has_tls,
            _watchdog: watchdog,
        }
    }

    /// The superuser over the Unix socket.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host_path(&self.directory)
            .port(self.port)
            .user("postgres")
            .dbname(database);
        config
    }

    /// Any role over TCP.
    pub fn tcp_config(&self, user: &str) -> Config {
        let mut config = Config::new();
        config
            .host("localhost")
            .port(self.port)
            .user(user)
            .dbname("postgres");
        config
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the server was built with TLS, which it then has.
    pub fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// A session for SQL.
    pub async fn client(&self, database: &str) -> Client {
        let (client, connection) = self.config(database).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// A new database, and a session for SQL in it.
    pub async fn create_database(&self, name: &str) -> Client {
        let postgres = self.client("postgres").await;
        postgres
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        self.client(name).await
    }

    /// A replication connection of the superuser.
    pub async fn connect(&self, database: &str) -> ReplicationConnection {
        let config = self.config(database);
        ReplicationConnection::connect(open(&config).await, NoTls, &config, &[])
            .await
            .unwrap()
    }
}

/// An open socket to the only host of `config`.
pub async fn open(config: &Config) -> Socket {
    let port = config.get_ports()[0];
    match &config.get_hosts()[0] {
        Host::Tcp(name) => Socket::Tcp(TcpStream::connect((name.as_str(), port)).await.unwrap()),
        Host::Unix(directory) => {
            let path = directory.join(format!(".s.PGSQL.{port}"));
            Socket::Unix(UnixStream::connect(path).await.unwrap())
        }
    }
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited for 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The programs of a PostgreSQL installation, and who runs them.
struct Tools {
    bin: PathBuf,
    /// Set when we are root, which the server refuses to run as.
    user: Option<User>,
}

impl Tools {
    /// The project's own installation if it has one, else the system's.
    fn find() -> Tools {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime/postgres/bin");
        let bin = if own.is_dir() {
            own
        } else {
            let answer = Command::new("pg_config").arg("--bindir").output();
            let answer = answer
                .expect("these tests need a PostgreSQL server: install one that has pg_config");
            PathBuf::from(String::from_utf8(answer.stdout).unwrap().trim_end())
        };
        let unprivileged = || {
            let find = |name| User::from_name(name).unwrap();
            find("postgres")
                .or_else(|| find("nobody"))
                .expect("a user to run the server as")
        };
        Tools {
            bin,
            user: geteuid().is_root().then(unprivileged),
        }
    }

    fn command(&self, program: &str) -> Command {
        self.as_user(Command::new(self.bin.join(program)))
    }

    fn as_user(&self, mut command: Command) -> Command {
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn give(&self, path: &Path) {
        if let Some(user) = &self.user {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
    }

    fn run(&self, command: &mut Command) {
        let output = command.stderr(Stdio::piped()).output().unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn output(&self, command: &mut Command) -> String {
        let output = command.stdout(Stdio::piped()).output().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// Starts a shell that waits for the end of its input and then stops the server and removes its directory. It does
    /// so several times, because initdb or the server may still be starting. It has its own process group, so that
    /// Ctrl-C does not reach it.
    fn watch_over(&self, directory: &Path, data: &Path) -> Child {
        let script = r#"read _; for _ in 1 2 3; do "$0" -D "$1" -m immediate stop; rm -rf "$2"; sleep 1; done"#;
        let mut command = self.as_user(Command::new("sh"));
        command
            .arg("-c")
            .arg(script)
            .arg(self.bin.join("pg_ctl"))
            .arg(data)
            .arg(directory);
        command
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap()
    }

    fn configure(&self, data: &Path, directory: &Path, has_tls: bool) {
        let settings = format!(
            "listen_addresses = 'localhost'
            unix_socket_directories = '{}'
            wal_level = logical
            max_wal_senders = 30
            max_replication_slots = 30
            fsync = off
            ssl = {}
            ",
            directory.display(),
            if has_tls { "on" } else { "off" },
        );
        append(&data.join("postgresql.conf"), &settings);
        let rules = LOGINS.map(|(user, method)| {
            format!("local all {user} {method}\nhost all {user} 127.0.0.1/32 {method}\nhost all {user} ::1/128 {method}\n")
        });
        fs::write(data.join("pg_hba.conf"), rules.concat()).unwrap();
        for (name, content) in [
            ("server.crt", include_str!("tls/server.crt")),
            ("server.key", include_str!("tls/server.key")),
        ] {
            let path = data.join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            self.give(&path);
        }
    }

    /// Creates the roles in single-user mode: one statement a line.
    fn create_roles(&self, data: &Path) {
        let mut command = self.command("postgres");
        command.arg("--single").arg("-D").arg(data).arg("postgres");
        let mut process = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut input = process.stdin.take().unwrap();
        for (name, method) in LOGINS.into_iter().filter(|&(name, _)| name != "postgres") {
            let encryption = if method == "md5" {
                "md5"
            } else {
                "scram-sha-256"
            };
            let password = PASSWORD.replace('\'', "''");
            writeln!(input, "SET password_encryption = '{encryption}'").unwrap();
            writeln!(
                input,
                "CREATE ROLE {name} LOGIN REPLICATION PASSWORD '{password}'"
            )
            .unwrap();
        }
        drop(input);
        assert!(process.wait().unwrap().success());
    }

    /// Starts the server on a port that was free a moment ago; `None` if another process has taken it since.
    fn try_start(&self, data: &Path) -> Option<u16> {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut command = self.command("pg_ctl");
        command
            .arg("-D")
            .arg(data)
            .arg("-l")
            .arg(data.join("log"))
            .arg("-o")
            .arg(format!("-p {port}"));
        command
            .args(["-w", "start"])
            .status()
            .unwrap()
            .success()
            .then_some(port)
    }
}

fn append(path: &Path, text: &str) {
    let mut content = fs::read_to_string(path).unwrap();
    content.push_str(text);
    fs::write(path, content).unwrap();
}
