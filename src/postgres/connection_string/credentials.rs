//! The password for a server, whose it is, and what the server may be told of it.
//!
//! The author of a jobs row chooses the server. So a password that is not the row's own, but the operator's (PGPASSWORD or
//! an entry of the passfile), goes only where the operator wants it, and only in a form that tells an impostor nothing.

use std::path::PathBuf;

use tokio_postgres::config::ChannelBinding;

use super::passfile;
use super::server::Server;
use crate::postgres::authentication::{LoginPolicy, Methods};
use crate::postgres::tls::TlsOptions;

/// How a server was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Over the network.
    OverNetwork,
    /// By a socket that only root or the server's own account can have put there.
    ByProtectedSocket,
    /// By a socket that anybody on this machine may have put there.
    ByOpenSocket,
}

/// Who wrote a connection string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// The person who started the program.
    Operator,
    /// Any role that can insert a row into the jobs table.
    JobsRow,
}

/// Where the passwords of a connection string come from.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub author: Author,
    /// Of the string, of its service, or PGPASSWORD.
    pub password: Option<String>,
    /// Whether that is PGPASSWORD, although a jobs row names the server.
    pub is_lent: bool,
    pub passfile: Option<PathBuf>,
    /// Whether the string asks for as much protection as the operator does of every connection.
    pub meets_standard: bool,
    /// The methods that the operator allows on every connection.
    pub standard_methods: Methods,
}

/// What a connection string asks of a server.
#[derive(Clone, Debug)]
pub(super) struct Protection {
    pub tls: TlsOptions,
    pub channel_binding: ChannelBinding,
}

/// Where to log in.
pub(super) struct Target<'a> {
    pub server: &'a Server,
    pub database: &'a str,
    pub user: &'a str,
    pub tls: &'a TlsOptions,
    /// Those of the string.
    pub methods: Methods,
}

/// A password, and whether it is lent to a jobs row.
struct Password {
    text: String,
    is_lent: bool,
}

impl Protection {
    /// Whether these options ask for as much as `standard` does.
    pub fn meets(&self, standard: &Protection) -> bool {
        self.tls.asks_as_much_as(&standard.tls)
            && rank(self.channel_binding) >= rank(standard.channel_binding)
    }
}

fn rank(binding: ChannelBinding) -> u8 {
    match binding {
        ChannelBinding::Disable => 0,
        ChannelBinding::Require => 2,
        _ => 1,
    }
}

impl Credentials {
    /// The password for a server, and what the server may be told.
    pub fn for_server(
        &self,
        target: &Target<'_>,
        reached: Reached,
    ) -> (Option<String>, LoginPolicy) {
        let password = self.password_for(target, reached);
        let is_lent = password.as_ref().is_some_and(|password| password.is_lent);
        let is_certain = match reached {
            Reached::OverNetwork => target.tls.proves_the_server(),
            Reached::ByProtectedSocket => true,
            Reached::ByOpenSocket => false,
        };
        let allowed = match is_lent {
            true => target.methods.and(self.standard_methods),
            false => target.methods,
        };
        let policy = LoginPolicy {
            allowed,
            keeps_password: is_lent && !is_certain,
        };
        (password.map(|password| password.text), policy)
    }

    fn password_for(&self, target: &Target<'_>, reached: Reached) -> Option<Password> {
        let is_jobs = self.author == Author::JobsRow;
        let may_borrow = !is_jobs || reached != Reached::ByOpenSocket;
        if let Some(password) = &self.password {
            return (may_borrow || !self.is_lent).then(|| Password {
                text: password.clone(),
                is_lent: self.is_lent,
            });
        }
        if !may_borrow || (is_jobs && !self.meets_standard) {
            return None;
        }
        let question = passfile::Question {
            server: target.server,
            database: target.database,
            user: target.user,
            is_trusted: !is_jobs,
        };
        let text = passfile::password(self.passfile.as_deref()?, &question)?;
        Some(Password {
            text,
            is_lent: is_jobs,
        })
    }
}
