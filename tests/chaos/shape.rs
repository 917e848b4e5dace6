//! The table of a schedule: its key, its source, its destination, and how it is replicated.

use std::fmt;

use testkit::random::Random;
use testkit::tiny_model::DIMENSIONS;

#[derive(Clone, Copy, Debug)]
enum Key {
    Int,
    Text,
    Uuid,
    Composite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    Vector,
    Array,
    /// The daemon adds the column.
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    Default,
    /// A unique index instead of a primary key.
    Index,
    Full,
}

/// Triggers of the users for UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Triggers {
    None,
    /// Notes each update in a table that it names without its schema.
    Audit,
    /// Removes the word [`UNCLEAN`] from the head of a text.
    Clean,
    /// Cancels updates that change nothing.
    Suppress,
}

/// The definition of a table. The workload numbers rows; [`Shape::key`] turns a number into a key.
#[derive(Clone, Debug)]
pub struct Shape {
    key: Key,
    destination: Destination,
    identity: Identity,
    partitioned: bool,
    /// The job has a fingerprint column.
    pub fingerprint: bool,
    /// A trigger of the table rejects the vectors of some rows, see [`REJECTED`].
    pub rejects: bool,
    pub triggers: Triggers,
}

/// The first word of texts whose vectors a table rejects.
pub const REJECTED: &str = "rejected";
/// The first word of texts that a trigger cleans up.
pub const UNCLEAN: &str = "unclean";
/// The fingerprint column.
pub const FINGERPRINT: &str = "fingerprint";

impl Shape {
    pub fn random(random: &mut Random, has_vector: bool) -> Self {
        let key = *random.pick(&[Key::Int, Key::Int, Key::Text, Key::Uuid, Key::Composite]);
        let destination = *random.pick(&[
            Destination::Vector,
            Destination::Vector,
            Destination::Array,
            Destination::Missing,
        ]);
        let identity = *random.pick(&[
            Identity::Default,
            Identity::Default,
            Identity::Index,
            Identity::Full,
        ]);
        let partitioned = random.percent(20);
        Self {
            key,
            destination: match destination {
                Destination::Vector if !has_vector => Destination::Array,
                other => other,
            },
            identity: match identity {
                // Each partition would need a statement with an index name that the server has generated.
                Identity::Index if partitioned => Identity::Default,
                other => other,
            },
            partitioned,
            fingerprint: random.percent(30),
            rejects: random.percent(30),
            triggers: *random.pick(&[
                Triggers::None,
                Triggers::None,
                Triggers::Audit,
                Triggers::Clean,
                Triggers::Suppress,
            ]),
        }
    }

    /// The statements that create the table `notes`.
    pub fn create(&self) -> String {
        let columns = self.key_declaration();
        let destination = match self.destination {
            Destination::Vector => format!(", embedding vector({DIMENSIONS})"),
            Destination::Array => ", embedding real[]".to_owned(),
            Destination::Missing => String::new(),
        };
        let partitioned = match (self.partitioned, self.key) {
            (false, _) => "",
            (true, Key::Composite) => " PARTITION BY HASH (part)",
            (true, _) => " PARTITION BY HASH (id)",
        };
        let fingerprint = match self.fingerprint {
            true => format!(", {FINGERPRINT} uuid"),
            false => String::new(),
        };
        let mut statements = format!(
            "CREATE TABLE notes ({columns}, body text, views int NOT NULL DEFAULT 0, other text{destination}{fingerprint}){partitioned};"
        );
        let mut leaves = vec!["notes".to_owned()];
        if self.partitioned {
            for part in 0..3 {
                statements += &format!(
                    "CREATE TABLE notes_{part} PARTITION OF notes FOR VALUES WITH (MODULUS 3, REMAINDER {part});"
                );
                leaves.push(format!("notes_{part}"));
            }
        }
        let key = self.key_columns();
        for table in &leaves {
            statements += &format!("ALTER TABLE {table} ALTER body SET STORAGE EXTERNAL;");
        }
        match self.identity {
            Identity::Default => {
                statements += &format!("ALTER TABLE notes ADD PRIMARY KEY ({key});");
            }
            Identity::Full => {
                statements += &format!("ALTER TABLE notes ADD PRIMARY KEY ({key});");
                for table in &leaves {
                    statements += &format!("ALTER TABLE {table} REPLICA IDENTITY FULL;");
                }
            }
            Identity::Index => {
                statements += &format!(
                    "CREATE UNIQUE INDEX notes_key ON notes ({key}); ALTER TABLE notes REPLICA IDENTITY USING INDEX notes_key;"
                );
            }
        }
        if self.rejects {
            statements += &format!(
                "CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                   IF current_setting('application_name') LIKE 'lantern-cli%' THEN RAISE 'rejected by the trigger'; END IF; RETURN NEW; END $$;
                 CREATE TRIGGER reject BEFORE UPDATE ON notes FOR EACH ROW WHEN (NEW.body LIKE '{REJECTED} %') EXECUTE FUNCTION reject();"
            );
        }
        statements += &self.users_triggers();
        statements
    }

