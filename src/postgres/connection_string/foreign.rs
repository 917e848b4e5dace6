//! Connection strings that were written for other drivers: what is not libpq's about them, and what to write.
//!
//! A message never repeats a name out of the string, which may be part of a password that lacks an escape. It has only
//! names of this file.

/// Edits by which a misspelt keyword may differ from the right one.
const MAX_EDITS: usize = 2;

/// Drivers and their options that libpq does not have.
const OPTIONS: &[(&str, &[&str])] = &[
    (
        "Prisma",
        &[
            "schema",
            "pgbouncer",
            "connection_limit",
            "pool_timeout",
            "socket_timeout",
            "sslidentity",
            "sslaccept",
            "statement_cache_size",
            "single_use_connections",
            "max_connection_lifetime",
            "max_idle_connection_lifetime",
        ],
    ),
    (
        "JDBC",
        &[
            "currentSchema",
            "ApplicationName",
            "loginTimeout",
            "connectTimeout",
            "socketTimeout",
            "tcpKeepAlive",
            "prepareThreshold",
            "reWriteBatchedInserts",
            "sslfactory",
            "stringtype",
            "targetServerType",
            "loadBalanceHosts",
            "defaultRowFetchSize",
            "binaryTransfer",
        ],
    ),
    (
        "SQLAlchemy",
        &[
            "prepared_statement_cache_size",
            "async_fallback",
            "server_settings",
            "command_timeout",
            "pool_size",
            "max_overflow",
            "pool_pre_ping",
        ],
    ),
    (
        "pgx",
        &[
            "pool_max_conns",
            "pool_min_conns",
            "pool_max_conn_lifetime",
            "pool_max_conn_idle_time",
            "pool_health_check_period",
            "default_query_exec_mode",
            "statement_cache_capacity",
            "description_cache_capacity",
            "statement_cache_mode",
            "binary_parameters",
        ],
    ),
    ("node-postgres", &["uselibpqcompat"]),
    (
        "Rails",
        &[
            "pool",
            "prepared_statements",
            "encoding",
            "reaping_frequency",
            "adapter",
        ],
    ),
    ("Supabase", &["supa", "workaround"]),
    (
        "a setting of the server, not",
        &[
            "search_path",
            "statement_timeout",
            "timezone",
            "lock_timeout",
        ],
    ),
];

/// What is wrong with a string that is no URL of libpq's, where it was written for another driver, and what to write.
pub fn form(text: &str) -> Option<&'static str> {
    if text.starts_with(['\'', '"', '`']) {
        return Some("it has quotes around it: leave them out");
    }
    if text.starts_with("jdbc:") {
        return Some(
            "it is a URL of JDBC: leave jdbc: out, and write user and password before the host, \
             postgresql://user:password@host",
        );
    }
    let (scheme, _) = text.split_once("://")?;
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-');
    if scheme.is_empty() || !scheme.chars().all(is_scheme) {
        return None;
    }
    let (base, driver) = scheme.split_once('+').unwrap_or((scheme, ""));
    let base = base.to_ascii_lowercase();
    let is_postgres = matches!(
        base.as_str(),
        "postgresql" | "postgres" | "pgsql" | "psql" | "postgis" | "pg"
    );
    Some(match (is_postgres, driver.is_empty()) {
        (true, false) => {
            "its scheme names a driver behind a '+', as SQLAlchemy's do: write postgresql:// without it"
        }
        (true, true) => "its scheme must be postgresql:// or postgres://, in lower case",
        (false, _) => "its scheme is that of another kind of server: it must be postgresql://",
    })
}

/// What to do about a name that is none of libpq's keywords. `place` says which one it is.
pub fn option(name: &str, place: &str, keywords: impl Iterator<Item = &'static str>) -> String {
    let found = OPTIONS.iter().find_map(|(driver, options)| {
        let option = options.iter().find(|option| **option == name)?;
        Some((*driver, *option))
    });
    match found {
        Some((driver, option @ ("schema" | "currentSchema" | "search_path"))) => format!(
            "the option {option} is {}: leave it out; the table's schema is in the column schema of the jobs table, \
             that of the jobs table in --schema",
            whose(driver)
        ),
        Some((driver, "pgbouncer")) => format!(
            "the option pgbouncer is {}: leave it out, and connect to the server itself, because no pooler passes \
             replication on",
            whose(driver)
        ),
        Some((driver, option)) => format!("the option {option} is {}: leave it out", whose(driver)),
        None => match similar(name, keywords) {
            Some(keyword) => format!("{place} is not one of libpq's; did you mean {keyword}?"),
            None => format!("{place} is not one of libpq's"),
        },
    }
}

fn whose(driver: &str) -> String {
    match driver.strip_suffix(", not") {
        Some(what) => format!("{what}, not an option of libpq's"),
        None => format!("{driver}'s, not libpq's"),
    }
}

/// The keyword that a misspelt one was meant to be.
fn similar(name: &str, keywords: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    // Comparing takes memory in the product of both lengths, and the name may be a part of a megabyte without a '='.
    let comparable = keywords.filter(|keyword| keyword.len().abs_diff(name.len()) <= MAX_EDITS);
    let near = comparable.filter_map(|keyword| {
        let edits = strsim::damerau_levenshtein(&name, keyword);
        (edits <= MAX_EDITS.min(keyword.len() / 3)).then_some((edits, keyword))
    });
    near.min().map(|(_, keyword)| keyword)
}
