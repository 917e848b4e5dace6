//! Connection strings as libpq users write them, and what stands in for what they leave out.
//!
//! There are two kinds. `--uri` is the operator's: service files, PG* variables, the passfile and `~/.postgresql` complete
//! it as they would for psql. A jobs row may come from anybody who can insert one, and names a server of that person's
//! choice; so it gets what is harmless there, and our own credentials only towards the server that they are for. The
//! rules are in `ARCHITECTURE.md`, "Whose credentials".

mod environment;
mod keyword;
mod passfile;
mod server;
mod service;
mod settings;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use super::tls::{Encryption, TlsOptions};
use environment::Environment;
use keyword::{Audience, Parameters};
pub use server::{Place, Server};
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
    password: Option<String>,
    passfile: Option<PathBuf>,
    author: Author,
    /// What the session is for.
    purpose: Option<String>,
}

/// Who wrote a connection string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Author {
    /// Whoever started the program.
    Operator,
    /// Whoever inserted a row into the jobs table.
    JobsRow,
}

/// Why a connection string was refused. The message never repeats a value of it: each may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the connection string is not valid: {0}; expected postgresql://user:password@host:port/database \
     (percent-encode special characters in the password)"
)]
pub struct InvalidConnectionString(String);

/// The server of `--uri`: the one that PGPASSWORD and the default client certificate are for.
static OWN: OnceLock<ConnectionString> = OnceLock::new();

impl ConnectionString {
    /// Reads `--uri`, of which a process has one, completed from service files and the environment as libpq does it. From then on jobs on the same
    /// server may use the credentials of the environment too.
    ///
    /// # Errors
    /// Where the string, a service file or a variable is not valid.
    pub fn of_operator(text: &str) -> Result<ConnectionString, InvalidConnectionString> {
        let own = Self::completed(text, &Environment::of_process())?;
        Ok(OWN.get_or_init(|| own).clone())
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
        take_variables(&mut parameters, &all, environment);
        take_certificates(&mut parameters, environment);
        take_root(&mut parameters, environment);
        Self::build(&parameters, environment, Author::Operator)
    }

    /// Reads the connection string of a jobs row; `own` is the server of `--uri`.
    fn of_job(
        text: &str,
        environment: &Environment,
        own: Option<&ConnectionString>,
    ) -> Result<ConnectionString, InvalidConnectionString> {
        let mut parameters = text::parameters(text)?;
        if let Some(name) = parameters.not_for_jobs() {
            return Err(InvalidConnectionString(format!(
                "{name} names a file of the daemon's machine, which a job may not; --uri may"
            )));
        }
        if parameters.get("host").is_none() && parameters.get("hostaddr").is_none() {
            return Err(InvalidConnectionString("it names no host".into()));
        }
        take_variables(&mut parameters, &[Audience::Everyone], environment);
        take_root(&mut parameters, environment);
        let alone = Self::build(&parameters, environment, Author::JobsRow)?;
        if !own.is_some_and(|own| alone.is_for_the_server_of(own)) {
            return Ok(alone);
        }
        take_variables(
            &mut parameters,
            &[Audience::OwnServerAndItsJobs],
            environment,
        );
        take_certificates(&mut parameters, environment);
        Self::build(&parameters, environment, Author::JobsRow)
    }

    fn build(
        parameters: &Parameters,
        environment: &Environment,
        author: Author,
    ) -> Result<ConnectionString, InvalidConnectionString> {
        let text = |name: &str| parameters.get(name).filter(|value| !value.is_empty());
        let Some(user) = text("user").or(environment.user()) else {
            return Err(InvalidConnectionString("it names no user".into()));
        };
        let mut servers = Server::all(parameters)?;
        if servers.is_empty() {
            servers = Server::local(parameters)?;
        }
        let passfile = text("passfile").map(PathBuf::from);
        Ok(ConnectionString {
            base: settings::base(parameters)?,
            user: user.to_owned(),
            servers,
            wanted: SessionAttributes::of(parameters)?,
            balanced: settings::is_balanced(parameters)?,
            tls: settings::tls(parameters)?,
            password: text("password").map(str::to_owned),
            passfile: passfile.or_else(|| environment.home().map(passfile::default_path)),
            author,
            purpose: None,
        })
    }

