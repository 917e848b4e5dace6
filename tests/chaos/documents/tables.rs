//! What a schedule with documents finds beside the table of its rows: a history of them, and what users edit with.

use testkit::tiny_model::DIMENSIONS;

use super::quiet_rows::QuietRows;
use super::{Documents, PassageTableName};
use crate::faults::LONG_DOCUMENT;
use crate::schedule::Schedule;
use crate::shape::{REJECTED, Shape};
use crate::workload::hot_rows_of;

/// The rows whose documents are read while the schedule runs: table with their keys, and the name of each key.
pub const WATCHED: &str = "watched";

/// The `application_name` of commands that [`hold`] holds.
pub const HELD_COMMAND: &str = "lantern-cli-held";
/// Who has this advisory lock holds them.
pub const HOLD: i64 = 4_700_001;

/// Edits paragraphs. `place` is from 0, the beginning, to 1, the end.
const EDIT: &str = "
    CREATE FUNCTION edited(body text, what text, place float8, fresh text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
    DECLARE
      parts text[] := string_to_array(body, E'\\n\\n');
      n int := COALESCE(cardinality(parts), 0);
      at int := 1 + floor(place * n);
    BEGIN
      IF n = 0 OR body = '' THEN RETURN fresh; END IF;
      at := least(at, n);
      IF what = 'insert' THEN parts := parts[:at - 1] || ARRAY[fresh] || parts[at:];
      ELSIF what = 'append' THEN parts := parts || ARRAY[fresh];
      ELSIF what = 'delete' THEN parts := parts[:at - 1] || parts[at + 1:];
      ELSIF what = 'rotate' THEN parts := parts[at:] || parts[:at - 1];
      ELSIF what = 'lengthen' THEN parts[at] := parts[at] || ' w9';
      ELSE parts[at] := fresh;
      END IF;
      RETURN array_to_string(parts, E'\\n\\n');
    END $$;";

/// The statements that create it all, in a database that has the table `notes`, still without rows.
pub fn create(schedule: &Schedule, documents: &Documents) -> String {
    let shape = &schedule.shape;
    let mut statements = format!("CREATE SCHEMA search; {EDIT} {}", history(shape));
    if documents.exists_before {
        statements += &passages(shape, documents.table);
    }
    statements += &watched(schedule);
    if schedule.rows_before > 0 {
        for quiet in schedule.quiet_rows() {
            statements += &format!("{};", quiet.create(shape));
        }
    }
    statements
}

/// Each version that a row had: NULL for none. Its users' transactions commit it, so a reader that sees a version of the row sees
/// it here as well. A row with a key of NULL stands for a TRUNCATE.
///
/// Users who change one row wait for each other, so the versions of a key are in the order of `id`.
fn history(shape: &Shape) -> String {
    format!(
        "CREATE TABLE history (id bigserial, xid xid8 NOT NULL DEFAULT pg_current_xact_id(), key text, body text, other text);
         CREATE FUNCTION note_version() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF TG_OP = 'TRUNCATE' THEN
             INSERT INTO public.history (key) VALUES (NULL);
             RETURN NULL;
           END IF;
           IF TG_OP = 'UPDATE' AND ({old}, OLD.body, OLD.other) IS NOT DISTINCT FROM ({new}, NEW.body, NEW.other) THEN
             RETURN NULL;
           END IF;
           IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND {old} <> {new} THEN
             INSERT INTO public.history (key) VALUES ({old});
           END IF;
           IF TG_OP <> 'DELETE' THEN
             INSERT INTO public.history (key, body, other) VALUES ({new}, NEW.body, NEW.other);
           END IF;
           RETURN NULL;
         END $$;
         CREATE TRIGGER note_version AFTER INSERT OR UPDATE OR DELETE ON notes FOR EACH ROW EXECUTE FUNCTION note_version();
         CREATE TRIGGER note_truncate AFTER TRUNCATE ON notes FOR EACH STATEMENT EXECUTE FUNCTION note_version();",
        old = shape.key_name("OLD"),
        new = shape.key_name("NEW"),
    )
}

/// The rows that users change one by one, and those of faults.
fn watched(schedule: &Schedule) -> String {
    let shape = &schedule.shape;
    let edited = hot_rows_of(schedule.clients).chain([LONG_DOCUMENT]);
    let edited = edited.map(|number| format!("({number}, false)"));
    let quiet = schedule.quiet_rows().flat_map(QuietRows::numbers);
    let quiet = quiet.map(|number| format!("({number}, true)"));
    let numbers: Vec<String> = edited.chain(quiet).collect();
    format!(
        "CREATE TABLE {WATCHED} AS SELECT {keys}, ''::text AS name, false AS is_quiet FROM notes WHERE false;
         INSERT INTO {WATCHED} ({keys}, is_quiet) SELECT {key}, is_quiet FROM (VALUES {numbers}) v(n, is_quiet);
         UPDATE {WATCHED} w SET name = {name};
         ANALYZE {WATCHED};",
        keys = shape.key_columns(),
        key = shape.key("n"),
        numbers = numbers.join(", "),
        name = shape.key_name("w"),
    )
}

/// Has each [`HELD_COMMAND`] wait for [`HOLD`] when it inserts a passage of a quiet row: behind the guard of its statement.
/// The rows that it changes are locked after that.
pub fn hold(shape: &Shape, table: PassageTableName) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF current_setting('application_name') LIKE '{HELD_COMMAND}%'
              AND EXISTS (SELECT FROM public.{WATCHED} w WHERE w.is_quiet AND {is_watched}) THEN
             PERFORM pg_advisory_xact_lock_shared({HOLD});
           END IF;
           RETURN NEW;
         END $$;
         CREATE OR REPLACE TRIGGER hold BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION hold();",
        is_watched = shape.same_key("w", "NEW"),
        name = table.qualified,
    )
}

