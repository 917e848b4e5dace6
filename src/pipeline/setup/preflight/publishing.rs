//! What a role needs so that the changes of a table are published for it.

use crate::pipeline::slot::names::JobNames;
use crate::postgres::quote::identifier;
use crate::replication::SlotName;

/// Which slot and publication a job gets.
#[derive(Debug, Clone, Copy)]
pub enum SlotPlan<'a> {
    /// A slot of its own, beside a publication of its own or a prepared one. The names are not known for a job that
    /// does not exist yet.
    Own(Option<&'a JobNames>),
    /// A part in those of all jobs of the database (`--slots database`).
    Shared(Option<&'a JobNames>),
}

impl<'a> SlotPlan<'a> {
    /// What slots of the job are called, whichever it gets.
    pub fn names(self) -> Option<&'a JobNames> {
        let (SlotPlan::Own(names) | SlotPlan::Shared(names)) = self;
        names
    }

    /// The slot that is read. The publication has the same name, unless a prepared one is used.
    pub fn slot(self) -> Option<&'a SlotName> {
        Some(match self {
            SlotPlan::Own(names) => &names?.own,
            SlotPlan::Shared(names) => &names?.shared,
        })
    }

    /// Whether all jobs of the database share a slot.
    pub fn is_shared(self) -> bool {
        matches!(self, SlotPlan::Shared(_))
    }
}

/// The call of the script that prepares a table, where its variables are not known.
pub const PREPARE: &str =
    "lantern-cli sql prepare_publication | psql … -f - (its head says which variables it takes)";

/// What to do where the role may not create a publication for the table alone. `table` is its name, quoted, and `command`
/// prepares one.
pub fn own_remedy(role: &str, table: &str, command: &str) -> String {
    format!(
        "either let the owner of {table} run: {command}; or make the daemon's role {} own the table and GRANT CREATE ON \
         DATABASE to it",
        identifier(role)
    )
}

/// What to do where the role may not create, or add the table to, the publication of all jobs.
pub fn shared_remedy(role: &str) -> String {
    format!(
        "with --slots database the daemon's role {} needs a publication of its own (those that \
         lantern-cli sql prepare_publication makes serve one job each): make it own the tables of its jobs, as by GRANT of the \
         owning role, and GRANT CREATE ON DATABASE to it; or run the daemon with --slots job",
        identifier(role)
    )
}
