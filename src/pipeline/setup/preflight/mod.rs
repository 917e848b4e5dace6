//! Looks at the target as the daemon's own role, and says what a person has to do where a job cannot work.
//!
//! Nothing here changes anything, so a job that is refused leaves nothing behind. What is found goes to
//! [`target_table`](super::target_table), which creates what is missing.
//!
//! | file | looks at |
//! | --- | --- |
//! | [`survey`] | everything: the list of all points, for a job that starts and for `lantern-cli check` |
//! | `survey_table` | the part of it about the table that only a job that runs needs |
//! | [`subject`] | nothing: what is looked at |
//! | [`points`] | nothing: what is found, point by point |
//! | [`prerequisites`] | all that the role lacks, in one message if that is more than one thing |
//! | [`server`] | version, encoding, `wal_level`, the right to replicate, a free slot |
//! | [`synchronous`] | whether commits would wait for the daemon |
//! | [`restart`] | whether a setting was changed already and waits for a restart |
//! | [`service`] | which managed service it is: remedies differ |
//! | [`publishing`] | which publication the job gets, and what the role needs for it |
//! | [`inspect`] | the table, its columns, key, source and destination |
//! | [`relation`] | what the table is, and its columns |
//! | [`key`] | the key by which the stream names rows |
//! | [`source`] | the column with the text |
//! | [`destination`], [`fingerprint`] | the columns that the job writes, if they exist |
//! | [`chunk_table`] | the table for passages, if the job cuts its texts |
//! | [`partitions`] | partitions that cannot be followed, or that would make UPDATE fail |
//! | [`generated`] | generated columns that would make UPDATE fail |
//! | [`privileges`] | what the role may read and write |
//! | [`rules`], [`triggers`] | rules that write-backs cannot pass, triggers that they fire |
//! | [`users_code`] | whose code runs with the role's rights, and who could gain any by it |
//!
//! A command only reads a table that a job has prepared: it takes [`inspect`] alone.

pub mod chunk_table;
pub mod destination;
pub mod fingerprint;
pub mod generated;
pub mod inspect;
pub mod key;
pub mod partitions;
pub mod points;
pub mod prerequisites;
pub mod privileges;
pub mod publishing;
pub mod relation;
pub mod restart;
pub mod rules;
pub mod server;
pub mod service;
pub mod source;
pub mod subject;
pub mod survey;
mod survey_table;
pub mod synchronous;
pub mod triggers;
pub mod users_code;
