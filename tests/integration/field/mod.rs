//! Tables, links and operators as they are: what people reported of other tools that do this job, replayed against this
//! daemon. Each module is named for what people do; where a public report exists, the test's comment gives its number.

mod keys_of_extensions;
mod slow_links;
mod users_code;
