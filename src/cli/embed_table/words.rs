//! Errors of jobs in the words of this command, which has options where a job has columns of the jobs table.

/// What an error calls something, and what it is called here. Each is more than a name, which a column of the user's
/// table may have, too.
const WORDS: &[(&str, &str)] = &[
    (
        "src_column and dst_column are both",
        "--src-column and --dst-column are both",
    ),
    ("fingerprint_column names", "--fingerprint-column names"),
    ("(src_column)", "(--src-column)"),
    ("(dst_column)", "(--dst-column)"),
    ("(fingerprint_column)", "(--fingerprint-column)"),
    ("the job's column_type", "--column-type"),
    ("set column_type to", "give --column-type"),
    ("the job's runtime_params", "--runtime-params"),
    ("in runtime_params", "in --runtime-params"),
    ("the job's runtime ", "--runtime "),
    ("the job's pk is", "--pk is"),
    (
        "correct pk or set it to NULL",
        "correct --pk or leave it out",
    ),
    ("skip_triggers of the job asks", "--skip-triggers asks"),
    ("set skip_triggers to false", "leave --skip-triggers out"),
    ("the job's create_index is", "--create-index is"),
    (
        ", and NULL creates no index",
        ", and without it no index is created",
    ),
    ("create_index is hnsw", "--create-index is hnsw"),
    ("set create_index to NULL", "leave --create-index out"),
    ("the job's index_params", "--index-params"),
    ("set index_params to", "give --index-params"),
    (
        "once the initial backfill is finished",
        "once all rows are embedded",
    ),
    (
        ", then set init_failed_at to NULL",
        ", then run the same command again",
    ),
];

/// The text with the options of this command.
pub fn in_options(text: &str) -> String {
    let mut said = text.to_owned();
    for (of_jobs, here) in WORDS {
        said = said.replace(of_jobs, here);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_options_and_leaves_columns_of_the_table_alone() {
        let error = "the table \"t\" has no column \"dst_column\" (src_column); run: SELECT \"create_index\"";
        assert_eq!(
            in_options(error),
            "the table \"t\" has no column \"dst_column\" (--src-column); run: SELECT \"create_index\""
        );
    }
}
