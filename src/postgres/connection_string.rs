//! Connection strings as libpq users write them.
//!
//! `tokio_postgres::Config` parses almost all of it; what it does not know (`sslmode=verify-ca`, `verify-full` and the
//! certificate files) is taken out first and kept in [`TlsOptions`].

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

use super::tls::{TlsOptions, Verification};

/// How our sessions call themselves.
const APPLICATION_NAME: &str = "lantern-cli";

/// A parsed connection string. `Display` and `Debug` never show the password.
#[derive(Clone)]
pub struct ConnectionString {
    config: tokio_postgres::Config,
    tls: TlsOptions,
}

/// Why a connection string was refused. The message never repeats the string, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the connection string is not valid: {0}; expected postgresql://user:password@host:port/database \
     (percent-encode special characters in the password)"
)]
pub struct InvalidConnectionString(String);

impl ConnectionString {
    /// What `tokio_postgres` and the replication connection connect with.
    pub fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    pub fn tls(&self) -> &TlsOptions {
        &self.tls
    }

    /// The same, with a session name (`application_name`) that says what the session is for, unless the string gives one.
    pub fn named(&self, purpose: &str) -> ConnectionString {
        let mut named = self.clone();
        if self.config.get_application_name() == Some(APPLICATION_NAME) {
            named
                .config
                .application_name(format!("{APPLICATION_NAME}: {purpose}"));
        }
        named
    }

    /// The database that the string names; libpq's default is the user's name.
    pub fn database(&self) -> &str {
        self.config
            .get_dbname()
            .or_else(|| self.config.get_user())
            .unwrap_or("postgres")
    }
}

impl FromStr for ConnectionString {
    type Err = InvalidConnectionString;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidConnectionString("it is empty".into()));
        }
        if text.contains('\0') {
            return Err(InvalidConnectionString("it contains a NUL byte".into()));
        }
        let (rest, parameters) = if is_url(text) {
            check_credentials(text)?;
            split_url(text)?
        } else {
            split_keywords(text)?
        };
        let mut config: tokio_postgres::Config = rest.parse().map_err(describe)?;
        let tls = tls_options(&parameters, &mut config)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(InvalidConnectionString("it names no host".into()));
        }
        if config.get_application_name().is_none() {
            config.application_name(APPLICATION_NAME);
        }
        // A peer that vanished is noticed within half a minute, not after the two hours that are the kernel's default.
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(30));
        }
        if config.get_keepalives_interval().is_none() {
            config
                .keepalives_idle(Duration::from_secs(10))
                .keepalives_interval(Duration::from_secs(5))
                .keepalives_retries(4);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(10));
        }
        Ok(ConnectionString { config, tls })
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// What is taken for the name of an option may be a part of a password that was not encoded.
fn describe(error: tokio_postgres::Error) -> InvalidConnectionString {
    use std::error::Error;
    let text = error
        .source()
        .map_or_else(|| error.to_string(), |cause| cause.to_string());
    if text.starts_with("unknown option") {
        return InvalidConnectionString("it has an option that is not known".into());
    }
    InvalidConnectionString(text)
}

/// With more than one `@`, a part of the password would be taken for a host or a database, and shown as such.
fn check_credentials(url: &str) -> Result<(), InvalidConnectionString> {
    let after = url.split_once('@').map_or("", |(_, after)| after);
    let place = after.split('?').next().unwrap_or_default();
    if place.contains('@') {
        return Err(InvalidConnectionString(
            "it has more than one @, of which only the one before the host may be written as it is"
                .into(),
        ));
    }
    Ok(())
}

/// The parameters that `tokio_postgres` does not know, as (name, decoded value).
type TlsParameters = Vec<(String, String)>;

fn is_tls_parameter(name: &str) -> bool {
    matches!(name, "sslmode" | "sslrootcert" | "sslcert" | "sslkey")
}

fn split_url(text: &str) -> Result<(String, TlsParameters), InvalidConnectionString> {
    // A '?' may stand unencoded in a password; the query begins after the last '@'.
    let credentials_end = text.rfind('@').map_or(0, |at| at + 1);
    let Some(query_start) = text[credentials_end..]
        .find('?')
        .map(|at| at + credentials_end)
    else {
        return Ok((text.to_string(), Vec::new()));
    };
    let (base, query) = (&text[..query_start], &text[query_start + 1..]);
    let mut kept = Vec::new();
    let mut taken = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if is_tls_parameter(name) {
            taken.push((name.to_string(), percent_decode(value)?));
        } else {
            kept.push(pair);
        }
    }
    let rest = if kept.is_empty() {
        base.to_string()
    } else {
        format!("{base}?{}", kept.join("&"))
    };
    Ok((rest, taken))
}

fn percent_decode(text: &str) -> Result<String, InvalidConnectionString> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match escaped {
            Some(value) => {
                bytes.push(value);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| InvalidConnectionString("a parameter is not UTF-8".into()))
}

/// The `key=value` form: values may be quoted with `'`, and `\` escapes one character.
fn split_keywords(text: &str) -> Result<(String, TlsParameters), InvalidConnectionString> {
    let mut kept = String::new();
    let mut taken = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.peek().is_none() {
            return Ok((kept, taken));
        }
        let mut name = String::new();
        while let Some(c) = characters.next_if(|c| *c != '=') {
            name.push(c);
        }
        if characters.next().is_none() {
            return Err(InvalidConnectionString(
                "it is neither a postgresql:// URL nor key=value pairs".into(),
            ));
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = characters.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match characters.next() {
                None if quoted => {
                    return Err(InvalidConnectionString(
                        "a quoted value does not end".into(),
                    ));
                }
                None => break,
                Some('\\') => value.extend(characters.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
            }
        }
        let name = name.trim();
        if is_tls_parameter(name) {
            taken.push((name.to_string(), value));
        } else {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            kept.push_str(&format!("{name}='{value}' "));
        }
    }
}

