//! Tables, links and operators as they are: what people reported of other tools that do this job, replayed against this
//! daemon. Each module is named for what people do; where a public report exists, the test's comment gives its number.

mod asking_after_jobs;
mod copying_models;
mod documented_queries;
mod keys_of_extensions;
mod piping_output;
mod pointing_at_databases;
mod reading_the_log;
mod repairing;
mod slow_links;
mod users_code;