    fn users_triggers(&self) -> String {
        match self.triggers {
            Triggers::None => String::new(),
            // Which schemas a session searches, it learns when it begins: sessions from now on do.
            Triggers::Audit => "CREATE SCHEMA app; CREATE TABLE app.audit_log (views int);
                 CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
                   'BEGIN INSERT INTO audit_log VALUES (NEW.views); RETURN NULL; END';
                 CREATE TRIGGER audit AFTER UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION audit();
                 DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, app', current_database()); END $$;"
                .to_owned(),
            Triggers::Clean => format!(
                "CREATE FUNCTION clean() RETURNS trigger LANGUAGE plpgsql AS
                   $$ BEGIN NEW.body := substr(NEW.body, length('{UNCLEAN} ') + 1); RETURN NEW; END $$;
                 CREATE TRIGGER clean BEFORE UPDATE ON notes FOR EACH ROW WHEN (NEW.body LIKE '{UNCLEAN} %') EXECUTE FUNCTION clean();"
            ),
            Triggers::Suppress => "CREATE TRIGGER z_suppress BEFORE UPDATE ON notes FOR EACH ROW \
                 EXECUTE FUNCTION suppress_redundant_updates_trigger();"
                .to_owned(),
        }
    }

    /// After this statement the table accepts every vector.
    pub const ACCEPT_ALL: &str = "DROP TRIGGER IF EXISTS reject ON notes";

    /// The key of a row of `notes n` in the form that it has in the failures table, as SQL.
    pub fn key_as_json(&self) -> &'static str {
        match self.key {
            Key::Composite => "jsonb_build_object('part', n.part::text, 'the id', n.\"the id\")",
            _ => "jsonb_build_object('id', n.id::text)",
        }
    }

    /// The columns of the key, as SQL.
    pub fn key_columns(&self) -> &'static str {
        match self.key {
            Key::Composite => "part, \"the id\"",
            _ => "id",
        }
    }

    /// The name of the key of the row `alias`, as SQL.
    pub fn key_name(&self, alias: &str) -> String {
        match self.key {
            Key::Composite => format!("ROW({alias}.part, {alias}.\"the id\")::text"),
            _ => format!("ROW({alias}.id)::text"),
        }
    }

    /// The condition that two rows have the same key.
    pub fn same_key(&self, one: &str, other: &str) -> String {
        match self.key {
            Key::Composite => {
                format!("{one}.part = {other}.part AND {one}.\"the id\" = {other}.\"the id\"")
            }
            _ => format!("{one}.id = {other}.id"),
        }
    }

    /// The columns of the key with their types.
    pub fn key_declaration(&self) -> &'static str {
        match self.key {
            Key::Int => "id bigint NOT NULL",
            Key::Text => "id text NOT NULL",
            Key::Uuid => "id uuid NOT NULL",
            Key::Composite => "part int NOT NULL, \"the id\" text NOT NULL",
        }
    }

    /// Whether vectors are of pgvector's type.
    pub fn has_vector_type(&self) -> bool {
        self.destination == Destination::Vector
    }

    /// The key of row `number`, as SQL: one value a column. `number` may itself be SQL.
    pub fn key(&self, number: impl fmt::Display) -> String {
        match self.key {
            Key::Int => format!("{number}"),
            Key::Text => format!("'k ''\"\\' || {number}"),
            Key::Uuid => format!("md5(({number})::text)::uuid"),
            Key::Composite => format!("({number}) % 5, 'k%' || {number}"),
        }
    }

    /// The condition that a row has the key of row `number`.
    pub fn is(&self, number: u64) -> String {
        format!("({}) = ({})", self.key_columns(), self.key(number))
    }

    /// Sets the key to that of row `number`.
    pub fn set(&self, number: u64) -> String {
        match self.key {
            Key::Composite => format!("({}) = ROW({})", self.key_columns(), self.key(number)),
            _ => format!("{} = {}", self.key_columns(), self.key(number)),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} key, {:?} destination, replica identity {:?}, triggers {:?}{}{}{}",
            self.key,
            self.destination,
            self.identity,
            self.triggers,
            if self.partitioned {
                ", partitioned"
            } else {
                ""
            },
            if self.fingerprint {
                ", fingerprints"
            } else {
                ""
            },
            if self.rejects {
                ", rejects some rows"
            } else {
                ""
            },
        )
    }
}
