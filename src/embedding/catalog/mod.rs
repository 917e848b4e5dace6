//! Where the files of a model come from: a folder on the disk, or the hub.
//!
//! [`model_catalog`] looks for a name in all places of this machine, [`known`] has the models whose properties need no file
//! to be known, and [`fetch`] downloads what is missing, once for all who ask.

pub(super) mod fetch;
pub(super) mod known;
pub(super) mod model_catalog;
pub(super) mod similar;
