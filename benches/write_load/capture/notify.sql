-- The older design: each change sends its key to a listener.
CREATE FUNCTION send_key() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pg_notify(''embed'', NEW.id::text); RETURN NULL; END';

CREATE TRIGGER inserted AFTER INSERT ON notes
  FOR EACH ROW WHEN (NEW.body IS NOT NULL) EXECUTE FUNCTION send_key();
CREATE TRIGGER updated AFTER UPDATE OF body ON notes
  FOR EACH ROW WHEN (NEW.body IS DISTINCT FROM OLD.body) EXECUTE FUNCTION send_key();
