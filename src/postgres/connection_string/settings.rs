//! From parameters to what a connection needs: a `tokio_postgres::Config` without servers, and the TLS options.

use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslNegotiation};

use super::error::{Parsed, refused};
use super::keyword::Parameters;
use crate::postgres::authentication::Methods;
use crate::postgres::tls::named_file::NamedFile;
use crate::postgres::tls::options::{Encryption, MinimumVersion, TlsOptions, Verification};

/// The `application_name` of a string that has none.
pub(super) const APPLICATION_NAME: &str = "lantern-cli";
/// The `connect_timeout` of a string that has none.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that vanished is noticed within half a minute. The kernel's default is two hours.
const DEFAULT_USER_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const DEFAULT_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_KEEPALIVE_COUNT: u32 = 4;
/// Linux refuses larger values (`MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPCNT` in the kernel's `tcp.h`).
const MAX_KEEPALIVE_PAUSE: Duration = Duration::from_secs(32_767);
const MAX_KEEPALIVE_COUNT: u32 = 127;

/// Which role a server must have (PostgreSQL manual, "Parameter Key Words", `target_session_attrs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionAttributes {
    /// Every server will do.
    #[default]
    Any,
    /// Sessions can write by default.
    ReadWrite,
    /// Sessions cannot write by default.
    ReadOnly,
    /// Not a standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby, or any server if there is none.
    PreferStandby,
}

impl SessionAttributes {
    pub(super) fn from_parameters(parameters: &Parameters) -> Parsed<SessionAttributes> {
        choice(
            parameters,
            "target_session_attrs",
            &[
                ("any", SessionAttributes::Any),
                ("read-write", SessionAttributes::ReadWrite),
                ("read-only", SessionAttributes::ReadOnly),
                ("primary", SessionAttributes::Primary),
                ("standby", SessionAttributes::Standby),
                ("prefer-standby", SessionAttributes::PreferStandby),
            ],
        )
    }

    /// The roles to look for, one round over all servers after the other.
    pub fn rounds(self) -> &'static [SessionAttributes] {
        match self {
            SessionAttributes::Any => &[SessionAttributes::Any],
            SessionAttributes::ReadWrite => &[SessionAttributes::ReadWrite],
            SessionAttributes::ReadOnly => &[SessionAttributes::ReadOnly],
            SessionAttributes::Primary => &[SessionAttributes::Primary],
            SessionAttributes::Standby => &[SessionAttributes::Standby],
            SessionAttributes::PreferStandby => {
                &[SessionAttributes::Standby, SessionAttributes::Any]
            }
        }
    }
}

/// Whether `load_balance_hosts` asks for a random order.
pub(super) fn is_balanced(parameters: &Parameters) -> Parsed<bool> {
    choice(
        parameters,
        "load_balance_hosts",
        &[("disable", false), ("random", true)],
    )
}

/// A `Config` with everything but servers, user, password and TLS mode.
pub(super) fn base(parameters: &Parameters) -> Parsed<Config> {
    let text = |name: &str| parameters.get(name).filter(|value| !value.is_empty());
    let mut config = Config::new();
    if let Some(database) = text("dbname") {
        config.dbname(database);
    }
    if let Some(options) = text("options") {
        config.options(options);
    }
    let name = text("application_name").or(text("fallback_application_name"));
    config.application_name(name.unwrap_or(APPLICATION_NAME));
    config.channel_binding(choice(
        parameters,
        "channel_binding",
        &[
            ("prefer", ChannelBinding::Prefer),
            ("disable", ChannelBinding::Disable),
            ("require", ChannelBinding::Require),
        ],
    )?);
    config.ssl_negotiation(choice(
        parameters,
        "sslnegotiation",
        &[
            ("postgres", SslNegotiation::Postgres),
            ("direct", SslNegotiation::Direct),
        ],
    )?);
    let seconds = |name| Parsed::Ok(positive(parameters, name)?.map(Duration::from_secs));
    config.connect_timeout(seconds("connect_timeout")?.unwrap_or(CONNECT_TIMEOUT));
    // The one time that libpq takes in milliseconds.
    let user_timeout = positive(parameters, "tcp_user_timeout")?.map(Duration::from_millis);
    config.tcp_user_timeout(user_timeout.unwrap_or(DEFAULT_USER_TIMEOUT));
    config.keepalives(number::<i32>(parameters, "keepalives")? != Some(0));
    let pause = |name, default: Duration| {
        let given = seconds(name)?.unwrap_or(default);
        Parsed::Ok(given.min(MAX_KEEPALIVE_PAUSE))
    };
    config.keepalives_idle(pause("keepalives_idle", DEFAULT_KEEPALIVE_IDLE)?);
    config.keepalives_interval(pause("keepalives_interval", DEFAULT_KEEPALIVE_INTERVAL)?);
    let count = number(parameters, "keepalives_count")?.filter(|count| *count > 0);
    let count = count.unwrap_or(DEFAULT_KEEPALIVE_COUNT);
    config.keepalives_retries(count.min(MAX_KEEPALIVE_COUNT));
    Ok(config)
}

