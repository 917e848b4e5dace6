//! The hazards of following a table by logical replication. Each was seen on real servers; the number in a test's comment
//! is that of `docs/hazards.md`.
//!
//! What is asserted is what a user sees in SQL. [`Scene::caught_up`] is the strongest of the questions: as soon as a position
//! is confirmed, every vector up to it must be right.

mod columns;
mod echo;
mod guard;
mod identity;
mod keys;
mod lifecycle;
mod locking;
mod locks;
mod partitions;
mod random;
mod retention;
pub mod scene;
mod scripts;
mod settings;
mod shapes;
mod takeover;
mod triggers;
mod visibility;
mod waiting;

use scene::{CAVES, DESERT, LONG, MOON, PATIENCE, Scene, TIDES, VOCABULARY};
