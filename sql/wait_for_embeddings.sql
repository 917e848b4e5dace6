-- Creates the function lantern_wait_for_embeddings in a target database. With it an application waits for the vectors
-- of what it has written:
--
--   INSERT INTO articles (title) VALUES ('My articles title');
--   COMMIT;
--   SELECT lantern_wait_for_embeddings(1, pg_current_wal_insert_lsn(), '10 seconds');  -- 1: the id of the job
--   SELECT title_embedding FROM articles WHERE …;                                      -- in a statement of its own
--
-- This is plain SQL, which psql and every migration tool can run, as any role that may create functions in the current
-- schema. It may run again.
--
--   psql "$TARGET" -f sql/wait_for_embeddings.sql
--
-- true    What was committed up to the position is done: each row that was changed has the vector of its text, was
--         changed again since, or is in the failures table. Of a job with a chunk table: it has the passages of its text,
--         and a row that was deleted has none.
-- false   That is not so within the timeout. A NOTICE says which slot is behind, and whether a daemon reads it.
-- error   It will not be so: the job has no slot, because it has not started, has failed or is canceled, or the slot
--         was dropped during the wait. Or the call cannot work: before the COMMIT, on a standby, with a NULL.
--
-- Take the position after the COMMIT, as in the example. A transaction that has changed something itself is refused,
-- since its changes are not in the stream yet. Under REPEATABLE READ, read the vectors in a transaction that begins
-- afterwards.
--
-- The stream has all changes since the slot of the job was created. Rows that existed before are embedded by a scan:
-- see init_started_at and init_finished_at in the jobs table, or run lantern-cli wait --job 1, which waits for both.
--
-- Every role may call the function. It runs with the rights of its caller and reads only what every role may read. In
-- between it sleeps, 2 ms at first and 100 ms at most. A call keeps its session, as one of pg_sleep does.
--
-- Several jobs tables may have a job of this id in one database. The function waits for all of them; to wait for one,
-- give the name of its replication slot as fourth argument. For an id with other characters than letters, digits and
-- hyphens the name is always needed. lantern-cli wait prints it.

CREATE OR REPLACE FUNCTION lantern_wait_for_embeddings(
  job text,                                -- the id of the job
  lsn pg_lsn,                              -- a position after the COMMIT
  timeout interval DEFAULT '10 seconds',   -- 0 asks once
  slot text DEFAULT NULL                   -- the only replication slot to look at
) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
  -- Hyphens are left out of the names of slots.
  id CONSTANT text := lower(replace(job, '-', '') COLLATE "C");
  own CONSTANT text := '^lantern_[0-9a-f]{8}_' || id || '_[0-9a-f]{8}$';
  shared CONSTANT text := '^lantern_[0-9a-f]{8}_db_[0-9a-f]{16}$';
  member CONSTANT text := ' ' || id || '_[0-9a-f]{8}@';
  began CONSTANT timestamptz := clock_timestamp();
  seconds CONSTANT float8 := date_part('epoch', timeout);
  -- Within three times wal_writer_delay each commit is flushed, also with synchronous_commit = off.
  flushed_after CONSTANT float8 := 5 * date_part('epoch', current_setting('wal_writer_delay')::interval);
  target pg_lsn := lsn;
  is_flushed boolean := false;
  pause float8 := 0.002;
  waited float8;
  slots record;
