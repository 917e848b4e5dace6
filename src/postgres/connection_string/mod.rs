//! Connection strings as libpq users write them, and the defaults for what they leave out.
//!
//! ```text
//! text ──text──▶ Parameters ◀── service file, PG* variables, ~/.postgresql
//!                    │
//!                    ├─ server ──▶ Server: where to connect
//!                    └─ settings ─▶ Config, TlsOptions: how
//! ```
//!
//! There are two kinds. `--uri` is the operator's: service files, PG* variables, the passfile and `~/.postgresql`
//! complete it as they would for psql. A jobs row may come from any role that can insert one, and names a server of
//! that role's choice. So it gets the harmless defaults, and our own credentials only for the server that they belong
//! to. The rules are in `docs/connecting.md`, "What a job may use".
//!
//! ```
//! use lantern::postgres::ConnectionString;
//!
//! let string: ConnectionString = "postgresql://me:s3cret@a.example.org,b.example.org:5433/app".parse()?;
//! assert_eq!(string.servers()[1].to_string(), "b.example.org:5433");
//! assert_eq!(string.database(), "app");
//! assert!(!format!("{string} {string:?}").contains("s3cret"));
//! # Ok::<(), lantern::postgres::connection_string::InvalidConnectionString>(())
//! ```

pub mod credentials;
mod defaults;
mod environment;
pub mod error;
mod foreign;
mod keyword;
mod limits;
mod passfile;
pub mod rewritten;
pub mod server;
mod service;
pub mod settings;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use super::authentication::{LoginPolicy, Methods};
use super::tls::options::{Encryption, TlsOptions};
use credentials::{Author, Credentials, Protection, Reached, Target};
use environment::Environment;
pub use error::InvalidConnectionString;
use error::refused;
use keyword::{Audience, Parameters};
pub use server::{Location, Server};
pub use settings::SessionAttributes;

/// A parsed connection string. `Display` and `Debug` never show the password.
#[derive(Clone)]
pub struct ConnectionString {
    base: Config,
    user: String,
    /// At least one.
    servers: Vec<Server>,
    wanted: SessionAttributes,
    balanced: bool,
    tls: TlsOptions,
    /// `require_auth`.
    methods: Methods,
    /// `requirepeer`.
    required_peer: Option<String>,
    credentials: Credentials,
    /// What the session is for, as part of its `application_name`.
    purpose: Option<String>,
}

/// The string of `--uri`: PGPASSWORD and the default client certificate are for its servers.
static OWN: OnceLock<ConnectionString> = OnceLock::new();

impl ConnectionString {
    /// Reads `--uri`, completed from service files and the environment as in libpq. A process has one: from then on
    /// jobs on the same server may use the credentials of the environment too.
    ///
    /// # Errors
    /// If the string, a service file or a variable is not valid.
    pub fn from_operator(text: &str) -> Result<ConnectionString, InvalidConnectionString> {
        let own = Self::completed(text, &Environment::from_process())?;
        Ok(OWN.get_or_init(|| own).clone())
    }

    /// The string of a server that the daemon has started for itself: as that of `--uri`, but all of it is given, and
    /// nothing of the environment may change it. Its jobs may use the passfile that it names.
    ///
    /// # Errors
    /// If it is not valid.
    pub fn from_daemon(text: &str) -> Result<ConnectionString, InvalidConnectionString> {
        let own = Self::completed(text, &Environment::default())?;
        Ok(OWN.get_or_init(|| own).clone())
    }

    /// Reads another connection string of the operator's, completed as that of `--uri`.
    ///
    /// # Errors
    /// As [`from_operator`](Self::from_operator).
    pub fn of_operator(text: &str) -> Result<ConnectionString, InvalidConnectionString> {
        Self::completed(text, &Environment::from_process())
    }

    fn completed(
        text: &str,
        environment: &Environment,
    ) -> Result<ConnectionString, InvalidConnectionString> {
        let mut parameters = text::parameters(text)?;
        service::apply(&mut parameters, environment)?;
        let all = [
            Audience::OwnServer,
            Audience::OwnServerAndItsJobs,
            Audience::Everyone,
        ];
        defaults::take_variables(&mut parameters, &all, environment);
        defaults::take_certificates(&mut parameters, environment);
        defaults::take_root(&mut parameters, environment);
        Self::build(&parameters, environment, Author::Operator)
    }

