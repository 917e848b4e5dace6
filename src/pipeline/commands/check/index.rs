//! Whether the index that a job asks for can be built.

use crate::jobs::InitProgress;
use crate::pipeline::error::JobError;
use crate::pipeline::index::look;
use crate::pipeline::index::wanted::WantedIndex;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::points::{Outcome, Points};
use crate::pipeline::setup::row_access::Sessions;
use crate::pipeline::table::target::TargetTable;

const POINT: &str = "create_index";

/// Adds a point where the job asks for an index. `vectors` is the table with the dimensions of the model, as far as both are
/// known.
pub(super) async fn look(
    points: &mut Points,
    sessions: Sessions<'_>,
    names: &TargetNames,
    vectors: Option<(&TargetTable, usize)>,
    progress: InitProgress,
) {
    let Some(options) = &names.index else { return };
    let Some((target, dimensions)) = vectors else {
        return points.skip(&[POINT], "the table or the model is not known well enough");
    };
    let outcome = match WantedIndex::new(target, dimensions, options) {
        Ok(wanted) => find_builder(sessions, target, &wanted).await,
        Err(reason) if progress == InitProgress::New => {
            Outcome::Failed(JobError::permanent(reason))
        }
        Err(reason) => Outcome::Advice(reason),
    };
    points.add(POINT, outcome);
}

async fn find_builder(
    sessions: Sessions<'_>,
    target: &TargetTable,
    wanted: &WantedIndex,
) -> Outcome {
    match look::find(sessions.stream, target, wanted).await {
        Ok(Some(index)) => return Outcome::Passed(format!("{} serves", index.name)),
        Ok(None) => {}
        Err(error) => return Outcome::Failed(error.into()),
    }
    for session in [sessions.stream, sessions.rows] {
        if look::is_owner(session, target.written().oid)
            .await
            .unwrap_or(false)
        {
            return Outcome::Passed("built once the initial backfill is finished".into());
        }
    }
    Outcome::Advice(look::for_the_owner(target, wanted))
}
