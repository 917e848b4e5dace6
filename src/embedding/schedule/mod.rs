//! Which text is computed next, with which others, and which need not be computed.
//!
//! The [`scheduler`] holds the queue behind its lock. [`queue`] orders texts by flow and length, [`linger`] says how long
//! they wait for a larger batch, [`cache`] keeps vectors that are known. Models of this process and models elsewhere use the
//! same scheduler.

pub(super) mod cache;
pub(super) mod linger;
pub(super) mod queue;
pub(super) mod scheduler;
