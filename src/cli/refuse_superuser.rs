//! `--refuse-superuser`, the same for the daemon and for the commands that write vectors.

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

use crate::pipeline::setup::preflight::users_code::PowerfulRoles;

/// What to do about roles with more rights than they need.
#[derive(Args)]
pub struct RefuseSuperuserArguments {
    /// Fail, and do not only warn, where the role that writes is a superuser, or has other rights beyond its tables
    /// (CREATEROLE, CREATEDB, BYPASSRLS, pg_read_all_data, …), while the table, or a function that an UPDATE of it
    /// calls, belongs to a role without them, which could gain them
    #[arg(
        long,
        env = "LANTERN_REFUSE_SUPERUSER",
        action = ArgAction::SetTrue,
        value_parser = FalseyValueParser::new()
    )]
    refuse_superuser: bool,
}

impl RefuseSuperuserArguments {
    /// What was asked for.
    pub fn powerful_roles(&self) -> PowerfulRoles {
        match self.refuse_superuser {
            true => PowerfulRoles::Refuse,
            false => PowerfulRoles::Warn,
        }
    }
}
