//! Jobs with a `chunk_table`: documents in passages.

mod documents;
mod edits;
mod large;
mod refusals;
mod scene;
mod setup;
mod status;
mod verify;
mod view;
mod wait;
mod writing;
