//! The columns that a search shows.

use crate::pipeline::error::JobError;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};
use crate::similar::most_similar;

/// The names of the columns to show, not quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownColumns {
    /// The columns of the key.
    pub key: Vec<String>,
    /// Others that were asked for.
    pub others: Vec<String>,
}

impl ShownColumns {
    /// The key and the columns that the caller wants, by the names that the table has them under; without any, the
    /// source. Of a job with passages these are shown in its place.
    ///
    /// # Errors
    /// Permanent, with the columns that there are.
    pub fn choose(
        target: &TargetTable,
        wanted: &[String],
        existing: &[String],
    ) -> Result<ShownColumns, JobError> {
        let key: Vec<String> = target.key.iter().map(|it| it.name.clone()).collect();
        let mut chosen = Vec::new();
        for wanted in wanted.iter().filter(|wanted| !wanted.trim().is_empty()) {
            chosen.push(find(target, wanted, existing)?);
        }
        if wanted.is_empty() && target.passages.is_none() {
            chosen.push(target.source.name.clone());
        }
        let mut others = Vec::new();
        for name in chosen {
            if !key.contains(&name) && !others.contains(&name) {
                others.push(name);
            }
        }
        Ok(ShownColumns { key, others })
    }

    /// All of them, the key first.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.key.iter().chain(&self.others)
    }
}

/// A blank beside a comma is part of the list, unless it is part of a name.
fn find(target: &TargetTable, wanted: &str, existing: &[String]) -> Result<String, JobError> {
    let names = [wanted, wanted.trim()];
    let found = names
        .iter()
        .find_map(|name| existing.iter().find(|column| column == name));
    found.cloned().ok_or_else(|| {
        let hint = most_similar(wanted.trim(), existing.iter().map(String::as_str));
        let hint = hint.map(|column| format!("; did you mean {}?", identifier(column)));
        JobError::permanent(format!(
            "{} has no column {}; {}{}",
            target.qualified(),
            identifier(wanted.trim()),
            list(existing),
            hint.unwrap_or_default()
        ))
    })
}

/// `it has id, title`, which follows the name of the table or stands for it.
pub(super) fn list(existing: &[String]) -> String {
    format!("it has {}", existing.join(", "))
}

/// The columns of a table, in their order.
///
/// # Errors
/// The server's.
pub(super) async fn all_columns(
    session: &Session,
    table: u32,
) -> Result<Vec<String>, DatabaseError> {
    let statement = "SELECT attname::text FROM pg_attribute \
                     WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    session
        .query(statement, &[&table])
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
        .map_err(DatabaseError::during("reading the columns of the table"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn existing() -> Vec<String> {
        ["id", "body", "views", " odd"].map(str::to_owned).to_vec()
    }

    #[test]
    fn columns_are_found_with_blanks_around_them_and_shown_once() {
        let choose = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
            ShownColumns::choose(&TargetTable::example(), &wanted, &existing())
        };
        assert_eq!(choose(&[]).unwrap().others, ["body"]);
        let chosen = choose(&["views ", " body", "body", "", "id", " odd"]).unwrap();
        assert_eq!(chosen.others, ["views", "body", " odd"]);
        assert_eq!(chosen.key, ["id"]);
        for (wanted, hint) in [("Body", "\"body\"?"), ("vews", "\"views\"?")] {
            let refused = choose(&[wanted]).unwrap_err().to_string();
            assert!(refused.contains("it has id, body, views"), "{refused}");
            assert!(
                refused.contains(&format!("did you mean {hint}")),
                "{refused}"
            );
        }
        let refused = choose(&["price"]).unwrap_err().to_string();
        assert!(!refused.contains("did you mean"), "{refused}");
    }
}
