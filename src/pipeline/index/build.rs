//! Builds the index of a table and of its partitions.

use std::time::Duration;

use tokio::time::Instant;

use crate::pipeline::error::JobError;
use crate::pipeline::index::catalog::{self, VectorIndex};
use crate::pipeline::index::leftover;
use crate::pipeline::index::parts::{self, TablePart};
use crate::pipeline::index::progress::{BUILDING, DROPPING, Progress};
use crate::pipeline::index::session::IndexSession;
use crate::pipeline::index::wanted::WantedIndex;
use crate::pipeline::setup::ddl;
use crate::postgres::answer::columns;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// How often the log says how far a build is.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Builds what is missing, and leaves what is there.
pub(super) struct Builder<'a> {
    /// Of the owner of the table.
    pub session: &'a IndexSession,
    /// The index.
    pub wanted: &'a WantedIndex,
    /// The column with the vectors.
    pub column: &'a str,
    /// Says in the row of the job what is done.
    pub report: &'a (dyn Fn(String) + Send + Sync),
    /// Set when a build begins.
    pub has_built: &'a mut bool,
}

impl Builder<'_> {
    /// Builds the index of the table with this OID, partition by partition where it has some.
    ///
    /// # Errors
    /// The server's, and permanent ones with the remedy.
    pub async fn build_all(&mut self, table: u32) -> Result<(), JobError> {
        let parts = parts::read(self.catalog(), table).await?;
        self.clear(&parts).await?;
        for part in parts.iter().filter(|part| !part.is_partitioned) {
            self.build(part, &parts).await?;
        }
        // The deepest first, so that those of the partitions are there.
        for part in parts.iter().filter(|part| part.is_partitioned) {
            self.join(part, &parts).await?;
        }
        Ok(())
    }

    fn catalog(&self) -> &Session {
        self.session.session()
    }

    /// Drops what was left of an interrupted build, for any distance: the job may have asked for another one.
    async fn clear(&self, parts: &[TablePart]) -> Result<(), JobError> {
        for unfinished in leftover::find(self.catalog(), parts, self.column).await? {
            let Some(table) = parts.iter().find(|part| part.oid == unfinished.table) else {
                continue;
            };
            let index = &unfinished.index;
            if unfinished.is_partitioned && unfinished.name == self.wanted.name(&table.name) {
                // It only lacks the indexes of some partitions.
                continue;
            }
            if unfinished.is_in_use {
                return Err(JobError::Transient(format!(
                    "another session works on the table of the unfinished index {index}"
                )));
            }
            tracing::info!("dropping the index {index}: its build was interrupted");
            if unfinished.is_partitioned {
                let drop = format!("DROP INDEX IF EXISTS {index}");
                ddl::run(self.catalog(), &drop).await?;
            } else {
                let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
                self.run(&drop, table, &format!("{DROPPING} {index}"))
                    .await?;
            }
        }
        Ok(())
    }

    async fn build(&mut self, table: &TablePart, parts: &[TablePart]) -> Result<(), JobError> {
        if self.find(table, parts).await?.is_some() {
            return Ok(());
        }
        let name = self.wanted.name(&table.name);
        let qualified = format!("{}.{}", identifier(&table.schema), identifier(&name));
        self.check_name(table, &name).await?;
        self.advise(table).await?;
        *self.has_built = true;
        tracing::info!(
            "building the index {qualified} of {}; rows can be read and written meanwhile",
            table.qualified()
        );
        let create = self.wanted.create_concurrently(&name, &table.qualified());
        self.run(&create, table, &format!("{BUILDING} {qualified}"))
            .await
    }

    /// Runs a statement, and says in the row and, now and then, in the log how far it is.
    async fn run(&self, statement: &str, table: &TablePart, doing: &str) -> Result<(), JobError> {
        let mut logged = (Instant::now(), None);
        let mut said = String::new();
        let report = |progress: &Progress| {
            let state = format!("{doing}: {progress}");
            let is_news = logged.1 != progress.phase || logged.0.elapsed() >= LOG_INTERVAL;
            if is_news && progress.phase.is_some() {
                tracing::info!("{state}");
                logged = (Instant::now(), progress.phase.clone());
            }
            if state != said {
                (self.report)(state.clone());
                said = state;
            }
        };
        self.session.run(statement, table.oid, report).await
    }

    /// The valid index of a table that serves the job. That of a partition must fit as a part of the index of its
    /// parent.
    async fn find(
        &self,
        table: &TablePart,
        parts: &[TablePart],
    ) -> Result<Option<VectorIndex>, DatabaseError> {
        let indexes = catalog::read(self.catalog(), table.oid, self.column).await?;
        let parent = parts.iter().find(|part| Some(part.oid) == table.parent);
        let fits = |index: &VectorIndex| {
            index.is_valid
                && self.wanted.is_served_by(index)
                && parent.is_none_or(|parent| self.is_part(index, table, parent))
        };
        Ok(indexes.into_iter().find(fits))
    }

    /// Whether the index of a partition is one of the parent's index, or may become one.
    fn is_part(&self, index: &VectorIndex, table: &TablePart, parent: &TablePart) -> bool {
        let is_own = index.name == self.wanted.name(&table.name);
        let is_plain = index.method == "hnsw" && index.cast.is_none() && !index.is_partial;
        let parent = self.wanted.name(&parent.name);
        let is_free = index.parent.as_ref().is_none_or(|other| *other == parent);
        (is_own || is_plain) && is_free
    }

    /// # Errors
    /// Permanent where the name of the index is that of something else.
    async fn check_name(&self, table: &TablePart, name: &str) -> Result<(), JobError> {
        let taken: bool = self
            .catalog()
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2)",
                &[&table.schema, &name],
            )
            .await
            .and_then(|row| row.try_get(0))
            .map_err(DatabaseError::during("looking for an index of this name"))?;
        match taken {
            false => Ok(()),
            true => Err(JobError::permanent(format!(
                "the name {}.{} of the index is taken by something else; rename that",
                identifier(&table.schema),
                identifier(name)
            ))),
        }
    }

    /// Says so where the index will not fit into the memory of its build.
    async fn advise(&self, table: &TablePart) -> Result<(), DatabaseError> {
        let bytes = self.wanted.vector_bytes + self.wanted.options.bytes_per_element();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let row: Option<(String, String)> = self
            .catalog()
            .query_opt(
                "SELECT pg_size_pretty(size), current_setting('maintenance_work_mem') FROM pg_class c CROSS JOIN LATERAL ( \
                   SELECT ($2::bigint * GREATEST(c.reltuples, pg_stat_get_live_tuples(c.oid), 0))::bigint AS size) s \
                 WHERE c.oid = $1 AND s.size > pg_size_bytes(current_setting('maintenance_work_mem'))",
                &[&table.oid, &bytes],
            )
            .await
            .and_then(|row| row.as_ref().map(columns).transpose())
            .map_err(DatabaseError::during("estimating the size of the index"))?;
        if let Some((needed, setting)) = row {
            tracing::warn!(
                "the index of {} needs about {needed} of memory while it is built, and maintenance_work_mem is {setting}: \
                 beyond that the build is many times slower. Where the server has the memory, set \
                 {{\"maintenance_work_mem\": \"…\"}} in index_params",
                table.qualified()
            );
        }
        Ok(())
    }

    /// Gives a partitioned table an index that consists of those of its partitions.
    async fn join(&self, table: &TablePart, parts: &[TablePart]) -> Result<(), JobError> {
        let (session, name) = (self.catalog(), self.wanted.name(&table.name));
        let qualified = format!("{}.{}", identifier(&table.schema), identifier(&name));
        let indexes = catalog::read(session, table.oid, self.column).await?;
        if indexes.iter().all(|index| index.name != name) {
            self.check_name(table, &name).await?;
            let create = self.wanted.create_on_only(&name, &table.qualified());
            ddl::run(session, &create).await?;
        }
        for partition in parts.iter().filter(|part| part.parent == Some(table.oid)) {
            let index = self.find(partition, parts).await?.ok_or_else(|| {
                JobError::Transient(format!(
                    "the partition {} has no index yet",
                    partition.qualified()
                ))
            })?;
            if index.parent.is_none() {
                let attach = format!(
                    "ALTER INDEX {qualified} ATTACH PARTITION {}",
                    index.qualified()
                );
                ddl::run(session, &attach).await?;
            }
        }
        Ok(())
    }
}
