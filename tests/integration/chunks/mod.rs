//! Jobs with a `chunk_table`: documents in passages.

mod destinations;
mod documents;
mod edits;
mod fleet;
mod keys;
mod large;
mod partitions;
mod refusals;
mod rights;
mod scene;
mod setup;
mod status;
mod verify;
mod view;
mod wait;
mod writing;
