//! The part of the [`survey`](super::survey) about the table that only a job that runs needs: what it writes, creates
//! and must not trip over.

use crate::jobs::chunk_table::ChunkTableName;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::columns::{FINGERPRINT_TYPE, usable_type};
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::leaves;
use crate::pipeline::setup::preflight::chunk_table::{
    check_creatable, check_rights, has_row_security,
};
use crate::pipeline::setup::preflight::fingerprint::check_fingerprint;
use crate::pipeline::setup::preflight::generated::check_generated;
use crate::pipeline::setup::preflight::inspect::{CHUNK_TABLE, LookedAt};
use crate::pipeline::setup::preflight::key::check_pk;
use crate::pipeline::setup::preflight::partitions::{Root, find_unsuitable};
use crate::pipeline::setup::preflight::points::{Outcome, Points};
use crate::pipeline::setup::preflight::privileges::check_writable;
use crate::pipeline::setup::preflight::relation::find_column;
use crate::pipeline::setup::preflight::rules::{check_rules, check_rules_of_passages};
use crate::pipeline::setup::preflight::subject::{NO_SOURCE, Rights, SAID_ABOVE, Subject};
use crate::pipeline::setup::preflight::triggers::check_may_skip;
use crate::postgres::quote::identifier;

/// The points that follow those of the table, and are there for every job.
pub const FURTHER_POINTS: [&str; 3] = ["writing", "new columns", "rules"];

