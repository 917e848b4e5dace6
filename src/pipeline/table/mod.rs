//! What the other modules of the pipeline build on: what a target table, a key and a row are.
//!
//! | file | holds |
//! | --- | --- |
//! | [`target`] | the table as the catalog describes it, and SQL for its columns |
//! | [`key_sql`] | SQL over keys: batches of them, joins, pages in key order |
//! | [`fingerprint`] | which text and model a vector was computed from |
//! | [`source_version`] | which definition of the source column the texts are of |
//! | [`leaf`] | a partition that holds rows |
//! | [`distance`] | pgvector's distances, with their operators and operator classes |
//! | [`index_options`] | what index a job asks for |
//! | [`text_form`] | how a value of a column becomes text |
//! | [`template`] | the text that is embedded, made of several columns |
//! | [`passage_check`] | what is looked at before passages count as right |
//! | [`passages`] | the table of passages of a job that cuts its documents |
//! | [`passage_sql`] | SQL over passages and the rows that they are of |
//! | [`recent_texts`] | the last text of each recently changed key |
//! | [`recent_values`] | the last values of each recently changed key, where a template takes several |
//! | [`row`] | a row on its way to its vector, and the receipt its sender waits for |
//! | [`visibility`] | whether a change that the stream brought can be seen by a statement |
//! | [`write_back_marker`] | the message in the WAL that marks our own transactions |
//!
//! Nothing here does I/O.

pub mod distance;
pub mod fingerprint;
pub mod index_options;
pub mod key_sql;
pub mod leaf;
pub mod passage_check;
pub mod passage_sql;
pub mod passages;
pub mod recent_texts;
pub mod recent_values;
pub mod row;
pub mod source_version;
pub mod target;
pub mod template;
pub mod text;
pub mod text_form;
pub mod visibility;
pub mod write_back_marker;
