//! The index that a job's `create_index` and `index_params` ask for.

use serde_json::{Map, Value};

use super::distance::Distance;

const KEYS: &str = "distance, m, ef_construction, type and maintenance_work_mem";

/// The bounds and defaults of pgvector (`hnsw.h`).
const M: std::ops::RangeInclusive<u64> = 2..=100;
const EF_CONSTRUCTION: std::ops::RangeInclusive<u64> = 4..=1000;
const DEFAULT_M: u64 = 16;
const DEFAULT_EF_CONSTRUCTION: u64 = 64;

/// An HNSW index, as far as the job says what it is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexOptions {
    /// The distance that the index serves.
    pub distance: Distance,
    /// The index holds the vectors as `halfvec`, whatever the column has.
    pub as_halfvec: bool,
    /// The connections of each element; `None`: pgvector's default.
    pub m: Option<u64>,
    /// The candidates that are looked at for each element; `None`: pgvector's default.
    pub ef_construction: Option<u64>,
    /// The setting under which the index is built, such as `2GB`; `None`: the default of the role.
    pub maintenance_work_mem: Option<String>,
}

impl IndexOptions {
    /// Reads the two columns of the jobs table. `None` where no index is asked for.
    ///
    /// # Errors
    /// What is wrong with the values, as a sentence for a person.
    pub fn from_columns(
        create_index: Option<&str>,
        index_params: Option<&str>,
    ) -> Result<Option<IndexOptions>, String> {
        let options = from_json(index_params.unwrap_or("{}"))
            .map_err(|error| format!("the job's index_params: {error}"))?;
        match create_index {
            None => Ok(None),
            Some("hnsw") => Ok(Some(options)),
            Some(other) => Err(format!(
                "the job's create_index is {other:?}; only \"hnsw\" is known, and NULL creates no index"
            )),
        }
    }

    /// `WITH (…)` of the statement, with a blank before it; empty where all is as by default.
    pub fn storage_parameters(&self) -> String {
        let parameter = |name: &str, value: Option<u64>| value.map(|it| format!("{name} = {it}"));
        let all: Vec<String> = [
            parameter("m", self.m),
            parameter("ef_construction", self.ef_construction),
        ]
        .into_iter()
        .flatten()
        .collect();
        match all.is_empty() {
            true => String::new(),
            false => format!(" WITH ({})", all.join(", ")),
        }
    }

    /// About how much memory the index of one vector takes while it is built, beside the vector.
    pub fn bytes_per_element(&self) -> u64 {
        // `HnswElementData` and two neighbors for each connection at the lowest level (`hnsw.h`).
        200 + 32 * self.m.unwrap_or(DEFAULT_M)
    }
}

fn from_json(json: &str) -> Result<IndexOptions, String> {
    let value: Value = serde_json::from_str(json).map_err(|error| format!("no JSON: {error}"))?;
    let Value::Object(params) = value else {
        return Err("it must be a JSON object, such as {\"distance\": \"cosine\"}".into());
    };
    if let Some(unknown) = params.keys().find(|key| {
        !matches!(
            key.as_str(),
            "distance" | "m" | "ef_construction" | "type" | "maintenance_work_mem"
        )
    }) {
        return Err(format!("{unknown:?} is not known; there are {KEYS}"));
    }
    let (m, ef_construction) = (
        number(&params, "m", M)?,
        number(&params, "ef_construction", EF_CONSTRUCTION)?,
    );
    let least = 2 * m.unwrap_or(DEFAULT_M);
    if ef_construction.unwrap_or(DEFAULT_EF_CONSTRUCTION) < least {
        return Err(format!(
            "ef_construction must be at least twice m, here {least}"
        ));
    }
    Ok(IndexOptions {
        distance: distance(&params)?,
        as_halfvec: as_halfvec(&params)?,
        m,
        ef_construction,
        maintenance_work_mem: memory(&params)?,
    })
}

/// A missing key and a null mean the default.
fn given<'a>(params: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    params.get(key).filter(|value| !value.is_null())
}

