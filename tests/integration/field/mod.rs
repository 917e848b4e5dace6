//! Tables, links and operators as they are: what people reported of other tools that do this job, replayed against this
//! daemon. Each module is named for what people do; where a public report exists, the test's comment gives its number.

mod access;
mod asking_after_jobs;
mod copied_databases;
mod copying_models;
mod documented_queries;
mod encodings;
mod endless_words;
mod generated_columns;
mod inheritance;
mod keys_of_extensions;
mod large_messages;
mod large_texts;
mod least_privilege;
mod locked_tables;
mod moved_types;
mod one_destination;
mod partitions;
mod piping_output;
mod pointing_at_databases;
mod reading_the_log;
mod redefined_sources;
mod renamed_jobs_table;
mod repairing;
mod replaced_tables;
mod roles;
mod row_security;
mod slow_links;
mod users_code;
mod watching_by_sql;
