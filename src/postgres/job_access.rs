//! What jobs may use: the servers that they may lead to, and the files of the daemon's machine that they may name.
//!
//! Every role that can write to the jobs table chooses a server and how to log in there. The daemon may reach more than
//! that role can: hosts inside of a network, Unix sockets at which the server takes it for its operating-system user, and
//! certificates that prove who it is.

use std::path::PathBuf;

use super::allowed_hosts::{AllowedHosts, HostNotAllowed};
use super::allowed_variables::AllowedVariables;
use super::connection_string::ConnectionString;
use super::connection_string::server::Server;

/// What the operator allows jobs.
#[derive(Debug, Clone, Default)]
pub struct JobAccess {
    /// The hosts and sockets that jobs may connect to (`--allow-host`).
    pub hosts: AllowedHosts,
    /// The environment variables whose content jobs may use as a key of a model's server (`--allow-env`).
    pub variables: AllowedVariables,
    /// The folder of the certificates and keys that jobs may name (`--tls-directory`).
    pub tls_directory: Option<PathBuf>,
}

/// A job asks for something that it may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessDenied {
    /// It names a host that is not allowed.
    #[error(transparent)]
    Host(#[from] HostNotAllowed),
    /// It names a file, and there is no folder of files for jobs.
    #[error(
        "db_connection names a file of the daemon's machine with {0}: a job may name only files below the folder that the \
         daemon is started with (--tls-directory), and there is none"
    )]
    File(&'static str),
}

impl JobAccess {
    /// The connection string of a job, if the job may use all that it names.
    ///
    /// # Errors
    /// The first thing that it may not.
    pub fn admit(&self, database: ConnectionString) -> Result<ConnectionString, AccessDenied> {
        let own = ConnectionString::own().map(ConnectionString::servers);
        self.admit_beside(database, &own.unwrap_or_default())
    }

    /// As [`admit`](Self::admit); `own` are the servers of `--uri`.
    fn admit_beside(
        &self,
        database: ConnectionString,
        own: &[Server],
    ) -> Result<ConnectionString, AccessDenied> {
        self.hosts.check(&database.servers(), own)?;
        match (database.file_of_job(), &self.tls_directory) {
            (None, _) => Ok(database),
            (Some(_), Some(folder)) => Ok(database.with_files_below(folder)),
            (Some(keyword), None) => Err(AccessDenied::File(keyword)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(access: &JobAccess, text: &str) -> Result<ConnectionString, String> {
        let own: ConnectionString = "host=/own/socket port=6000 user=me".parse().unwrap();
        let database = text.parse().unwrap();
        let admitted = access.admit_beside(database, &own.servers());
        admitted.map_err(|denied| denied.to_string())
    }

    #[test]
    fn without_allow_host_a_job_may_use_a_socket_only_of_uri() {
        let all = JobAccess::default();
        assert!(admitted(&all, "host=anywhere user=me").is_ok());
        assert!(admitted(&all, "host=/own/socket port=6000 user=you").is_ok());
        for other in [
            "host=/own/socket user=me",
            "host=/own/socket/../socket port=6000 user=me",
            "host=/tmp user=me",
            "host=db,/tmp user=me",
        ] {
            let denied = admitted(&all, other).unwrap_err();
            assert!(
                denied.contains("Unix socket") && denied.contains("--allow-host /"),
                "{denied}"
            );
        }
        let listed = JobAccess {
            hosts: AllowedHosts::new(vec!["/tmp".parse().unwrap()]),
            ..JobAccess::default()
        };
        assert!(admitted(&listed, "host=/tmp port=7 user=me").is_ok());
        assert!(admitted(&listed, "host=/own/socket port=6000 user=me").is_err());
    }

    #[test]
    fn a_file_needs_a_folder_of_the_operators() {
        let files = "sslcert=a sslkey=b";
        for (options, keyword) in [
            ("sslrootcert=/etc/shadow", "sslrootcert"),
            ("sslrootcert=a", "sslrootcert"),
            (files, "sslcert"),
        ] {
            let text = format!("host=db user=me {options}");
            let denied = admitted(&JobAccess::default(), &text).unwrap_err();
            assert!(
                denied.contains(keyword) && denied.contains("--tls-directory"),
                "{denied}"
            );
        }
        let with_folder = JobAccess {
            tls_directory: Some("/etc/lantern/tls".into()),
            ..JobAccess::default()
        };
        assert!(admitted(&with_folder, "host=db user=me sslrootcert=a").is_ok());
        assert!(admitted(&JobAccess::default(), "host=db user=me sslrootcert=system").is_ok());
    }
}
