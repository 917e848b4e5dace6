//! A write-back that waits until a test releases it, so that later rows gather behind it.

use testkit::Scene;
use testkit::client::execute;
use testkit::scene::TIDES;
use tokio_postgres::Client;

/// The transaction that writes the vector of row 99.
pub struct HeldWriteBack {
    holder: Client,
}

impl HeldWriteBack {
    /// Creates a trigger that waits for an advisory lock, writes row 99, and returns when its write-back waits.
    pub async fn begin(scene: &Scene) -> Self {
        scene
            .sql(
                "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
                   $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$; \
                 CREATE TRIGGER waits BEFORE UPDATE OF embedding ON notes FOR EACH ROW \
                   WHEN (NEW.id = 99) EXECUTE FUNCTION wait()",
            )
            .await;
        let holder = scene.session("SELECT pg_advisory_lock(1)").await;
        scene.put(99, TIDES).await;
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()";
        scene.wait_for(waiting, "1").await;
        Self { holder }
    }

    /// Lets it commit.
    pub async fn release(self) {
        execute(&self.holder, "SELECT pg_advisory_unlock(1)").await;
    }
}
