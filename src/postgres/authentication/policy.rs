//! Which of a server's requests are answered.

use super::methods::{Method, Methods};

/// What one login may tell the server.
#[derive(Clone, Copy, Debug)]
pub struct LoginPolicy {
    /// `require_auth`.
    pub allowed: Methods,
    /// The password is the operator's, the server is a jobs row's choice, and nothing proves that it is the right one.
    /// SCRAM does not tell a server the password. The other methods do: an MD5 answer is as good as the password there.
    pub keeps_password: bool,
}

/// Nothing is asked of the server.
impl Default for LoginPolicy {
    fn default() -> LoginPolicy {
        LoginPolicy {
            allowed: Methods::ALL,
            keeps_password: false,
        }
    }
}

impl LoginPolicy {
    /// Whether the server may ask for this first.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(super) fn check(self, method: Method) -> Result<(), String> {
        if !self.allowed.contains(method) {
            return Err(format!(
                "the server {}, and require_auth={} does not allow that: change the rule for this role in the server's \
                 pg_hba.conf, or require_auth",
                what(method),
                self.allowed
            ));
        }
        if self.keeps_password && matches!(method, Method::Password | Method::Md5) {
            return Err(format!(
                "the server {}, and the one there is comes from the daemon's password file or PGPASSWORD, which a job's \
                 server gets in this form only if its certificate is verified: use scram-sha-256 in the server's \
                 pg_hba.conf, or sslmode=verify-full, or a password of the job's own in db_connection",
                what(method)
            ));
        }
        Ok(())
    }
}

fn what(method: Method) -> &'static str {
    match method {
        Method::None => "lets the role in without authentication",
        Method::Password => "asks for the password in clear text",
        Method::Md5 => "asks for the password as an MD5 hash",
        Method::Gss => "asks for GSSAPI authentication",
        Method::Sspi => "asks for SSPI authentication",
        Method::ScramSha256 => "asks for SCRAM authentication",
        Method::Oauth => "asks for a bearer token",
    }
}