    /// Reads the connection string of a jobs row; `own` is the server of `--uri`.
    fn from_job(
        text: &str,
        environment: &Environment,
        own: Option<&ConnectionString>,
    ) -> Result<ConnectionString, InvalidConnectionString> {
        let mut parameters = text::parameters(text)?;
        if let Some(name) = parameters.not_for_jobs() {
            return refused(format!(
                "{name} names a file of the daemon's machine, which a job may not; --uri may"
            ));
        }
        if parameters.get("host").is_none() && parameters.get("hostaddr").is_none() {
            return refused("it names no host");
        }
        limits::check_servers(&parameters)?;
        limits::cap_numbers(&mut parameters);
        parameters.mark_files_as_jobs();
        let has_password = parameters.get("password").is_some_and(|it| !it.is_empty());
        defaults::take_variables(&mut parameters, &[Audience::Everyone], environment);
        defaults::take_root(&mut parameters, environment);
        let alone = Self::build(&parameters, environment, Author::JobsRow)?;
        if !own.is_some_and(|own| alone.is_for_the_server_of(own)) {
            return Ok(alone);
        }
        defaults::take_variables(
            &mut parameters,
            &[Audience::OwnServerAndItsJobs],
            environment,
        );
        defaults::take_certificates(&mut parameters, environment);
        let mut string = Self::build(&parameters, environment, Author::JobsRow)?;
        string.credentials.is_lent = !has_password;
        // That which `--uri` names may be another one than PGPASSFILE.
        string.credentials.passfile = own.and_then(|own| own.credentials.passfile.clone());
        Ok(string)
    }

    fn build(
        parameters: &Parameters,
        environment: &Environment,
        author: Author,
    ) -> Result<ConnectionString, InvalidConnectionString> {
        limits::check_characters(parameters)?;
        let text = |name: &str| parameters.get(name).filter(|value| !value.is_empty());
        let Some(user) = text("user").or(environment.user()) else {
            return refused("it names no user");
        };
        let mut servers = Server::from_parameters(parameters)?;
        if servers.is_empty() {
            servers.push(Server::local(parameters)?);
        }
        let passfile = text("passfile").map(PathBuf::from);
        let (base, tls) = (settings::base(parameters)?, settings::tls(parameters)?);
        let asked = Protection {
            tls: tls.clone(),
            channel_binding: base.get_channel_binding(),
        };
        let (meets_standard, standard_methods) = match author {
            Author::Operator => (true, Methods::ALL),
            Author::JobsRow => {
                let (standard, methods) = defaults::standard(environment)?;
                (asked.meets(&standard), methods)
            }
        };
        Ok(ConnectionString {
            base,
            user: user.to_owned(),
            servers,
            wanted: SessionAttributes::from_parameters(parameters)?,
            balanced: settings::is_balanced(parameters)?,
            tls,
            methods: settings::methods(parameters)?,
            required_peer: text("requirepeer").map(str::to_owned),
            credentials: Credentials {
                author,
                password: text("password").map(str::to_owned),
                is_lent: false,
                passfile: passfile.or_else(|| environment.home().map(passfile::default_path)),
                meets_standard,
                standard_methods,
            },
            purpose: None,
        })
    }

    /// Whether our own credentials may be used: for servers of `own`, as its user, and with no less protection.
    fn is_for_the_server_of(&self, own: &ConnectionString) -> bool {
        self.servers
            .iter()
            .all(|server| own.servers.contains(server))
            && self.user == own.user
            && self.tls.asks_as_much_as(&own.tls)
            && self.base.get_channel_binding() == own.base.get_channel_binding()
            && self.methods.is_within(own.methods)
            && (own.required_peer.is_none() || self.required_peer == own.required_peer)
    }

