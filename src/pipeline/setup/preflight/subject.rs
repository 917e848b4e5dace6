//! What the [`survey`](super::survey) looks at.

use crate::embedding::Model;
use crate::jobs::Definition;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::prerequisites::Prerequisites;
use crate::pipeline::setup::preflight::publishing::SlotPlan;
use crate::pipeline::setup::preflight::users_code::PowerfulRoles;
use crate::pipeline::setup::row_access::Sessions;

/// A job with all that its checks need.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The sessions of its roles.
    pub sessions: Sessions<'a>,
    /// Its names.
    pub names: &'a TargetNames,
    /// Its definition.
    pub definition: &'a Definition,
    /// The dimensions of its model, where they are known.
    pub dimensions: Option<usize>,
    /// Its model, where it could be loaded.
    pub model: Option<&'a Model>,
    /// The slot that it gets.
    pub slot: SlotPlan<'a>,
    /// What to do if others could gain rights through its role.
    pub powerful_roles: PowerfulRoles,
}

/// What the roles may do, as far as it was asked for.
pub struct Rights {
    /// `None` where there is no table.
    pub prerequisites: Option<Prerequisites>,
    /// All that the roles lack was said at one point.
    pub are_said: bool,
    /// The type of the destination where a person creates it.
    pub kind: String,
}

/// Why what belongs to the source column is not looked at.
pub const NO_SOURCE: &str = "there is no source column";

/// Why a right is not asked for once more.
pub const SAID_ABOVE: &str = "see what the role lacks, above";
