//! What the catalog says of a job's table, as far as a running job depends on it, and what a difference means.
//!
//! The state is read when an attempt begins, and once a second while it runs. A publication and a slot go by the OID of
//! the table, write-backs go by its name, and row level security applies to write-backs alone. So a table that is
//! replaced, hidden or redefined does not end the stream by itself.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use crate::pipeline::setup::passages_state::{PassagesFault, PassagesState};
use crate::pipeline::table::leaf::Leaf;
use crate::pipeline::table::source_version::{SourceVersion, types_of_columns};
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{DatabaseError, Session};

/// The state of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    /// The OID of the table that has the schema and the name of the job's now.
    named: Option<u32>,
    /// The table with the OID that the job follows; `None` once it is dropped.
    followed: Option<Followed>,
    /// The versions of the columns with texts in the table itself or in its partitions, by OID.
    sources: BTreeMap<u32, SourceVersion>,
    /// The state of the table for passages, where the job has one.
    passages: Option<PassagesState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Followed {
    /// Its schema and name now, quoted.
    called: String,
    /// `pg_class.relreplident`.
    identity: u8,
    /// A virtual generated column, from PostgreSQL 18 on. Not quoted.
    virtual_column: Option<String>,
    /// Row level security hides rows from the role.
    hides_rows: bool,
    /// The columns of the replica identity by name, with the OIDs of their types.
    key: BTreeMap<String, u32>,
    /// The column for the vectors: place, type, modifier and schema of the type.
    destination: Option<String>,
    /// The column for the fingerprints, likewise.
    fingerprint: Option<String>,
    /// A column with texts that it lacks: the source, or one that the template names. Not quoted.
    missing: Option<String>,
    /// The labels of the enums of which texts and key consist, by OID.
    labels: BTreeMap<String, String>,
    /// Tables that inherit from it, quoted.
    children: Vec<String>,
}

/// What has become of a table. The order is that of importance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableFault {
    /// Another table has the name now.
    Replaced,
    /// No table has the name. `Some` with what the followed one is called now, where that was renamed.
    Gone(Option<String>),
    /// The key is no longer the replica identity: UPDATE of the published table may fail.
    IdentityLost,
    /// REPLICA IDENTITY NOTHING: UPDATE of the published table fails.
    IdentityNothing,
    /// REPLICA IDENTITY FULL, which the column list of the publication does not allow.
    IdentityFull,
    /// The replica identity is of other columns, these, or the columns of the key have other names. Not quoted.
    KeyChanged(Vec<String>),
    /// UPDATE of the published table fails because of this virtual generated column. Not quoted.
    VirtualColumn(String),
    /// Row level security hides rows from the role.
    RowsHidden,
    /// The source column is gone.
    SourceGone,
    /// This column, which the template names, is gone. Not quoted.
    FieldGone(String),
    /// The destination is gone.
    DestinationGone,
    /// The fingerprint column is gone.
    FingerprintGone,
    /// Columns of the key or the destination have other types.
    Retyped,
    /// Texts or keys may have changed without a change in the stream.
    Redefined,
    /// Something has become of the table for passages.
    Passages(PassagesFault),
}

impl TableState {
    /// Reads the state of this table. `leaves` are its partitions.
    ///
    /// # Errors
    /// The server's.
    pub async fn read(
        session: &Session,
        table: &TargetTable,
        leaves: &[Leaf],
    ) -> Result<TableState, DatabaseError> {
        let failed = || DatabaseError::during(format!("checking {}", table.qualified()));
        let question = session.repeated(&statement()).await.map_err(failed())?;
        let fingerprint = table.fingerprint.as_ref().map(|column| &column.name);
        let row = session
            .query_one(
                &question,
                &[
                    &table.oid,
                    &table.schema,
                    &table.name,
                    &table.source.columns(),
                    &table.destination.name,
                    &fingerprint,
                ],
            )
            .await
            .map_err(failed())?;
        let mut sources: BTreeMap<u32, SourceVersion> = leaves
            .iter()
            .filter_map(|leaf| Some((leaf.oid, leaf.source.clone()?)))
            .collect();
        let read = || -> Result<_, tokio_postgres::Error> {
            let own: Option<&str> = row.try_get(1)?;
            Ok((row.try_get(0)?, own, Followed::from_row(&row)?))
        };
        let (named, own, followed) = read().map_err(failed())?;
        let own = own.and_then(SourceVersion::parse);
        sources.extend(own.map(|version| (table.oid, version)));
        let passages = match &table.passages {
            Some(passages) => Some(PassagesState::read(session, table, passages).await?),
            None => None,
        };
        Ok(TableState {
            named,
            followed,
            sources,
            passages,
        })
    }

    /// The partitions with their files, where the job has passages.
    pub fn partition_files(&self) -> Option<&[String]> {
        self.passages.as_ref().map(PassagesState::partition_files)
    }