/// The table for passages as users create it, with triggers: one notes when the statement began that wrote a passage, so
/// after which moment it read the row, and another one rejects some passages.
fn passages(shape: &Shape, table: PassageTableName) -> String {
    let mut statements = format!(
        "CREATE TABLE {name} ({key}, chunk_seq int, chunk_start int, chunk_end int, chunk text, embedding {vector}, \
           chunk_fingerprint uuid, document_fingerprint uuid, written_at float8, PRIMARY KEY ({columns}, chunk_seq));
         CREATE FUNCTION note_writing() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN NEW.written_at := extract(epoch FROM statement_timestamp()); RETURN NEW; END $$;
         CREATE TRIGGER note_writing BEFORE INSERT OR UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION note_writing();",
        name = table.qualified,
        key = shape.key_declaration(),
        vector = match shape.has_vector_type() {
            true => format!("vector({DIMENSIONS})"),
            false => "real[]".to_owned(),
        },
        columns = shape.key_columns(),
    );
    if shape.rejects {
        statements += &format!(
            "CREATE TRIGGER reject BEFORE INSERT OR UPDATE ON {} FOR EACH ROW \
               WHEN (NEW.chunk_seq = 0 AND NEW.chunk LIKE '{REJECTED} %') EXECUTE FUNCTION reject();",
            table.qualified
        );
    }
    statements
}

/// After this statement the table accepts every passage.
pub fn accept_all(documents: &Documents) -> String {
    let table = documents.table.qualified;
    format!(
        "DO $$ BEGIN IF to_regclass('{}') IS NOT NULL THEN DROP TRIGGER IF EXISTS reject ON {table}; END IF; END $$",
        table.replace('\'', "''")
    )
}

/// What the role of the jobs needs besides.
pub fn grant(documents: &Documents) -> String {
    let mut statements = "GRANT USAGE, CREATE ON SCHEMA public, search TO lantern;".to_owned();
    if documents.exists_before {
        statements += &format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO lantern;",
            documents.table.qualified
        );
    }
    statements
}

/// Rows `from` to `to`, with documents that follow from their numbers; existing rows stay as they are.
pub fn load(shape: &Shape, from: u64, to: u64) -> String {
    format!(
        "INSERT INTO notes ({keys}, body, other) SELECT {key}, CASE WHEN n % 17 = 0 THEN NULL ELSE \
           (SELECT string_agg(format('w%s w%s w%s w%s w%s.', 1 + n % 399, 1 + i, 1 + n * i % 398, 1 + n % 97, 1 + i % 9), E'\\n\\n' ORDER BY i) \
            FROM generate_series(0, n % 11 * (n % 3)) i) END, CASE WHEN n % 5 > 0 THEN 'w' || 1 + n % 300 END \
         FROM generate_series({from}, {to}) n ON CONFLICT DO NOTHING",
        keys = shape.key_columns(),
        key = shape.key("n"),
    )
}
