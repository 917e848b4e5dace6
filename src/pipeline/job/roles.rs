//! The role that reads and writes rows of a job, and who could gain rights through it.

use super::state::Job;
use crate::pipeline::error::JobError;
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

    /// Says who could gain rights through the role that writes, if that is new.
    pub(super) fn warn_of_exposure(&mut self, exposure: Option<String>) {
        match exposure {
            Some(exposure) if self.exposure.is_due(&exposure) => tracing::warn!("{exposure}"),
            Some(_) => {}
            None => {
                self.exposure.end();
            }
        }
    }
}
