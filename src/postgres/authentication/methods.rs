//! `require_auth`: the methods by which a server may authenticate us (PostgreSQL manual, "Parameter Key Words").

use std::fmt;

/// What a server asks for first, as `require_auth` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Nothing: `trust`, `peer`, or a client certificate.
    None,
    /// The password in clear text.
    Password,
    /// A hash of the password.
    Md5,
    /// GSSAPI, which the clients do not support.
    Gss,
    /// SSPI, which they do not support either.
    Sspi,
    /// SCRAM, with channel binding or without.
    ScramSha256,
    /// A bearer token, which they do not support.
    Oauth,
}

impl Method {
    const ALL: [Method; 7] = [
        Method::None,
        Method::Password,
        Method::Md5,
        Method::Gss,
        Method::Sspi,
        Method::ScramSha256,
        Method::Oauth,
    ];

    fn name(self) -> &'static str {
        match self {
            Method::None => "none",
            Method::Password => "password",
            Method::Md5 => "md5",
            Method::Gss => "gss",
            Method::Sspi => "sspi",
            Method::ScramSha256 => "scram-sha-256",
            Method::Oauth => "oauth",
        }
    }
}

/// A set of methods.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Methods(u8);

impl Methods {
    /// Every method, as without `require_auth`.
    pub const ALL: Methods = Methods(u8::MAX);

    /// Reads the value of `require_auth`: methods separated by commas, all of them with a `!` before them or none.
    ///
    /// # Errors
    /// What is wrong, without a part of the value.
    pub fn parse(text: &str) -> Result<Methods, &'static str> {
        let negated = text.starts_with('!');
        let mut listed = Methods(0);
        for word in text.split(',') {
            let name = match (word.strip_prefix('!'), negated) {
                (Some(name), true) => name,
                (None, false) => word,
                _ => return Err("require_auth has methods with and without a '!'"),
            };
            let Some(method) = Method::ALL.into_iter().find(|method| method.name() == name) else {
                return Err(
                    "require_auth has a method that is none of none, password, md5, gss, sspi, scram-sha-256, oauth",
                );
            };
            if listed.contains(method) {
                return Err("require_auth has a method twice");
            }
            listed.0 |= method.bit();
        }
        Ok(match negated {
            true => Methods(!listed.0),
            false => listed,
        })
    }

    /// Whether a method is among them.
    pub fn contains(self, method: Method) -> bool {
        self.0 & method.bit() != 0
    }

    /// Those that are in both sets.
    pub fn and(self, other: Methods) -> Methods {
        Methods(self.0 & other.0)
    }

    /// Whether the other set has all of these.
    pub fn is_within(self, other: Methods) -> bool {
        self.and(other) == self
    }
}

impl Method {
    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// As a value of `require_auth`.
impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for method in Method::ALL {
            if self.contains(method) {
                write!(f, "{separator}{}", method.name())?;
                separator = ",";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_the_methods_or_those_to_leave_out() {
        let read = |text| Methods::parse(text).map(|methods| methods.to_string());
        assert_eq!(read("scram-sha-256").unwrap(), "scram-sha-256");
        assert_eq!(read("md5,none").unwrap(), "none,md5");
        assert_eq!(
            read("!none").unwrap(),
            "password,md5,gss,sspi,scram-sha-256,oauth"
        );
        assert_eq!(
            read("!password,!md5").unwrap(),
            "none,gss,sspi,scram-sha-256,oauth"
        );
        assert_eq!(
            Methods::parse("!gss,!sspi")
                .unwrap()
                .and(Methods::parse("gss").unwrap()),
            Methods(0)
        );
        for wrong in [
            "",
            "scram",
            "md5,!none",
            "!md5,none",
            "md5,md5",
            "!md5,!md5",
            "md5,",
            "!",
            "!!md5",
            "MD5",
            " md5",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
