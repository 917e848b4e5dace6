//! The role of the jobs in some schedules: the owner of their tables, and not a superuser. What happens to it, and how an
//! operator undoes that.

/// A role that may do no more than it needs.
pub const ROLE: &str = "lantern";
const PASSWORD: &str = "harbor";

/// Why the server does not let the role in any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The password was rotated.
    Password,
    NoLogin,
    /// The role may not connect to the database.
    NoConnect,
}

impl Refusal {
    pub fn begin(self) -> &'static str {
        match self {
            Refusal::Password => "ALTER ROLE lantern PASSWORD 'anchor'",
            Refusal::NoLogin => "ALTER ROLE lantern NOLOGIN",
            Refusal::NoConnect => {
                "DO $$ BEGIN EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC, lantern', current_database()); END $$"
            }
        }
    }
}

/// Lets the role in, whatever has happened to it.
pub const ADMIT: &str = "ALTER ROLE lantern LOGIN PASSWORD 'harbor'; \
    DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO lantern', current_database()); END $$";

/// Creates the role where the server has none, and makes it the owner of the tables in the schema `public`, and of those of
/// their triggers.
pub const CREATE: &str = "
    DO $$ DECLARE t regclass; BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'lantern') THEN CREATE ROLE lantern REPLICATION; END IF;
      EXECUTE format('GRANT CREATE ON DATABASE %I TO lantern', current_database());
      FOR t IN SELECT oid FROM pg_class WHERE relkind IN ('r', 'p') AND oid >= 16384 AND relnamespace IN
        (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'app')) AND relname <> 'jobs'
      LOOP EXECUTE format('ALTER TABLE %s OWNER TO lantern', t); END LOOP;
      IF to_regnamespace('app') IS NOT NULL THEN GRANT USAGE ON SCHEMA app TO lantern; END IF;
    END $$";

/// Row level security hides the rows of `notes` from the role, which is its owner.
pub const HIDE_ROWS: &str =
    "ALTER TABLE notes ENABLE ROW LEVEL SECURITY; ALTER TABLE notes FORCE ROW LEVEL SECURITY";

/// Ends [`HIDE_ROWS`].
pub const SHOW_ROWS: &str =
    "ALTER TABLE notes DISABLE ROW LEVEL SECURITY; ALTER TABLE notes NO FORCE ROW LEVEL SECURITY";

/// A connection string for the role instead of that of the superuser.
pub fn uri(superusers: &str) -> String {
    let (_, server) = superusers.split_once('@').expect("it names a user");
    format!("postgresql://{ROLE}:{PASSWORD}@{server}")
}

/// A condition on a row of the jobs table: the job failed because of the role, so an operator, who has mended that, has it
/// tried again. A job that is not let in before its first start fails, and one whose rows are hidden.
pub const FAILED_BY_ROLE: &str = "init_failed_at IS NOT NULL AND init_failure_reason ~ \
    'row level security|password authentication failed|not permitted to log in|permission denied for database'";