    /// The string of `--uri`, if it was read with [`from_operator`](Self::from_operator).
    pub fn own() -> Option<&'static ConnectionString> {
        OWN.get()
    }

    /// The keyword of the first file of certificates or keys that a jobs row has named.
    pub fn file_of_job(&self) -> Option<&'static str> {
        self.tls.file_of_job()
    }

    /// Allows the files of certificates and keys that a jobs row has named, as far as they are below this folder.
    pub fn with_files_below(mut self, folder: &Path) -> ConnectionString {
        self.tls.allow_files_below(folder);
        self
    }

    /// The account that a server behind a Unix socket must run as (`requirepeer`).
    pub fn required_peer(&self) -> Option<&str> {
        self.required_peer.as_deref()
    }

    /// The servers in the order in which to try them. At least one.
    pub fn servers(&self) -> Vec<Server> {
        let mut servers = self.servers.clone();
        if self.balanced {
            fastrand::shuffle(&mut servers);
        }
        servers
    }

    /// The first server. After [`narrowed`](Self::narrowed) it is the only one.
    pub fn first_server(&self) -> &Server {
        &self.servers[0]
    }

    /// Keepalives and `tcp_user_timeout`. Nothing to log in with.
    pub fn socket_options(&self) -> &Config {
        &self.base
    }

    /// How long a connection to one address may take.
    pub fn connect_timeout(&self) -> Duration {
        let limit = self.base.get_connect_timeout();
        limit.copied().unwrap_or(settings::CONNECT_TIMEOUT)
    }

    /// Which role the server must have.
    pub fn wanted(&self) -> SessionAttributes {
        self.wanted
    }

    /// The TLS part.
    pub fn tls(&self) -> &TlsOptions {
        &self.tls
    }

    /// Whether the author of a jobs row has written it, and not the operator.
    pub fn is_of_job(&self) -> bool {
        self.credentials.author == Author::JobsRow
    }

    /// The same with an `application_name` that says what the session is for, unless the string has one.
    pub fn named(&self, purpose: &str) -> ConnectionString {
        let mut named = self.clone();
        // A job's id may be any text, and the name is sent to any host.
        named.purpose = Some(purpose.replace(char::is_control, "?"));
        named
    }

    /// The same for another database of the server.
    pub fn in_database(&self, name: &str) -> ConnectionString {
        let mut other = self.clone();
        other.base.dbname(name);
        other
    }

    /// The same connection string for `server` alone, with the encryption to use there.
    pub fn narrowed(&self, server: Server, encryption: Encryption) -> ConnectionString {
        let mut narrowed = self.clone();
        // As in libpq, whatever `sslmode` says.
        narrowed.tls.encryption = match server.is_socket() {
            true => Encryption::Disable,
            false => encryption,
        };
        narrowed.servers = vec![server];
        narrowed
    }

    /// The settings of the string, with the password that it has. Connections are opened with those of
    /// [`login`](Self::login), which looks into the passfile too.
    pub fn config(&self) -> Config {
        let mut config = self.config_without_password();
        if let Some(password) = &self.credentials.password {
            config.password(password);
        }
        config
    }

    /// The settings to log in with at the server that was reached, with a password out of the passfile if there is no
    /// other, and what the server may be told. For the first server: call [`narrowed`](Self::narrowed) before if there
    /// are several.
    pub fn login(&self, reached: Reached) -> (Config, LoginPolicy) {
        let target = Target {
            server: self.first_server(),
            database: self.database(),
            user: &self.user,
            tls: &self.tls,
            methods: self.methods,
        };
        let (password, policy) = self.credentials.for_server(&target, reached);
        let mut config = self.config_without_password();
        if let Some(password) = password {
            config.password(password);
        }
        (config, policy)
    }

    fn config_without_password(&self) -> Config {
        let mut config = self.base.clone();
        if let Some(purpose) = &self.purpose
            && config.get_application_name() == Some(settings::APPLICATION_NAME)
        {
            config.application_name(format!("{}: {purpose}", settings::APPLICATION_NAME));
        }
        config.user(&self.user);
        config.ssl_mode(match self.tls.encryption {
            Encryption::Disable => SslMode::Disable,
            Encryption::Allow | Encryption::Prefer => SslMode::Prefer,
            Encryption::Require => SslMode::Require,
        });
        for server in &self.servers {
            match &server.location {
                Location::Name(name) => config.host(name),
                Location::Resolved { name, address } | Location::Address { name, address } => {
                    config.host(name).hostaddr(*address)
                }
                Location::Directory(directory) => config.host_path(directory),
            };
            config.port(server.port);
        }
        config
    }

    /// The database. As in libpq, the default is the name of the user.
    pub fn database(&self) -> &str {
        self.base.get_dbname().unwrap_or(&self.user)
    }
}

/// The connection string of a jobs row.
impl FromStr for ConnectionString {
    type Err = InvalidConnectionString;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_job(text, &Environment::from_process(), OWN.get())
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgresql://{}", self.user)?;
        if self.credentials.password.is_some() {
            f.write_str(":***")?;
        }
        for (position, server) in self.servers.iter().enumerate() {
            write!(f, "{}{server}", if position == 0 { "@" } else { "," })?;
        }
        write!(f, "/{}", self.database())
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
