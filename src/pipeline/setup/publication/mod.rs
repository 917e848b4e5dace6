//! What a job keeps on the target server: a publication and a slot, its own or those that all jobs of a database share.
//!
//! ```text
//! own      job ─▶ publication ─▶ slot
//!
//! shared   job ─▶ member ─┐
//!          job ─▶ member ─┴▶ publication ─▶ slot
//! ```
//!
//! **The publication comes before the slot.** The server decodes each change with the catalog as it was at that change
//! (`snapbuild.c`), and pgoutput looks the publication up in it. A publication that did not exist yet breaks the stream
//! up to PostgreSQL 17; from 18 on its changes are left out without an error (`LoadPublications` in `pgoutput.c`).
//!
//! **Both are replaced together.** Changes that were committed while the publication was missing, or was another one,
//! are not in the stream and never will be. So if the publication is not the one that the slot began with, the slot is
//! useless.
//!
//! | file | holds |
//! | --- | --- |
//! | [`own`] | a job's own publication and slot |
//! | [`shared`] | those that all jobs of a database share |
//! | [`add_member`], [`remove_member`] | how a job becomes a member of the shared publication, and leaves it |
//! | [`members`] | what the shared publication's comment says of each member |
//! | [`edit`] | changing a shared publication: compare and change in one statement |
//! | [`check`] | whether a publication serves a job |
//! | [`drop`](mod@drop) | dropping publication and slot |
//! | [`catalog`] | SQL over publications |

pub mod add_member;
pub mod catalog;
pub mod check;
pub mod drop;
pub mod edit;
pub mod members;
pub mod own;
pub mod remove_member;
pub mod shared;