fn tls_options(
    parameters: &[(String, String)],
    config: &mut tokio_postgres::Config,
) -> Result<TlsOptions, InvalidConnectionString> {
    let mut options = TlsOptions::default();
    for (name, value) in parameters {
        match name.as_str() {
            "sslmode" => {
                let (mode, verification) = match value.as_str() {
                    "disable" => (SslMode::Disable, Verification::None),
                    "allow" | "prefer" => (SslMode::Prefer, Verification::None),
                    "require" => (SslMode::Require, Verification::None),
                    "verify-ca" => (SslMode::Require, Verification::Chain),
                    "verify-full" => (SslMode::Require, Verification::ChainAndHost),
                    other => {
                        return Err(InvalidConnectionString(format!(
                            "sslmode={other:?} is none of disable, prefer, require, verify-ca, verify-full"
                        )));
                    }
                };
                config.ssl_mode(mode);
                options.verification = verification;
            }
            "sslrootcert" => options.root_certificates = Some(PathBuf::from(value)),
            "sslcert" => options.client_certificate = Some(PathBuf::from(value)),
            _ => options.client_key = Some(PathBuf::from(value)),
        }
    }
    // As libpq does: `require` with a root certificate verifies the chain.
    if options.root_certificates.is_some()
        && config.get_ssl_mode() == SslMode::Require
        && options.verification == Verification::None
    {
        options.verification = Verification::Chain;
    }
    if options.client_certificate.is_some() != options.client_key.is_some() {
        return Err(InvalidConnectionString(
            "sslcert and sslkey belong together: one of them is missing".into(),
        ));
    }
    Ok(options)
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgresql://")?;
        if let Some(user) = self.config.get_user() {
            write!(f, "{user}")?;
            if self.config.get_password().is_some() {
                f.write_str(":***")?;
            }
            f.write_str("@")?;
        }
        for (position, host) in self.config.get_hosts().iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match host {
                Host::Tcp(name) if name.contains(':') => write!(f, "[{name}]")?,
                Host::Tcp(name) => f.write_str(name)?,
                Host::Unix(path) => {
                    write!(f, "{}", path.display().to_string().replace('/', "%2F"))?
                }
            }
            let ports = self.config.get_ports();
            if let Some(port) = ports.get(position).or(ports.first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.database())
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ConnectionString {
        text.parse().unwrap()
    }

    #[test]
    fn the_password_is_never_shown() {
        for text in [
            "postgresql://me:s3cret@db.example.org:6432/shop",
            "postgresql://me:s3cret@db.example.org:6432/shop?sslmode=verify-full",
            "host=db.example.org user=me password=s3cret dbname=shop port=6432",
            "host=db.example.org user=me password='s3cret' dbname=shop port=6432 sslmode=require",
        ] {
            let shown = format!("{} {:?}", parse(text), parse(text));
            assert!(!shown.contains("s3cret"), "{shown}");
            assert!(
                shown.contains("postgresql://me:***@db.example.org:6432/shop"),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_string() {
        for text in [
            "",
            "s3cret",
            "http://me:s3cret@host/db",
            "postgresql://me:s3cret@host/db?sslmode=maybe",
            "postgresql://me:s3cret@host:port/db",
            "postgresql:///db",
            "host=h password='s3cret",
        ] {
            let error = text
                .parse::<ConnectionString>()
                .expect_err(text)
                .to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn sslmode_decides_what_is_verified() {
        let verification = |text: &str| parse(text).tls.verification;
        assert_eq!(verification("postgres://u@h/d"), Verification::None);
        assert_eq!(
            verification("postgres://u@h/d?sslmode=require"),
            Verification::None
        );
        assert_eq!(
            verification("postgres://u@h/d?sslmode=verify-ca"),
            Verification::Chain
        );
        assert_eq!(
            verification("postgres://u@h/d?sslmode=verify-full"),
            Verification::ChainAndHost
        );
        assert_eq!(
            verification("postgres://u@h/d?sslrootcert=%2Fca.pem&sslmode=require"),
            Verification::Chain
        );
        assert_eq!(
            parse("postgres://u@h/d?sslrootcert=%2Fca.pem&sslmode=require")
                .tls
                .root_certificates,
            Some(PathBuf::from("/ca.pem"))
        );
        assert_eq!(
            parse("postgres://u@h/d?sslmode=verify-ca")
                .config
                .get_ssl_mode(),
            SslMode::Require
        );
    }

    #[test]
    fn other_parameters_reach_the_configuration() {
        let config =
            parse("postgres://u@h/d?connect_timeout=3&sslmode=disable&application_name=mine")
                .config;
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(config.get_application_name(), Some("mine"));
        assert_eq!(config.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn keywords_keep_their_quoting() {
        let config =
            parse(r"host=h user='o\'brien' password='a b\\c' dbname=d sslmode=prefer").config;
        assert_eq!(config.get_user(), Some("o'brien"));
        assert_eq!(config.get_password(), Some(&b"a b\\c"[..]));
    }
}