/// The methods that `require_auth` allows.
pub(super) fn methods(parameters: &Parameters) -> Parsed<Methods> {
    let text = parameters
        .get("require_auth")
        .filter(|value| !value.is_empty());
    text.map_or(Ok(Methods::ALL), |text| {
        Methods::parse(text).or_else(refused)
    })
}

/// The TLS options.
pub(super) fn tls(parameters: &Parameters) -> Parsed<TlsOptions> {
    let text = |name: &str| parameters.get(name).filter(|value| !value.is_empty());
    let is_system = text("sslrootcert") == Some("system");
    let (encryption, mut verification) = if is_system && text("sslmode").is_none() {
        (Encryption::Require, Verification::ChainAndHost)
    } else {
        choice(
            parameters,
            "sslmode",
            &[
                ("prefer", (Encryption::Prefer, Verification::None)),
                ("disable", (Encryption::Disable, Verification::None)),
                ("allow", (Encryption::Allow, Verification::None)),
                ("require", (Encryption::Require, Verification::None)),
                ("verify-ca", (Encryption::Require, Verification::Chain)),
                (
                    "verify-full",
                    (Encryption::Require, Verification::ChainAndHost),
                ),
            ],
        )?
    };
    // As in libpq: the authorities of the operating system issue certificates to everyone, so only the host name
    // counts.
    if is_system && verification != Verification::ChainAndHost {
        return refused("sslrootcert=system needs sslmode=verify-full");
    }
    // As in libpq: `require` with a root certificate verifies the chain.
    if text("sslrootcert").is_some() && encryption == Encryption::Require {
        verification = verification.max(Verification::Chain);
    }
    let file = |name: &str| {
        let path = text(name)?.into();
        Some(match parameters.file_of_job(name) {
            None => NamedFile::Operators(path),
            Some(keyword) => NamedFile::Jobs {
                path,
                keyword,
                below: None,
            },
        })
    };
    let (client_certificate, client_key) = (file("sslcert"), file("sslkey"));
    if client_certificate.is_some() != client_key.is_some() {
        return refused("sslcert and sslkey belong together: one of them is missing");
    }
    let options = TlsOptions {
        encryption,
        verification,
        root_certificates: file("sslrootcert").filter(|_| !is_system),
        client_certificate,
        client_key,
        minimum_version: choice(
            parameters,
            "ssl_min_protocol_version",
            &[
                ("TLSv1.2", MinimumVersion::Tls12),
                ("TLSv1.1", MinimumVersion::Tls12),
                ("TLSv1", MinimumVersion::Tls12),
                ("TLSv1.3", MinimumVersion::Tls13),
            ],
        )?,
    };
    if parameters.get("sslnegotiation") == Some("direct") && encryption != Encryption::Require {
        return refused("sslnegotiation=direct needs sslmode=require, verify-ca or verify-full");
    }
    Ok(options)
}

/// The meaning of one of several words. The first is the default.
fn choice<T: Copy>(parameters: &Parameters, name: &str, all: &[(&str, T)]) -> Parsed<T> {
    match parameters.get(name).filter(|value| !value.is_empty()) {
        None => Ok(all[0].1),
        Some(value) => {
            let found = all.iter().find(|(word, _)| *word == value);
            found.map_or_else(
                || {
                    let words: Vec<&str> = all.iter().map(|(word, _)| *word).collect();
                    refused(format!("{name} is none of {}", words.join(", ")))
                },
                |(_, meaning)| Ok(*meaning),
            )
        }
    }
}

fn number<T: FromStr>(parameters: &Parameters, name: &str) -> Parsed<Option<T>> {
    match parameters.get(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => match value.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => refused(format!("{name} is not a number")),
        },
    }
}

/// A number above zero. As in libpq, zero and negative numbers stand for the default.
fn positive(parameters: &Parameters, name: &str) -> Parsed<Option<u64>> {
    let given = number::<i32>(parameters, name)?.and_then(|number| u64::try_from(number).ok());
    Ok(given.filter(|number| *number > 0))
}
