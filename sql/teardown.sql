-- Removes all replication slots and publications of lantern-cli from a target database, also those of other daemons of
-- lantern-cli that use this database with other jobs tables. Use it when all daemons are gone for good; while one runs,
-- cancel its jobs instead (UPDATE jobs SET canceled_at = true).
--
--   psql "$TARGET" -f sql/teardown.sql
--
-- The embeddings stay. The role must own the publications and have the attribute REPLICATION.

\set ON_ERROR_STOP on

-- An active slot cannot be dropped: end its walsender first.
SELECT pg_terminate_backend(active_pid) AS ended_walsender, slot_name
FROM pg_replication_slots
WHERE slot_name ~ '^lantern_[0-9a-f]{8}_' AND database = current_database() AND active_pid IS NOT NULL;

-- Wait up to 5 s for the walsenders to exit.
DO $$
BEGIN
  FOR attempt IN 1..100 LOOP
    EXIT WHEN NOT EXISTS (
      SELECT FROM pg_replication_slots
      WHERE slot_name ~ '^lantern_[0-9a-f]{8}_' AND database = current_database() AND active_pid IS NOT NULL);
    PERFORM pg_sleep(0.05);
  END LOOP;
END $$;

SELECT pg_drop_replication_slot(slot_name), slot_name AS dropped_slot
FROM pg_replication_slots
WHERE slot_name ~ '^lantern_[0-9a-f]{8}_' AND database = current_database();

SELECT format('DROP PUBLICATION %I', pubname)
FROM pg_publication
WHERE pubname ~ '^lantern_([0-9a-f]{8}|prepared)_'
\gexec
