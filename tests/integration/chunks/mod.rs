//! Jobs with a `chunk_table`: documents in passages.

mod documents;
mod edits;
mod scene;
mod writing;
