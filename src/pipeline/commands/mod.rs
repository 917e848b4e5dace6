//! What runs beside the daemon.

pub mod repair;
pub mod verify;
