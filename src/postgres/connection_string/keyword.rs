//! The keywords of connection strings (PostgreSQL manual, "Parameter Key Words") and the environment variables that are
//! their defaults ("Environment Variables").

use std::collections::BTreeMap;

use super::error::{Parsed, refused};
use super::foreign;

/// Which connections an environment variable is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The server of `--uri` alone: the variable says which server that is.
    OwnServer,
    /// The server of `--uri`, also where a job names it: the variable proves who we are.
    OwnServerAndItsJobs,
    /// Every connection: the variable says how to connect, and holds no secret.
    Everyone,
}

/// A keyword that means something here.
#[derive(Debug)]
pub struct Keyword {
    pub name: &'static str,
    pub variable: Option<(&'static str, Audience)>,
}

const fn plain(name: &'static str) -> Keyword {
    Keyword {
        name,
        variable: None,
    }
}

const fn from(variable: &'static str, audience: Audience, name: &'static str) -> Keyword {
    Keyword {
        name,
        variable: Some((variable, audience)),
    }
}

use Audience::{Everyone, OwnServer, OwnServerAndItsJobs};

const KEYWORDS: &[Keyword] = &[
    from("PGHOST", OwnServer, "host"),
    from("PGHOSTADDR", OwnServer, "hostaddr"),
    from("PGPORT", OwnServer, "port"),
    from("PGDATABASE", OwnServer, "dbname"),
    from("PGUSER", OwnServer, "user"),
    from("PGSERVICE", OwnServer, "service"),
    from("PGSERVICEFILE", OwnServer, "servicefile"),
    from("PGOPTIONS", OwnServer, "options"),
    from("PGTARGETSESSIONATTRS", OwnServer, "target_session_attrs"),
    from("PGLOADBALANCEHOSTS", OwnServer, "load_balance_hosts"),
    from("PGPASSWORD", OwnServerAndItsJobs, "password"),
    from("PGSSLCERT", OwnServerAndItsJobs, "sslcert"),
    from("PGSSLKEY", OwnServerAndItsJobs, "sslkey"),
    from("PGPASSFILE", Everyone, "passfile"),
    from("PGAPPNAME", Everyone, "application_name"),
    from("PGCONNECT_TIMEOUT", Everyone, "connect_timeout"),
    from("PGCHANNELBINDING", Everyone, "channel_binding"),
    from("PGSSLMODE", Everyone, "sslmode"),
    from("PGSSLNEGOTIATION", Everyone, "sslnegotiation"),
    from("PGSSLROOTCERT", Everyone, "sslrootcert"),
    from("PGREQUIREAUTH", Everyone, "require_auth"),
    from("PGREQUIREPEER", Everyone, "requirepeer"),
    from(
        "PGSSLMINPROTOCOLVERSION",
        Everyone,
        "ssl_min_protocol_version",
    ),
    plain("fallback_application_name"),
    plain("tcp_user_timeout"),
    plain("keepalives"),
    plain("keepalives_idle"),
    plain("keepalives_interval"),
    plain("keepalives_count"),
];

/// Keywords of libpq that have no effect here: the feature does not exist, or is always on.
const WITHOUT_EFFECT: &[&str] = &[
    "client_encoding",
    "sslcompression",
    "sslsni",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "ssl_max_protocol_version",
];

/// Keywords of libpq that ask for something which does not exist here.
const NOT_SUPPORTED: &[&str] = &[
    "gssencmode",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "sslcertmode",
    "ssl",
    "replication",
    "min_protocol_version",
    "max_protocol_version",
    "scram_client_key",
    "scram_server_key",
];

/// Keywords that stand for others.
const OTHER_NAMES: &[&str] = &["requiressl", "keepalives_retries"];

fn is_unknown(name: &str) -> bool {
    let others = [WITHOUT_EFFECT, NOT_SUPPORTED, OTHER_NAMES].concat();
    !KEYWORDS.iter().any(|keyword| keyword.name == name) && !others.contains(&name)
}

/// Files that only the operator may name: their content would be sent as a password to a server of the row's choice.
const NOT_IN_JOBS: &[&str] = &["passfile", "service", "servicefile"];

/// Keywords that name files of certificates and keys.
const FILES: &[&str] = &["sslrootcert", "sslcert", "sslkey"];

/// Values by keyword.
#[derive(Clone, Default)]
pub struct Parameters {
    values: BTreeMap<&'static str, String>,
    /// The keywords of files that a jobs row has named.
    files_of_job: Vec<&'static str>,
}

impl Parameters {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// All values, with their keywords.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }

    /// Replaces a value, if there is one.
    pub fn replace(&mut self, name: &str, value: String) {
        if let Some(old) = self.values.get_mut(name) {
            *old = value;
        }
    }

    /// Takes down which files are named so far: by a jobs row, which the operator's defaults come after.
    pub fn mark_files_as_jobs(&mut self) {
        let is_named = |name: &&&str| self.get(name).is_some_and(|value| !value.is_empty());
        self.files_of_job = FILES.iter().filter(is_named).copied().collect();
    }

    /// The keyword itself, if it names a file and a jobs row has named that.
    pub fn file_of_job(&self, name: &str) -> Option<&'static str> {
        self.files_of_job.iter().copied().find(|file| *file == name)
    }

    /// Sets a value as a connection string does: the last one counts.
    ///
    /// # Errors
    /// For a keyword that libpq does not know, and for one that asks for a restriction that is not implemented here.
    /// `place` says which one it is: the name is not repeated, because it may be part of a password.
    pub fn set_at(&mut self, place: &str, name: &str, value: String) -> Parsed<()> {
        if is_unknown(name) {
            let keywords = KEYWORDS.iter().map(|keyword| keyword.name);
            return refused(foreign::option(name, place, keywords));
        }
        self.set(name, value)
    }

    /// As [`set_at`](Self::set_at), for a name that is known to be a keyword.
    ///
    /// # Errors
    /// As those of [`set_at`](Self::set_at).
    pub fn set(&mut self, name: &str, value: String) -> Parsed<()> {
        if let Some(keyword) = KEYWORDS.iter().find(|keyword| keyword.name == name) {
            self.values.insert(keyword.name, value);
            return Ok(());
        }
        match (name, value.as_str()) {
            // The form of JDBC, which libpq accepts too.
            ("ssl", "true") => self.set("sslmode", "require".to_owned()),
            ("requiressl", "0") => Ok(()),
            ("requiressl", "1") => self.set("sslmode", "require".to_owned()),
            ("keepalives_retries", _) => self.set("keepalives_count", value),
            ("gssencmode", "disable" | "prefer") => Ok(()),
            (name, _) if WITHOUT_EFFECT.contains(&name) => Ok(()),
            (name, _) if NOT_SUPPORTED.contains(&name) => {
                refused(format!("{name} is not supported here"))
            }
            _ => refused("it has an option that is not one of libpq's"),
        }
    }

    /// Sets a value if there is none. As in libpq, an empty one counts as none.
    pub fn set_default(&mut self, name: &'static str, value: String) {
        if self.values.get(name).is_none_or(String::is_empty) {
            self.values.insert(name, value);
        }
    }

    /// Sets the values of `others` that are missing here.
    pub fn set_defaults(&mut self, others: &Parameters) {
        for (name, value) in &others.values {
            self.set_default(name, value.clone());
        }
    }

    /// The first keyword that a jobs row must not use.
    pub fn not_for_jobs(&self) -> Option<&'static str> {
        NOT_IN_JOBS
            .iter()
            .copied()
            .find(|name| self.values.contains_key(name))
    }
}

/// The keywords whose variables are for one of these audiences, with the name of the variable.
pub fn variables(audiences: &[Audience]) -> impl Iterator<Item = (&'static str, &'static str)> {
    KEYWORDS.iter().filter_map(move |keyword| {
        let (variable, audience) = keyword.variable?;
        audiences
            .contains(&audience)
            .then_some((keyword.name, variable))
    })
}