BEGIN
  IF COALESCE(slot, job) IS NULL OR lsn IS NULL OR timeout IS NULL THEN
    RAISE EXCEPTION 'job, position and timeout must not be NULL'
      USING ERRCODE = 'null_value_not_allowed',
            HINT = 'Call lantern_wait_for_embeddings(job, pg_current_wal_insert_lsn(), ''10 seconds'').';
  ELSIF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'this server is a standby, and the replication slots of jobs are on the primary'
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call the function on the primary.';
  ELSIF pg_current_xact_id_if_assigned() IS NOT NULL THEN
    RAISE EXCEPTION 'this transaction has changed something, and its changes are embedded only after its COMMIT'
      USING ERRCODE = 'active_sql_transaction',
            HINT = 'COMMIT first. Then take the position, and wait, in a transaction that changes nothing.';
  ELSIF lsn > pg_current_wal_insert_lsn() THEN
    RAISE EXCEPTION 'the position % is beyond the end of the WAL of this server', lsn
      USING ERRCODE = 'invalid_parameter_value',
            HINT = 'It is of another server, or of the time before a failover: take pg_current_wal_insert_lsn() here.';
  ELSIF slot IS NULL AND (id !~ '^[0-9a-z]{1,36}$' OR job ~ '^-') THEN
    RAISE EXCEPTION 'the name of the replication slot of job "%" has a hash of the id', job
      USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give the name as fourth argument. lantern-cli wait --job prints it.';
  END IF;

  LOOP
    SELECT count(*) AS found,
           max(s.slot_name) FILTER (WHERE s.wal_status = 'lost') AS lost,
           bool_and(COALESCE(s.confirmed_flush_lsn >= target, false)) AS reached,
           (array_agg(s.slot_name ORDER BY s.confirmed_flush_lsn NULLS FIRST))[1] AS last,
           (array_agg(s.active ORDER BY s.confirmed_flush_lsn NULLS FIRST))[1] AS last_is_read
      INTO slots
      FROM pg_replication_slots s
      WHERE s.database = current_database() AND CASE
        WHEN slot IS NOT NULL THEN s.slot_name = slot
        WHEN s.slot_name ~ shared THEN EXISTS (
          SELECT FROM pg_publication p
          WHERE p.pubname = s.slot_name AND obj_description(p.oid, 'pg_publication') ~ member)
        ELSE s.slot_name ~ own END;
    EXIT WHEN slots.found = 0 OR slots.lost IS NOT NULL;
    IF slots.reached THEN
      RETURN true;
    END IF;

    waited := date_part('epoch', clock_timestamp() - began);
    IF waited >= seconds THEN
      RAISE NOTICE 'not embedded within %: the replication slot % has not confirmed % yet%',
        timeout, slots.last, target,
        CASE WHEN slots.last_is_read THEN '' ELSE ', and no daemon reads it' END;
      RETURN false;
    END IF;
    PERFORM pg_sleep(LEAST(pause, seconds - waited));
    pause := LEAST(1.5 * pause, 0.1);

    -- What is not flushed by then is of no commit: it is a change of an open transaction, or the header of a page that
    -- is empty yet. It may stay so for long, and only what is flushed is sent.
    IF NOT is_flushed AND waited > flushed_after THEN
      is_flushed := true;
      target := LEAST(target, pg_current_wal_flush_lsn());
    END IF;
  END LOOP;

  IF slots.lost IS NOT NULL THEN
    RAISE EXCEPTION 'the replication slot % has lost its WAL', slots.lost
      USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'A daemon replaces it and scans the table: run lantern-cli wait, or wait for init_finished_at of '
                   'the job.';
  ELSIF waited IS NOT NULL THEN
    RAISE EXCEPTION 'the replication slot % was dropped during the wait', COALESCE(slot, 'of job ' || job)
      USING ERRCODE = 'undefined_object',
            HINT = 'The job has failed or was canceled: see its row in the jobs table. Or a daemon replaces the slot '
                   'and scans the table: run lantern-cli wait, or wait for init_finished_at of the job.';
  END IF;
  RAISE EXCEPTION '%', format(
    CASE WHEN slot IS NULL THEN 'job %2$s has no replication slot in the database %1$s'
         ELSE 'the database %1$s has no replication slot %3$s' END, current_database(), job, slot)
    USING ERRCODE = 'undefined_object',
          HINT = COALESCE(
            (SELECT format('It is in the database %s: call the function there.', min(s.database))
               FROM pg_replication_slots s
               WHERE s.database <> current_database()
                 AND CASE WHEN slot IS NULL THEN s.slot_name ~ own ELSE s.slot_name = slot END
               HAVING count(*) > 0),
            'The job has not started, has failed or is canceled: see its row in the jobs table.');
END
$function$;

-- The same for ids of other types.
CREATE OR REPLACE FUNCTION lantern_wait_for_embeddings(
  job bigint, lsn pg_lsn, timeout interval DEFAULT '10 seconds', slot text DEFAULT NULL
) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL RESTRICTED
RETURN lantern_wait_for_embeddings(job::text, lsn, timeout, slot);

CREATE OR REPLACE FUNCTION lantern_wait_for_embeddings(
  job uuid, lsn pg_lsn, timeout interval DEFAULT '10 seconds', slot text DEFAULT NULL
) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL RESTRICTED
RETURN lantern_wait_for_embeddings(job::text, lsn, timeout, slot);
