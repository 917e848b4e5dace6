//! From a slot to rows.

pub mod changes;
pub mod lifecycle;
pub mod open;
pub mod pace;
pub mod reader;
pub mod recent_texts;
pub mod registry;
pub mod slot_reader;
pub mod subscribers;
pub mod subscription;
pub mod table_changes;
