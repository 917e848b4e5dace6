//! Which index a search used, and the server's plan.

use serde_json::Value;

use crate::pipeline::commands::search::{Found, Search, Way};
use crate::pipeline::error::JobError;
use crate::plural::form;
use crate::postgres::DatabaseError;
use crate::postgres::quote::identifier;

/// What the server did for a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The indexes that gave the order, quoted: several for a partitioned table, none where every vector was compared.
    pub indexes: Vec<String>,
    /// The same as a sentence, or why no index was used.
    pub sentence: String,
    /// The plan, line by line, with the rows and times of one execution.
    pub plan: Vec<String>,
}

impl Search<'_> {
    /// Explains what [`run`](Self::run) has found.
    ///
    /// # Errors
    /// The server's.
    pub async fn explain(&self, found: &Found) -> Result<Explanation, JobError> {
        let failed = || DatabaseError::during("explaining the search");
        let ask = async |options: &str| {
            let explain = format!("EXPLAIN ({options}) {}", found.sql);
            self.session.query(&explain, &[&self.query.vector]).await
        };
        let described = ask("FORMAT JSON").await.map_err(failed())?;
        let described = described.iter().map(|row| row.try_get(0));
        let described: Vec<Value> = described.collect::<Result<_, _>>().map_err(failed())?;
        let mut indexes = Vec::new();
        described
            .iter()
            .for_each(|plan| collect(plan, &mut indexes));
        let lines = ask("ANALYZE, BUFFERS OFF").await.map_err(failed())?;
        let lines = lines.iter().map(|row| row.try_get::<_, String>(0));
        let lines: Vec<String> = lines.collect::<Result<_, _>>().map_err(failed())?;
        Ok(Explanation {
            sentence: sentence(&found.way, &indexes, self.counted()),
            indexes,
            plan: lines.iter().map(|line| shortened(line)).collect(),
        })
    }

    /// What is counted: one, and many of it.
    fn counted(&self) -> [&'static str; 2] {
        match self.query.target.passages {
            Some(_) => ["document", "documents"],
            None => ["row", "rows"],
        }
    }
}

/// The names of the indexes in a plan that are scanned in the order of a distance.
fn collect(plan: &Value, indexes: &mut Vec<String>) {
    match plan {
        Value::Array(parts) => parts.iter().for_each(|part| collect(part, indexes)),
        Value::Object(node) => {
            if let (Some(_), Some(Value::String(name))) =
                (node.get("Order By"), node.get("Index Name"))
            {
                indexes.push(identifier(name));
            }
            node.values().for_each(|part| collect(part, indexes));
        }
        _ => {}
    }
}

fn sentence(way: &Way, used: &[String], [one, many]: [&str; 2]) -> String {
    match way {
        Way::Index(index) if used.is_empty() => format!(
            "not used: the planner expects less work from comparing every vector than from {}",
            index.qualified()
        ),
        Way::Index(index) => format!("{} ({})", used.join(", "), index.method),
        Way::TooFew(index, found) => format!(
            "none: every vector was compared, because {} gave only {found} {}",
            index.qualified(),
            form(*found, one, many)
        ),
        Way::NoIndex(None) => {
            "none: every vector was compared, because the column has no index for a distance of pgvector".into()
        }
        Way::NoIndex(Some(invalid)) => format!(
            "none: every vector was compared; {invalid} is invalid, since its build was interrupted: drop it and create it \
             again, or let the job do so (create_index)"
        ),
    }
}

/// The line with the vectors in it cut: `'[0.12,…]'`.
fn shortened(line: &str) -> String {
    let mut short = String::with_capacity(line.len().min(200));
    let mut rest = line;
    while let Some(start) = rest.find("'[").or_else(|| rest.find("'{")) {
        let (before, vector) = rest.split_at(start);
        short.push_str(before);
        let end = vector[1..].find('\'').map_or(vector.len(), |end| end + 2);
        let (literal, after) = vector.split_at(end);
        match (literal.find(','), literal.chars().count() > 40) {
            (Some(comma), true) => {
                short.push_str(&literal[..comma]);
                short.push_str(",…");
                short.push_str(&literal[literal.len().saturating_sub(2)..]);
            }
            _ => short.push_str(literal),
        }
        rest = after;
    }
    short.push_str(rest);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_cut_and_nothing_else() {
        let vector = format!("'[{}]'", vec!["0.12345"; 384].join(","));
        let line = format!("  Order By: (embedding <=> {vector}::vector(384)) and 'it''s'");
        assert_eq!(
            shortened(&line),
            "  Order By: (embedding <=> '[0.12345,…]'::vector(384)) and 'it''s'"
        );
        let filter = "Filter: (tags = '{a,b}'::text[])";
        assert_eq!(shortened(filter), filter);
        assert_eq!(shortened("an open '[1,2"), "an open '[1,2");
    }

    #[test]
    fn the_indexes_of_a_plan_are_those_that_give_the_order() {
        let plan = serde_json::json!([{"Plan": {"Node Type": "Limit", "Plans": [
            {"Index Name": "a b", "Order By": "(v <=> '[1]')"}, {"Index Name": "pkey"}]}}]);
        let mut indexes = Vec::new();
        collect(&plan, &mut indexes);
        assert_eq!(indexes, ["\"a b\""]);
    }
}
