//! `--allow-host`, the same for the daemon and for the commands that connect to a job's target database.

use clap::Args;

use crate::postgres::allowed_hosts::{AllowedHost, AllowedHosts};

/// The hosts that the author of a jobs row may name in `db_connection`.
#[derive(Args)]
pub struct AllowHostArguments {
    /// A host that jobs may connect to: host, host:port, or the directory of a Unix socket. May be given several times
    /// [default: any host]
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<AllowedHost>,
}

impl AllowHostArguments {
    /// The hosts that were given; without any, all are allowed.
    pub fn allowed_hosts(&self) -> AllowedHosts {
        AllowedHosts::new(self.allow_host.clone())
    }
}