fn number(
    params: &Map<String, Value>,
    key: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, String> {
    let Some(value) = given(params, key) else {
        return Ok(None);
    };
    match value.as_u64().filter(|number| range.contains(number)) {
        Some(number) => Ok(Some(number)),
        None => Err(format!(
            "{key} is {value}; it must be a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

fn distance(params: &Map<String, Value>) -> Result<Distance, String> {
    let Some(value) = given(params, "distance") else {
        return Ok(Distance::Cosine);
    };
    value.as_str().and_then(Distance::from_name).ok_or_else(|| {
        format!("distance is {value}; it must be \"cosine\", \"inner_product\", \"l2\" or \"l1\"")
    })
}

fn as_halfvec(params: &Map<String, Value>) -> Result<bool, String> {
    match given(params, "type").map(Value::as_str) {
        None => Ok(false),
        Some(Some("halfvec")) => Ok(true),
        Some(_) => {
            Err("type must be \"halfvec\", or be left out for the type of the column".into())
        }
    }
}

/// A size in the form of PostgreSQL's own settings. The server checks its bounds.
fn memory(params: &Map<String, Value>) -> Result<Option<String>, String> {
    let Some(value) = given(params, "maintenance_work_mem") else {
        return Ok(None);
    };
    let text = value.as_str().map(str::trim).unwrap_or_default();
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_size = digits.len() < text.len() && ["kB", "MB", "GB", "TB"].contains(&digits.trim());
    match is_size {
        true => Ok(Some(text.to_owned())),
        false => Err(format!(
            "maintenance_work_mem is {value}; it must be a size with its unit, such as \"2GB\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(params: &str) -> Result<IndexOptions, String> {
        let options = IndexOptions::from_columns(Some("hnsw"), Some(params));
        options.map(|options| options.expect("an index is asked for"))
    }

    #[test]
    fn the_index_is_for_the_cosine_unless_the_job_says_otherwise() {
        assert_eq!(IndexOptions::from_columns(None, None), Ok(None));
        let plain = IndexOptions::from_columns(Some("hnsw"), None).unwrap();
        let plain = plain.unwrap();
        assert_eq!(plain.distance, Distance::Cosine);
        assert_eq!(plain.storage_parameters(), "");
        assert_eq!(read(r#"{"m": null}"#).unwrap(), plain);
        let other = read(
            r#"{"distance": "l2", "m": 8, "ef_construction": 40, "type": "halfvec", "maintenance_work_mem": "64 MB"}"#,
        );
        let other = other.unwrap();
        assert!(other.as_halfvec && other.distance == Distance::L2);
        assert_eq!(other.maintenance_work_mem.as_deref(), Some("64 MB"));
        assert_eq!(
            other.storage_parameters(),
            " WITH (m = 8, ef_construction = 40)"
        );
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_right() {
        for (params, expected) in [
            ("[]", "JSON object"),
            ("{", "no JSON"),
            (r#"{"lists": 100}"#, "\"lists\" is not known"),
            (
                r#"{"distance": "Cosine"}"#,
                "\"cosine\", \"inner_product\", \"l2\" or \"l1\"",
            ),
            (r#"{"m": 1}"#, "from 2 to 100"),
            (r#"{"m": "16"}"#, "from 2 to 100"),
            (r#"{"m": 50}"#, "at least twice m, here 100"),
            (r#"{"ef_construction": 1001}"#, "from 4 to 1000"),
            (r#"{"type": "bit"}"#, "halfvec"),
            (r#"{"maintenance_work_mem": "2 gigs"}"#, "\"2GB\""),
            (r#"{"maintenance_work_mem": "GB"}"#, "\"2GB\""),
            (r#"{"maintenance_work_mem": 64}"#, "\"2GB\""),
        ] {
            let refused = read(params).unwrap_err();
            assert!(refused.contains(expected), "{params}: {refused}");
        }
        let unknown = IndexOptions::from_columns(Some("ivfflat"), None).unwrap_err();
        assert!(unknown.contains("only \"hnsw\" is known"), "{unknown}");
        // Also while no index is asked for: the row is wrong.
        assert!(IndexOptions::from_columns(None, Some("[]")).is_err());
    }
}
