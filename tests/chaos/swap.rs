//! Replaces the table of a schedule by a copy, as loads do that prepare a table beside the one in use.

/// A partition is replaced by DETACH and ATTACH, any other table by renaming. Nobody sees a moment without a table.
///
/// The old table is kept where `keeps_old` says so.
pub fn statements(keeps_old: bool) -> Vec<String> {
    let script = SCRIPT.replace("KEEPS_OLD", if keeps_old { "true" } else { "false" });
    vec!["BEGIN".into(), LOCK.into(), script, "COMMIT".into()]
}

/// First, and by itself: what follows looks at the table that it has locked.
const LOCK: &str = "LOCK TABLE notes IN ACCESS EXCLUSIVE MODE";

const SCRIPT: &str = "
    DO $$
    DECLARE
      is_partitioned bool := to_regclass('notes_0') IS NOT NULL;
      old regclass := COALESCE(to_regclass('notes_0'), 'notes'::regclass);
      name text := old::text;
      kept text := format('kept_%s', old::oid);
      owner text := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = old);
      identity \"char\" := (SELECT relreplident FROM pg_class WHERE oid = old);
      triggers text[] := ARRAY(SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = old AND NOT tgisinternal);
      command text;
    BEGIN
      EXECUTE format('CREATE TABLE next (LIKE %s INCLUDING ALL)', old);
      EXECUTE format('INSERT INTO next SELECT * FROM %s', old);
      EXECUTE format('ALTER TABLE next OWNER TO %I', owner);
      IF identity = 'f' THEN
        ALTER TABLE next REPLICA IDENTITY FULL;
      ELSIF identity = 'i' THEN
        EXECUTE format('ALTER TABLE next REPLICA IDENTITY USING INDEX %s',
          (SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'next'::regclass AND indisunique));
      END IF;
      IF is_partitioned THEN
        EXECUTE format('ALTER TABLE notes DETACH PARTITION %s', old);
      END IF;
      EXECUTE format('ALTER TABLE %s RENAME TO %I', old, kept);
      EXECUTE format('ALTER TABLE next RENAME TO %I', name);
      IF is_partitioned THEN
        EXECUTE format('ALTER TABLE notes ATTACH PARTITION %I FOR VALUES WITH (MODULUS 3, REMAINDER 0)', name);
      ELSE
        FOREACH command IN ARRAY triggers LOOP EXECUTE command; END LOOP;
      END IF;
      IF NOT KEEPS_OLD THEN
        EXECUTE format('DROP TABLE %I', kept);
      END IF;
    END $$";
