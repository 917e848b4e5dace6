//! A job that takes over the column of another one, with another model (`replaces` in the jobs table).
//!
//! The vectors of two models cannot be compared. So the new ones are not written over the old ones, but into a column
//! beside them, and once there is one for every row, the columns exchange their names in one transaction.
//!
//! ```text
//!                     until the swap                       after it
//! old vectors         embedding           job N ─▶         embedding_before_job_M    nothing writes it
//! new vectors         embedding_job_M     job M ─▶         embedding                 job M ─▶
//! ```
//!
//! The job is an ordinary one otherwise: its slot and its fingerprints go by the name that its column has in the end, so
//! both are good for it before and after. Where it stands is read from the catalog at each attempt. The predecessor looks
//! there too, once it holds its fence, and ends if it was replaced: an old vector never gets into the new column.
//!
//! | file | holds |
//! | --- | --- |
//! | [`names`] | the names of the columns |
//! | [`stage`] | whether the swap has happened |
//! | [`place`] | what the job works on now |
//! | [`obstacle`], [`dependents`] | what is in the way of the swap until a person acts |
//! | [`complete`] | whether every text has its vector |
//! | [`takeover`] | waits for all of that, and swaps |
//! | [`swap`], [`statements`] | the transaction |
//! | [`writers`] | ends the session of the predecessor in it |
//! | [`attributes`], [`indexes`] | what the new column gets from the old one |
//! | [`cleanup`] | drops the column that is not needed |

pub mod attributes;
pub mod cleanup;
pub mod complete;
pub mod dependents;
pub mod indexes;
pub mod names;
pub mod obstacle;
pub mod place;
pub mod stage;
pub mod statements;
pub mod swap;
pub mod takeover;
pub mod writers;
