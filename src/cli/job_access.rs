//! `--allow-host`, `--allow-env` and `--tls-directory`, the same for the daemon and for the commands that connect to a job's target
//! database.

use std::path::PathBuf;

use clap::Args;

use crate::postgres::JobAccess;
use crate::postgres::allowed_hosts::{AllowedHost, AllowedHosts};
use crate::postgres::allowed_variables::{AllowedVariable, AllowedVariables};

/// What the author of a jobs row may name there.
#[derive(Args)]
pub struct JobAccessArguments {
    /// A host that jobs may connect to: host, host:port, or the directory of a Unix socket. May be given several times;
    /// the environment variable separates them by commas [default: any host, and no Unix socket but that of --uri]
    #[arg(
        long,
        env = "LANTERN_ALLOW_HOST",
        value_name = "HOST",
        value_delimiter = ','
    )]
    allow_host: Vec<AllowedHost>,

    /// An environment variable with a key that jobs may use for a server of models (api_key_env in runtime_params): NAME,
    /// or NAME=FILE for a file with the key, which is read at each start of a job. A key is sent only to the provider's own
    /// servers and to hosts that --allow-host names [default: jobs may use none]
    #[arg(
        long,
        env = "LANTERN_ALLOW_ENV",
        value_name = "NAME[=FILE]",
        value_delimiter = ','
    )]
    allow_env: Vec<AllowedVariable>,

    /// The folder of the certificates and keys that jobs may name in db_connection (sslrootcert, sslcert, sslkey)
    /// [default: jobs may name none]
    #[arg(
        long,
        env = "LANTERN_TLS_DIRECTORY",
        value_name = "FOLDER",
        value_parser = folder
    )]
    tls_directory: Option<PathBuf>,
}

impl JobAccessArguments {
    /// What was given.
    pub fn access(&self) -> JobAccess {
        JobAccess {
            hosts: AllowedHosts::new(self.allow_host.clone()),
            variables: AllowedVariables::new(self.allow_env.clone()),
            tls_directory: self.tls_directory.clone(),
        }
    }

    /// Whether no host is named, so that jobs may connect to all of them.
    pub fn allows_all_hosts(&self) -> bool {
        self.allow_host.is_empty()
    }
}

fn folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.metadata() {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => Err("it is not a folder".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
