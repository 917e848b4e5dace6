//! What the catalog says of a job's table for passages, and of the columns that its view shows.

use crate::pipeline::setup::documents_view;
use crate::pipeline::table::passages::{COLUMNS, PassageTable, SEQ};
use crate::pipeline::table::target::TargetTable;
use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};

/// The state of a table for passages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PassagesState {
    /// The OID of the table that has the name now.
    named: Option<u32>,
    /// Row level security hides passages from the role.
    hides_rows: bool,
    /// A unique index finds passages by their place.
    has_key: bool,
    /// The columns that the job uses: name, number, type and modifier.
    columns: Vec<String>,
    /// All columns of the table with the texts, likewise.
    of_source: Vec<String>,
    /// The partitions of that table with their files, which TRUNCATE replaces.
    partitions: Vec<String>,
    /// The view of the documents is there.
    has_view: bool,
}

/// What has become of a table for passages. The order is that of importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassagesFault {
    /// No table has the name.
    Gone,
    /// Another table has the name now.
    Replaced,
    /// Row level security hides passages from the role.
    Hidden,
    /// Columns or the key are other ones.
    Retyped,
    /// A partition of the table with the texts may have lost its rows without a change in the stream. TRUNCATE of a single
    /// partition is not published where changes come as those of the partitioned table (`pgoutput_truncate`).
    PartitionEmptied,
    /// The table with the texts has other columns than the view of its documents shows.
    OtherColumns,
    /// The view of its documents was dropped.
    ViewGone,
}

impl PassagesState {
    /// Reads the state of `passages`, the table for passages of `target`.
    pub async fn read(
        session: &Session,
        target: &TargetTable,
        passages: &PassageTable,
    ) -> Result<PassagesState, DatabaseError> {
        let failed = || DatabaseError::during(format!("checking {}", passages.qualified()));
        let mut names: Vec<&str> = target
            .key
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        names.extend(COLUMNS.iter().map(|(name, _)| *name));
        names.push(&target.destination.name);
        let question = session.repeated(STATE).await.map_err(failed())?;
        let view = documents_view::name(&passages.name);
        let (named, hides_rows, has_key, columns, of_source, partitions, has_view) = session
            .query_one(
                &question,
                &[
                    &passages.schema,
                    &passages.name,
                    &names,
                    &target.oid,
                    &SEQ,
                    &view,
                ],
            )
            .await
            .and_then(|row| columns::<Found>(&row))
            .map_err(failed())?;
        Ok(PassagesState {
            named,
            hides_rows,
            has_key,
            columns,
            of_source,
            partitions,
            has_view,
        })
    }

    /// The partitions of the table with the texts, with their files.
    pub fn partition_files(&self) -> &[String] {
        &self.partitions
    }

    /// What has become of the table `passages` since this was its state.
    pub fn find_fault(
        &self,
        now: &PassagesState,
        passages: &PassageTable,
    ) -> Option<PassagesFault> {
        if now.named != Some(passages.oid) {
            return Some(match now.named {
                Some(_) => PassagesFault::Replaced,
                None => PassagesFault::Gone,
            });
        }
        if now.hides_rows {
            return Some(PassagesFault::Hidden);
        }
        if now.columns != self.columns || !now.has_key {
            return Some(PassagesFault::Retyped);
        }
        let is_gone = |partition: &String| !now.partitions.contains(partition);
        if self.partitions.iter().any(is_gone) {
            return Some(PassagesFault::PartitionEmptied);
        }
        if now.of_source != self.of_source {
            return Some(PassagesFault::OtherColumns);
        }
        // One that could not be made is not missed: the log says why.
        (self.has_view && !now.has_view).then_some(PassagesFault::ViewGone)
    }

    #[cfg(test)]
    pub(super) fn example(named: u32) -> Self {
        PassagesState {
            named: Some(named),
            hides_rows: false,
            has_key: true,
            columns: vec!["id/1/20/-1".into()],
            of_source: vec!["id/1/20/-1".into()],
            partitions: vec!["20/20".into()],
            has_view: true,
        }
    }
}

type Found = (
    Option<u32>,
    bool,
    bool,
    Vec<String>,
    Vec<String>,
    Vec<String>,
    bool,
);

const STATE: &str = "SELECT c.oid, COALESCE(row_security_active(c.oid), false), \
       EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[]) \
               WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL \
                 AND a.attname = $5::text), \
       ARRAY(SELECT format('%s/%s/%s/%s', a.attname, a.attnum, a.atttypid, a.atttypmod) FROM pg_attribute a \
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY ($3::text[]) \
             ORDER BY a.attnum), \
       ARRAY(SELECT format('%s/%s/%s/%s', a.attname, a.attnum, a.atttypid, a.atttypmod) FROM pg_attribute a \
             WHERE a.attrelid = $4::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum), \
       ARRAY(WITH RECURSIVE tree (oid) AS ( \
               SELECT r.oid FROM pg_class r WHERE r.oid = $4::oid AND r.relkind = 'p' \
               UNION ALL SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid) \
             SELECT format('%s/%s', l.oid, l.relfilenode) FROM tree t JOIN pg_class l ON l.oid = t.oid \
             WHERE l.relkind = 'r' ORDER BY l.oid), \
       EXISTS (SELECT FROM pg_class v WHERE v.relnamespace = n.oid AND v.relname = $6::text) \
     FROM (VALUES (1)) one LEFT JOIN pg_namespace n ON n.nspname = $1::text \
     LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = $2::text";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_a_table_for_passages_is_recognized() {
        let passages = PassageTable::example();
        let before = PassagesState::example(12);
        let fault_after = |change: &dyn Fn(&mut PassagesState)| {
            let mut now = before.clone();
            change(&mut now);
            before.find_fault(&now, &passages)
        };
        assert_eq!(fault_after(&|_| {}), None);
        for (change, fault) in [
            (
                (|now| now.named = None) as fn(&mut PassagesState),
                PassagesFault::Gone,
            ),
            (|now| now.named = Some(13), PassagesFault::Replaced),
            (|now| now.hides_rows = true, PassagesFault::Hidden),
            (|now| now.has_key = false, PassagesFault::Retyped),
            (|now| now.columns.clear(), PassagesFault::Retyped),
            (
                |now| now.partitions = vec!["20/21".into()],
                PassagesFault::PartitionEmptied,
            ),
            (
                |now| now.of_source.push("title/2/25/-1".into()),
                PassagesFault::OtherColumns,
            ),
            (|now| now.has_view = false, PassagesFault::ViewGone),
        ] {
            assert_eq!(fault_after(&change), Some(fault));
        }
        // It comes, and where it could not be made, it stays away.
        let mut without = before.clone();
        without.has_view = false;
        assert_eq!(without.find_fault(&without, &passages), None);
        assert_eq!(without.find_fault(&before, &passages), None);
    }
}
