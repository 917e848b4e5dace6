//! The hazards of following a table by logical replication. Each was observed on real servers; the numbers in the
//! tests' comments are those of `docs/hazards.md`.
//!
//! The tests assert what a user sees in SQL. [`Scene::caught_up`] is the strongest assertion: as soon as a position is
//! confirmed, every vector up to it must be right.

mod busy_server;
mod columns;
mod guard;
mod held_write_back;
mod identity;
mod keys;
mod lifecycle;
mod locking;
mod locks;
mod partitions;
mod random;
mod repeated_work;
mod retention;
mod scripts;
mod settings;
mod shapes;
mod takeover;
mod triggers;
mod visibility;
mod waiting;

use testkit::Scene;
use testkit::scene::{CAVES, DESERT};

/// Changes after which every vector is wrong that was there before, and which a stream from a later position does not
/// bring.
async fn change_everything(scene: &Scene) {
    scene
        .sql("UPDATE notes SET body = NULL WHERE id = 2; UPDATE notes SET id = 30 WHERE id = 3")
        .await;
    scene.put(1, DESERT).await;
    scene.put(4, DESERT).await;
    scene.put(50, CAVES).await;
}
