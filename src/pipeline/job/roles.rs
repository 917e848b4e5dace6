//! The role that reads and writes rows of a job, and who could gain rights through it.

use super::state::Job;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::users_code;
use crate::pipeline::setup::{row_access, target_database};
use crate::postgres::Session;

impl Job {
    /// A session of the role for rows, where the job names one, on the same server as `session`.
    pub(super) async fn connect_for_rows(
        &self,
        session: &Session,
    ) -> Result<Option<Session>, JobError> {
        let definition = &self.row.definition;
        let Some(rows) = target_database::of_rows(definition, &self.access)? else {
            return Ok(None);
        };
        let session = row_access::open(&self.named(&rows, "write-back"), session).await?;
        Ok(Some(session))
    }

    /// Says, or fails, where others could gain rights through the role that writes.
    pub(super) async fn check_exposure(
        &mut self,
        session: &Session,
        names: &TargetNames,
    ) -> Result<(), JobError> {
        let table = names.qualified();
        match users_code::check_exposure(session, &table, self.powerful_roles).await? {
            Some(exposure) if self.exposure.is_due(&exposure) => tracing::warn!("{exposure}"),
            Some(_) => {}
            None => {
                self.exposure.end();
            }
        }
        Ok(())
    }
}