    /// Tables that inherit from the followed one, quoted. Their rows are not followed.
    pub fn children(&self) -> &[String] {
        self.followed
            .as_ref()
            .map_or(&[], |followed| &followed.children)
    }

    /// What has become of the table `target` since this was its state; `None` where the job can go on.
    pub fn find_fault(&self, now: &TableState, target: &TargetTable) -> Option<TableFault> {
        if now.named != Some(target.oid) {
            return Some(match now.named {
                Some(_) => TableFault::Replaced,
                None => TableFault::Gone(now.followed.as_ref().map(|table| table.called.clone())),
            });
        }
        let followed = now.followed.as_ref()?;
        match followed.identity {
            b'n' => return Some(TableFault::IdentityNothing),
            // A table that was not FULL is published with a column list.
            b'f' if !target.identity_full => return Some(TableFault::IdentityFull),
            _ => {}
        }
        if followed.key.is_empty() {
            return Some(TableFault::IdentityLost);
        }
        if !followed.is_identified_by(target) {
            return Some(TableFault::KeyChanged(
                followed.key.keys().cloned().collect(),
            ));
        }
        if followed.identity == b'f'
            && let Some(column) = &followed.virtual_column
        {
            return Some(TableFault::VirtualColumn(column.clone()));
        }
        if followed.hides_rows {
            return Some(TableFault::RowsHidden);
        }
        if let Some(column) = &followed.missing {
            return Some(match *column == target.source.name {
                true => TableFault::SourceGone,
                false => TableFault::FieldGone(column.clone()),
            });
        }
        if target.passages.is_none() && followed.destination.is_none() {
            return Some(TableFault::DestinationGone);
        }
        if target.fingerprint.is_some() && followed.fingerprint.is_none() {
            return Some(TableFault::FingerprintGone);
        }
        let before = self.followed.as_ref()?;
        // The destination of a job with passages is in another table.
        let is_retyped = target.passages.is_none() && before.destination != followed.destination;
        if is_retyped
            || (&before.key, &before.fingerprint) != (&followed.key, &followed.fingerprint)
        {
            return Some(TableFault::Retyped);
        }
        let is_redefined = |(oid, version): (&u32, &SourceVersion)| {
            let now = now.sources.get(oid);
            now.is_some_and(|now| version.is_redefined_in(now))
        };
        let is_renamed = |(oid, label): (&String, &String)| {
            let now = followed.labels.get(oid);
            now.is_some_and(|now| now != label)
        };
        let redefined =
            self.sources.iter().any(is_redefined) || before.labels.iter().any(is_renamed);
        if redefined {
            return Some(TableFault::Redefined);
        }
        let passages = target.passages.as_ref()?;
        let before = self.passages.as_ref()?;
        let fault = before.find_fault(now.passages.as_ref()?, passages);
        fault.map(TableFault::Passages)
    }
}

impl Followed {
    /// `None` where the row shows that the table is dropped.
    fn from_row(row: &Row) -> Result<Option<Followed>, tokio_postgres::Error> {
        let names: Vec<String> = row.try_get(5)?;
        let types: Vec<u32> = row.try_get(6)?;
        let labels: Vec<&str> = row.try_get(9)?;
        let (Some(called), Some(identity), Some(hides_rows)) = (
            row.try_get(2)?,
            row.try_get::<_, Option<i8>>(3)?,
            row.try_get(4)?,
        ) else {
            return Ok(None);
        };
        Ok(Some(Followed {
            called,
            identity: identity.cast_unsigned(),
            hides_rows,
            key: names.into_iter().zip(types).collect(),
            destination: row.try_get(7)?,
            fingerprint: row.try_get(8)?,
            labels: labels
                .iter()
                .filter_map(|label| label.split_once('='))
                .map(|(oid, label)| (oid.to_owned(), label.to_owned()))
                .collect(),
            children: row.try_get(10)?,
            virtual_column: row.try_get(11)?,
            missing: row.try_get(12)?,
        }))
    }

    fn is_identified_by(&self, target: &TargetTable) -> bool {
        let mut key: Vec<&String> = target.key.iter().map(|column| &column.name).collect();
        key.sort_unstable();
        self.key.keys().eq(key)
    }
}

