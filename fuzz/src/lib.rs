//! What the fuzz targets share. How to run them: `make fuzz`.

pub mod allocations;
pub mod conversation;
pub mod encoder;
pub mod hostile;
pub mod messages;
pub mod reference;
pub mod script;
pub mod transport;
