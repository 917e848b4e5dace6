//! One file a question.

pub mod backlog;
pub mod beside_inference;
pub mod burst;
pub mod documents;
pub mod freshness;
pub mod jobs;
pub mod near_saturation;
pub mod repeats;
pub mod tables;
pub mod user_side;
pub mod write_back;