/// Always one row. `relreplident` and `indisreplident` are those of `pg_class` and `pg_index`.
fn statement() -> String {
    let column = |name: &str| {
        format!(
            "(SELECT format('%s/%s/%s/%s', a.attnum, a.atttypid, a.atttypmod, t.typnamespace) \
              FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = c.oid AND a.attname = {name})"
        )
    };
    format!(
        "SELECT (SELECT r.oid FROM pg_class r JOIN pg_namespace s ON s.oid = r.relnamespace \
                 WHERE s.nspname = $2::text AND r.relname = $3::text), \
                {source}, CASE WHEN c.oid IS NOT NULL THEN format('%I.%I', n.nspname, c.relname) END, \
                c.relreplident, row_security_active(c.oid), \
                COALESCE(k.names, '{{}}'), COALESCE(k.types, '{{}}'), {destination}, {fingerprint}, \
                ARRAY(WITH RECURSIVE {types} \
                      SELECT format('%s=%s', e.oid, e.enumlabel) FROM pg_enum e JOIN types ON types.oid = e.enumtypid), \
                ARRAY(SELECT format('%I.%I', cn.nspname, cc.relname) FROM pg_inherits i \
                      JOIN pg_class cc ON cc.oid = i.inhrelid JOIN pg_namespace cn ON cn.oid = cc.relnamespace \
                      WHERE c.relkind = 'r' AND c.relhassubclass AND i.inhparent = c.oid ORDER BY 1), \
                (SELECT min(a.attname::text) FROM pg_attribute a \
                 WHERE a.attrelid = c.oid AND a.attgenerated = 'v' AND NOT a.attisdropped), \
                (SELECT w.name FROM unnest($4::text[]) WITH ORDINALITY AS w(name, place) \
                 WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = w.name \
                                   AND NOT a.attisdropped) \
                 ORDER BY w.place LIMIT 1) \
         FROM (VALUES (1)) one LEFT JOIN pg_class c ON c.oid = $1::oid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN LATERAL ( \
           SELECT array_agg(a.attname::text ORDER BY a.attname) AS names, array_agg(a.atttypid ORDER BY a.attname) AS types \
           FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, position) \
           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
           WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND k.position <= i.indnkeyatts \
             AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END) k ON true",
        source = SourceVersion::sql("c", "$4::text[]"),
        destination = column("$5::text"),
        fingerprint = column("$6::text"),
        types = types_of_columns(
            "c.oid",
            "ta.attname = ANY ($4::text[]) OR ta.attname::text = ANY (k.names)"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unchanged(target: &TargetTable) -> TableState {
        TableState {
            named: Some(target.oid),
            followed: Some(Followed {
                called: target.qualified(),
                identity: b'd',
                virtual_column: None,
                hides_rows: false,
                key: [("id".to_owned(), 20)].into(),
                destination: Some("3/1021/-1/11".into()),
                fingerprint: None,
                missing: None,
                labels: [("16500".to_owned(), "happy".to_owned())].into(),
                children: Vec::new(),
            }),
            sources: [(target.oid, SourceVersion::parse("2/700//702/").unwrap())].into(),
            passages: None,
        }
    }

    /// The fault after this change.
    fn fault_after(change: impl FnOnce(&mut TableState)) -> Option<TableFault> {
        let target = TargetTable::example();
        let before = unchanged(&target);
        let mut now = before.clone();
        change(&mut now);
        before.find_fault(&now, &target)
    }

    fn followed(state: &mut TableState) -> &mut Followed {
        state.followed.as_mut().unwrap()
    }

    #[test]
    fn each_change_of_a_table_is_recognized() {
        assert_eq!(fault_after(|_| {}), None);
        assert_eq!(
            fault_after(|now| now.named = Some(77)),
            Some(TableFault::Replaced)
        );
        assert_eq!(
            fault_after(|now| (now.named, now.followed) = (None, None)),
            Some(TableFault::Gone(None))
        );
        assert_eq!(
            fault_after(|now| followed(now).identity = b'n'),
            Some(TableFault::IdentityNothing)
        );
        assert_eq!(
            fault_after(|now| followed(now).identity = b'f'),
            Some(TableFault::IdentityFull)
        );
        assert_eq!(
            fault_after(|now| followed(now).key.clear()),
            Some(TableFault::IdentityLost)
        );
        assert_eq!(
            fault_after(|now| followed(now).key = [("number".to_owned(), 20)].into()),
            Some(TableFault::KeyChanged(vec!["number".into()]))
        );
        let add_virtual = |now: &mut TableState| followed(now).virtual_column = Some("n".into());
        assert_eq!(fault_after(add_virtual), None);
        assert_eq!(
            fault_after(|now| followed(now).hides_rows = true),
            Some(TableFault::RowsHidden)
        );
        assert_eq!(
            fault_after(|now| followed(now).missing = Some("body".into())),
            Some(TableFault::SourceGone)
        );
        assert_eq!(
            fault_after(|now| followed(now).missing = Some("title".into())),
            Some(TableFault::FieldGone("title".into()))
        );
        assert_eq!(
            fault_after(|now| followed(now).destination = None),
            Some(TableFault::DestinationGone)
        );
        assert_eq!(
            fault_after(|now| followed(now).destination = Some("3/1021/-1/2200".into())),
            Some(TableFault::Retyped)
        );
        assert_eq!(
            fault_after(|now| {
                followed(now).labels.insert("16500".into(), "glad".into());
            }),
            Some(TableFault::Redefined)
        );
        let added = |now: &mut TableState| {
            followed(now).labels.insert("16501".into(), "sad".into());
            followed(now).children.push("public.kid".into());
        };
        assert_eq!(fault_after(added), None);
    }
}
