//! Looks at the target as the daemon's own role, and says what a person has to do where a job cannot work.
//!
//! Nothing here changes anything, so a job that is refused leaves nothing behind. What is found goes to
//! [`target_table`](super::target_table), which creates what is missing.
//!
//! | file | looks at |
//! | --- | --- |
//! | [`prerequisites`] | all that the role lacks, if that is more than one thing |
//! | [`server`] | version, `wal_level`, the right to replicate, a free slot |
//! | [`inspect`] | the table, its columns, key, source and destination |
//! | [`relation`] | what the table is, and its columns |
//! | [`key`] | the key by which the stream names rows |
//! | [`source`] | the column with the text |
//! | [`destination`], [`fingerprint`] | the columns that the job writes, if they exist |
//! | [`partitions`] | partitions that cannot be followed, or that would make UPDATE fail |
//! | [`generated`] | generated columns that would make UPDATE fail |
//! | [`privileges`] | what the role may read and write |
//! | [`users_code`] | whose code runs with the role's rights, and who could gain any by it |
//!
//! A command only reads a table that a job has prepared. So the checks of `pk`, of the fingerprint column, of
//! partitions and generated columns, and of the privileges to write are called by `target_table::prepare` alone.

pub mod destination;
pub mod fingerprint;
pub mod generated;
pub mod inspect;
pub mod key;
pub mod partitions;
pub mod prerequisites;
pub mod privileges;
pub mod relation;
pub mod server;
pub mod source;
pub mod users_code;
