//! What a job keeps on the target server: a publication and a slot, its own or those that all jobs of a database share.
//!
//! ```text
//!  own      job ─▶ publication ─▶ slot                 check   does the publication serve the job?
//!  shared   job ─▶ member ─┐                           edit    change a shared one: compare and change in one statement
//!           job ─▶ member ─┴▶ publication ─▶ slot      members what its comment says of each job
//! ```
//!
//! **The publication comes before the slot.** The server decodes each change with the catalog as it was at that change
//! (`snapbuild.c`), and pgoutput looks the publication up in it. A publication that did not exist yet breaks the stream
//! up to PostgreSQL 17; from 18 on its changes are left out without an error (`LoadPublications` in `pgoutput.c`).
//!
//! **Both are replaced together.** Changes that were committed while the publication was missing, or was another one,
//! are not in the stream and cannot be had again. So a publication that is not the one a slot began with makes the slot
//! useless.

pub mod catalog;
pub mod check;
pub mod drop;
pub mod edit;
pub mod members;
pub mod own;
pub mod shared;