impl Subject<'_> {
    /// Looks at what a job that runs needs of its table, beyond what a command does.
    pub(super) async fn look_further(
        &self,
        points: &mut Points,
        table: &LookedAt,
        rights: &Rights,
    ) {
        let [writing, ..] = FURTHER_POINTS;
        let (names, rows, definition) = (self.names, self.sessions.rows, self.definition);
        match (&table.key, definition.pk.as_deref()) {
            (Some(key), Some(asked)) => {
                let checked = check_pk(names, key, Some(asked));
                points.note("pk", checked, |()| asked.to_owned());
            }
            (None, Some(_)) => points.skip(&["pk"], "the table has no usable key"),
            (_, None) => {}
        }
        if table.source.is_none() {
            points.skip(&[writing], NO_SOURCE);
        } else if rights.are_said {
            points.skip(&[writing], SAID_ABOVE);
        } else {
            let writable = match (&names.passages, table.chunk_table) {
                (Some(chunk_table), Some(oid)) => check_rights(rows, chunk_table, oid).await,
                (Some(_), None) => Ok(()),
                (None, _) => check_writable(rows, names, &table.columns).await,
            };
            points.note(writing, writable, |()| "the role may write".into());
        }
        if let Some(name) = &names.fingerprint {
            let checked = check_fingerprint(names, &table.columns);
            points.note("fingerprint", checked, |()| names.qualified_column(name));
        }
        points.note_failure(
            "generated columns",
            check_generated(names, &table.relation, &table.columns),
        );
        self.look_at_partitions(points, table).await;
        match &names.passages {
            Some(chunk_table) => self.look_at_new_table(points, table, chunk_table).await,
            None => {
                self.look_at_new_columns(points, table, rights).await;
                warn_of_not_null(points, names, table);
            }
        }
        self.look_at_rules(points, table).await;
    }

    /// Whether the table for passages can be created, where it is missing.
    async fn look_at_new_table(
        &self,
        points: &mut Points,
        table: &LookedAt,
        chunk_table: &ChunkTableName,
    ) {
        if let Some(model) = self.model {
            let cutting = self.names.text.cutting(model);
            let cutting = cutting.map_err(|reason| {
                JobError::permanent(format!("the job's runtime_params: {reason}"))
            });
            points.note("passages", cutting, |cutting| {
                format!(
                    "at most {} tokens, of which {} overlap, cut as {}",
                    cutting.max_tokens, cutting.overlap, cutting.mode
                )
            });
        }
        self.look_at_readers(points, table, chunk_table).await;
        let shown = chunk_table.qualified();
        if table.chunk_table.is_none() && !table.is_destination_unusable {
            let requested = self.definition.column_type.as_deref();
            let kind = usable_type(self.sessions.stream, requested, self.dimensions).await;
            let Some(kind) = points.note_failure(CHUNK_TABLE, kind) else {
                return;
            };
            let creatable = check_creatable(self.sessions, chunk_table).await;
            points.note(CHUNK_TABLE, creatable, |()| {
                let column = identifier(&self.names.destination);
                format!("the job creates {shown} with the column {column} {kind}")
            });
        }
    }

    /// Who may read rows does not decide who may read passages, where a policy decides of rows.
    async fn look_at_readers(
        &self,
        points: &mut Points,
        table: &LookedAt,
        chunk_table: &ChunkTableName,
    ) {
        let decided = has_row_security(self.sessions.stream, table.relation.oid).await;
        if let Some(true) = points.note_failure(CHUNK_TABLE, decided) {
            let (source, passages) = (self.names.qualified(), chunk_table.qualified());
            points.add(
                CHUNK_TABLE,
                Outcome::Advice(format!(
                    "row level security of {source} decides who may read its rows, and {passages} holds their texts: no right \
                     on it is copied from {source}; grant SELECT on it with care, or give it a policy of its own"
                )),
            );
        }
    }

    async fn look_at_rules(&self, points: &mut Points, table: &LookedAt) {
        let [.., rules] = FURTHER_POINTS;
        let (rows, skips) = (self.sessions.rows, self.definition.skip_triggers);
        if skips {
            let may = check_may_skip(rows).await;
            points.note("skip_triggers", may, |()| {
                "the role may skip triggers".into()
            });
        }
        let found = match (&self.names.passages, table.chunk_table) {
            (Some(chunk_table), Some(oid)) => {
                check_rules_of_passages(rows, (oid, &chunk_table.qualified()), skips).await
            }
            // One that the job creates has none.
            (Some(_), None) => return,
            (None, _) => {
                let place = (table.relation.oid, self.names.qualified());
                check_rules(rows, (place.0, &place.1), skips).await
            }
        };
        points.note(rules, found, |()| "none rewrites a write-back".into());
    }

    async fn look_at_partitions(&self, points: &mut Points, table: &LookedAt) {
        let point = "partitions";
        if !table.relation.partitioned {
            return;
        }
        let (Some(key), Some(source)) = (&table.key, &table.source) else {
            points.skip(&[point], "its key or its source is not known");
            return;
        };
        let session = self.sessions.rows;
        let leaves = leaves::read(session, table.relation.oid, &source.columns(), None).await;
        let Some(leaves) = points.note_failure(point, leaves) else {
            return;
        };
        let root = Root {
            table: &self.names.qualified(),
            key,
            identity_full: table.relation.has_identity_full(),
            version: session.version(),
        };
        let checked = match find_unsuitable(root, &leaves) {
            Some(reason) => Err(JobError::permanent(reason)),
            None => Ok(leaves.len()),
        };
        points.note(point, checked, |count| format!("{count} can be followed"));
    }

    async fn look_at_new_columns(&self, points: &mut Points, table: &LookedAt, rights: &Rights) {
        let [_, point, _] = FURTHER_POINTS;
        if table.source.is_none() {
            points.skip(&[point], NO_SOURCE);
            return;
        }
        let mut missing = Vec::new();
        if find_column(&table.columns, &self.names.destination).is_none() {
            let requested = self.definition.column_type.as_deref();
            let stream = self.sessions.stream;
            let kind = usable_type(stream, requested, self.dimensions).await;
            let Some(kind) = points.note_failure(point, kind) else {
                return;
            };
            missing.push((self.names.destination.as_str(), kind));
        }
        if let Some(name) = &self.names.fingerprint
            && find_column(&table.columns, name).is_none()
        {
            missing.push((name, FINGERPRINT_TYPE.to_owned()));
        }
        let Some(prerequisites) = rights.prerequisites.as_ref() else {
            return;
        };
        if missing.is_empty() || rights.are_said {
            return;
        }
        let checked = prerequisites.check_additions(self.names, &missing);
        points.note(point, checked, |()| {
            let list = missing.iter();
            let list: Vec<String> = list
                .map(|(name, kind)| format!("{} {kind}", identifier(name)))
                .collect();
            format!("the job creates {}", list.join(" and "))
        });
    }
}

/// A row without a text has no vector, which such a column cannot say. Tables whose texts are never empty do not mind.
fn warn_of_not_null(points: &mut Points, names: &TargetNames, table: &LookedAt) {
    let column = find_column(&table.columns, &names.destination);
    if column.is_some_and(|column| column.not_null) {
        points.add(
            "destination",
            Outcome::Advice(format!(
                "{} (dst_column) is NOT NULL: a row whose text is NULL or empty cannot be cleared and is quarantined; \
                 run: ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL;",
                names.qualified_column(&names.destination),
                names.qualified(),
                identifier(&names.destination)
            )),
        );
    }
}
