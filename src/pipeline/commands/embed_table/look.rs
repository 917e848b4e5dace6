//! What the command needs of server, role and table. Changes nothing.

use super::Request;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::columns::{FINGERPRINT_TYPE, usable_type};
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::fingerprint::check_fingerprint;
use crate::pipeline::setup::preflight::inspect::{FoundTable, inspect};
use crate::pipeline::setup::preflight::key::check_pk;
use crate::pipeline::setup::preflight::prerequisites::Prerequisites;
use crate::pipeline::setup::preflight::privileges::check_writable;
use crate::pipeline::setup::preflight::publishing::SlotPlan;
use crate::pipeline::setup::preflight::relation::{TableUse, find_column};
use crate::pipeline::setup::preflight::rules::check_rules;
use crate::pipeline::setup::preflight::server::{check_encoding, check_version, is_standby};
use crate::pipeline::setup::preflight::triggers::check_may_skip;
use crate::pipeline::setup::preflight::users_code::{PowerfulRoles, check_exposure};
use crate::pipeline::setup::row_access::Sessions;
use crate::pipeline::setup::written_columns::EMBED_TABLE;
use crate::postgres::quote::identifier;
use crate::postgres::{ConnectionString, DatabaseError, Session};

/// A table that can be embedded, as far as it can be told without the model.
pub struct OpenTable<'a> {
    pub(super) request: &'a Request,
    pub(super) names: TargetNames,
    pub(super) session: Session,
    /// Who could gain rights through the role that writes, in words, where that is not refused.
    pub exposure: Option<String>,
}

impl Request {
    /// Connects, and looks at everything but the dimensions of the vectors: a model may have to be downloaded first.
    ///
    /// # Errors
    /// Permanent, with the remedy; and the server's.
    pub async fn open(
        &self,
        database: &ConnectionString,
        powerful: PowerfulRoles,
    ) -> Result<OpenTable<'_>, JobError> {
        let names = TargetNames::from_definition(&self.definition)?;
        let session = Session::open(&database.named(EMBED_TABLE)).await?;
        check_server(&session).await?;
        let mut open = OpenTable {
            request: self,
            names,
            session,
            exposure: None,
        };
        open.look(None).await?;
        let (session, table) = (&open.session, open.names.qualified());
        open.exposure = check_exposure(session, &table, powerful).await?;
        open.check_condition().await?;
        Ok(open)
    }
}

impl OpenTable<'_> {
    /// What the table is, in the words of the request.
    pub fn names(&self) -> &TargetNames {
        &self.names
    }

    /// Looks at the table, for vectors of this many dimensions if that is known.
    pub(super) async fn look(&self, dimensions: Option<usize>) -> Result<FoundTable, JobError> {
        let (session, names, definition) = (&self.session, &self.names, &self.request.definition);
        let sessions = Sessions::of_one_role(session);
        let rights = Prerequisites::read(sessions, names, SlotPlan::Own(None)).await?;
        if let Some(rights) = &rights {
            rights.check_rows(names)?;
        }
        let found = inspect(session, names, dimensions, TableUse::Once).await?;
        self.check_key_readable(&found).await?;
        check_pk(names, &found.key, definition.pk.as_deref())?;
        check_fingerprint(names, &found.columns)?;
        check_writable(session, names, &found.columns).await?;
        // Before the dimensions are known, the statement would leave them out.
        if let Some(rights) = rights.filter(|_| dimensions.is_some()) {
            let missing = self.missing_columns(&found, dimensions).await?;
            let missing: Vec<(&str, String)> = missing
                .iter()
                .map(|(name, kind)| (name.as_str(), kind.clone()))
                .collect();
            rights.check_additions(names, &missing)?;
        }
        if definition.skip_triggers {
            check_may_skip(session).await?;
        }
        let table = names.qualified();
        check_rules(
            session,
            (found.relation.oid, &table),
            definition.skip_triggers,
        )
        .await?;
        Ok(found)
    }

    /// The columns that the command has to create, each with its type as SQL.
    pub(super) async fn missing_columns(
        &self,
        found: &FoundTable,
        dimensions: Option<usize>,
    ) -> Result<Vec<(String, String)>, JobError> {
        let mut missing = Vec::new();
        if found.destination.is_none() {
            let requested = self.request.definition.column_type.as_deref();
            let kind = usable_type(&self.session, requested, dimensions).await?;
            missing.push((self.names.destination.clone(), kind));
        }
        if let Some(name) = &self.names.fingerprint
            && found.fingerprint.is_none()
        {
            missing.push((name.clone(), FINGERPRINT_TYPE.to_owned()));
        }
        Ok(missing)
    }

    /// The key may be that of any unique index.
    async fn check_key_readable(&self, found: &FoundTable) -> Result<(), JobError> {
        let unreadable: Vec<String> = found
            .key
            .iter()
            .filter(|part| find_column(&found.columns, &part.name).is_some_and(|c| !c.readable))
            .map(|part| identifier(&part.name))
            .collect();
        if unreadable.is_empty() {
            return Ok(());
        }
        let (key, table) = (unreadable.join(", "), self.names.qualified());
        let role = self.session.role().await?;
        Err(JobError::permanent(format!(
            "the role {role} may not read {key} of {table}, its key; run as its owner: GRANT SELECT ({key}) ON {table} TO {};",
            identifier(&role)
        )))
    }

    /// Whether the condition is one. It is prepared twice: alone, so that it cannot close a parenthesis of ours, and in
    /// parentheses, so that nothing of a query can follow it.
    async fn check_condition(&self) -> Result<(), JobError> {
        let Some(within) = &self.request.within else {
            return Ok(());
        };
        let table = self.names.qualified();
        for condition in [within.clone(), format!("({within}\n)")] {
            let statement = format!("SELECT FROM {table} t WHERE {condition}");
            let prepared = self.session.prepare_typed(&statement, &[]).await;
            prepared.map_err(DatabaseError::during("--where"))?;
        }
        Ok(())
    }
}

async fn check_server(session: &Session) -> Result<(), JobError> {
    check_version(session)?;
    check_encoding(session).await?;
    match is_standby(session).await? {
        false => Ok(()),
        true => Err(JobError::permanent(
            "the server is a standby, and vectors can only be written to the primary; name that one in --uri, or all \
             servers with target_session_attrs=read-write",
        )),
    }
}