    /// Whether our own credentials may go where this string leads: to servers of `own`, as its user, and no less secured.
    fn is_for_the_server_of(&self, own: &ConnectionString) -> bool {
        self.servers
            .iter()
            .all(|server| own.servers.contains(server))
            && self.user == own.user
            && self.tls.asks_as_much_as(&own.tls)
            && self.base.get_channel_binding() == own.base.get_channel_binding()
    }

    /// The servers in the order to try them in.
    pub fn servers(&self) -> Vec<Server> {
        let mut servers = self.servers.clone();
        if self.balanced {
            fastrand::shuffle(&mut servers);
        }
        servers
    }

    /// How long one address may take.
    pub fn connect_timeout(&self) -> Duration {
        let limit = self.base.get_connect_timeout();
        limit.copied().unwrap_or(settings::CONNECT_TIMEOUT)
    }

    /// Which of the servers is wanted.
    pub fn wanted(&self) -> SessionAttributes {
        self.wanted
    }

    pub fn tls(&self) -> &TlsOptions {
        &self.tls
    }

    /// The same, with a session name (`application_name`) that says what the session is for, unless the string gives one.
    pub fn named(&self, purpose: &str) -> ConnectionString {
        let mut named = self.clone();
        named.purpose = Some(purpose.to_owned());
        named
    }

    /// The same connection string for `server` alone, with or without TLS as it was agreed on there.
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

    /// What `tokio_postgres` and the replication connection connect with. The password is looked up in the passfile now,
    /// for the first server: [`narrowed`](Self::narrowed) comes first where there are several.
    pub fn config(&self) -> Config {
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
            match &server.place {
                Place::Name(name) => config.host(name),
                Place::Resolved { name, address } | Place::Address { name, address } => {
                    config.host(name).hostaddr(*address)
                }
                Place::Socket(directory) => config.host_path(directory),
            };
            config.port(server.port);
        }
        if let Some(password) = self.password() {
            config.password(password);
        }
        config
    }

    fn password(&self) -> Option<String> {
        if let Some(password) = &self.password {
            return Some(password.clone());
        }
        let question = passfile::Question {
            server: self.servers.first()?,
            database: self.database(),
            user: &self.user,
            is_trusted: self.author == Author::Operator,
        };
        passfile::password(self.passfile.as_deref()?, &question)
    }

    /// The database that the string names; libpq's default is the user's name.
    pub fn database(&self) -> &str {
        self.base.get_dbname().unwrap_or(&self.user)
    }
}

fn take_variables(parameters: &mut Parameters, audiences: &[Audience], environment: &Environment) {
    for (name, variable) in keyword::variables(audiences) {
        if let Some(value) = environment.variable(variable) {
            parameters.set_default(name, value.to_owned());
        }
    }
}

/// The client certificate in `~/.postgresql`, with its key, where none is named.
fn take_certificates(parameters: &mut Parameters, environment: &Environment) {
    let files = ["postgresql.crt", "postgresql.key"].map(|name| environment.certificate_file(name));
    if let [Some(certificate), Some(key)] = files
        && parameters.get("sslcert").is_none()
    {
        parameters.set_default("sslcert", certificate);
        parameters.set_default("sslkey", key);
    }
}

/// The root certificates in `~/.postgresql`, where none are named.
fn take_root(parameters: &mut Parameters, environment: &Environment) {
    if let Some(file) = environment.certificate_file("root.crt") {
        parameters.set_default("sslrootcert", file);
    }
}

/// The connection string of a jobs row.
impl FromStr for ConnectionString {
    type Err = InvalidConnectionString;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::of_job(text, &Environment::of_process(), OWN.get())
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgresql://{}", self.user)?;
        if self.password.is_some() {
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
