//! The index on a column of vectors: which there are, and the one that a job has the daemon build (`create_index`).
//!
//! ```text
//! the initial backfill is finished ─▶ upkeep ─▶ look ┬─ an index of the column serves the distance ───▶ there
//!                                        ▲           ├─ nothing does ─▶ CREATE INDEX CONCURRENTLY ────▶ there
//!                                        │           └─ ours is invalid ─▶ DROP INDEX CONCURRENTLY ─▶ build
//!                                        └── pause ◀── an error, or users wait for the table: the build is ended
//! ```
//!
//! A build never ends the attempt of its job, and never keeps a statement of the table's users waiting: CREATE INDEX
//! CONCURRENTLY lets them write, and where another statement waits for its lock, the build gives way.
//!
//! | file | holds |
//! | --- | --- |
//! | [`catalog`] | the indexes of a column that serve a distance |
//! | [`wanted`] | the index that a job asks for: names, statements, and what cannot be indexed |
//! | [`look`] | is it there, and who may build it |
//! | [`upkeep`] | looks, builds, retries; and says what became of it |
//! | `build` | the build of a table, and of its partitions |
//! | [`session`] | one statement at a time, watched, with the locks that keep builders apart |
//! | [`progress`] | how far a build is |
//! | [`parts`] | a table and its partitions, one after the other |
//! | [`leftover`] | drops what an interrupted build left |

mod build;
pub mod catalog;
pub mod leftover;
pub mod look;
pub mod parts;
pub mod progress;
pub mod session;
pub mod upkeep;
pub mod wanted;
