-- A work queue: each change leaves its key in a table, from which a worker takes it.
CREATE TABLE queue (id bigint NOT NULL, queued_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON queue (id);

CREATE FUNCTION queue_key() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN INSERT INTO public.queue (id) VALUES (NEW.id); RETURN NULL; END';

CREATE TRIGGER inserted AFTER INSERT ON notes
  FOR EACH ROW WHEN (NEW.body IS NOT NULL) EXECUTE FUNCTION queue_key();
CREATE TRIGGER updated AFTER UPDATE OF body ON notes
  FOR EACH ROW WHEN (NEW.body IS DISTINCT FROM OLD.body) EXECUTE FUNCTION queue_key();
