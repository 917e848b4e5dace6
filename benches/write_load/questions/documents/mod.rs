//! What do documents in chunks cost? How fast they are embedded, what an edit embeds again, how fast their passages are
//! written, and what users notice of a job that follows deletions, too.

pub mod edits;
pub mod throughput;
pub mod write_back;

use serde::Serialize;

use super::user_side;
use crate::texts::Texts;

/// How much to run.
pub struct Plan {
    pub throughput: throughput::Plan,
    /// Documents with each edit.
    pub edited: usize,
    /// Rounds of the write-back of one document.
    pub write_backs: usize,
    pub users: user_side::Plan,
}

#[derive(Serialize)]
pub struct Documents {
    pub throughput: Vec<throughput::Run>,
    pub edits: Vec<edits::Edit>,
    pub write_back: Vec<write_back::Round>,
    pub users: Vec<user_side::Run>,
}

pub async fn measure(plan: &Plan, texts: &Texts) -> Documents {
    Documents {
        throughput: throughput::measure(&plan.throughput, texts).await,
        edits: edits::measure(plan.edited, texts).await,
        write_back: write_back::measure(plan.write_backs, texts).await,
        users: user_side::measure_mix(&plan.users, texts).await,
    }
}
