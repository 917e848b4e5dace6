//! The index that a job asks for: its name, its statements, and what cannot be indexed.

use xxhash_rust::xxh3::xxh3_64;

use crate::pipeline::index::catalog::VectorIndex;
use crate::pipeline::table::distance::Distance;
use crate::pipeline::table::index_options::IndexOptions;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::quote::identifier;

/// The most dimensions that pgvector's HNSW indexes of each type (`HNSW_MAX_DIM` in `hnsw.h`).
const MAX_VECTOR: u32 = 2000;
const MAX_HALFVEC: u32 = 4000;
/// The longest name of an object, in bytes.
const MAX_NAME: usize = 63;
/// How the names of indexes end that the daemon builds. Those that exist are found by it, so it never changes.
const ENDING: &str = "_lantern_idx";

/// An index of the vectors of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedIndex {
    /// The column with the vectors, not quoted.
    pub column: String,
    /// What the job says of the index.
    pub options: IndexOptions,
    /// The schema of pgvector, not quoted.
    pub vector_schema: String,
    /// The type of the indexed values: `vector` or `halfvec`.
    pub indexed_type: &'static str,
    /// Bytes of a vector in the index.
    pub vector_bytes: u64,
    /// What is indexed, as SQL.
    expression: String,
}

impl WantedIndex {
    /// The index of the destination of this table, for a model that makes vectors of `model_dimensions`.
    ///
    /// # Errors
    /// Why its vectors cannot be indexed, and what to do, for a person.
    pub fn new(
        target: &TargetTable,
        model_dimensions: usize,
        options: &IndexOptions,
    ) -> Result<WantedIndex, String> {
        let destination = &target.destination;
        let column = identifier(&destination.name);
        let table = target.written().qualified();
        let shown = format!("{table}.{column}");
        let change = |base: &str, to: &str| match destination.exists {
            true => format!(
                "run: ALTER TABLE {table} ALTER COLUMN {column} TYPE {to} USING {column}::{to};"
            ),
            false => format!("set column_type to {base}"),
        };
        let Some(vector_schema) = &destination.vector_schema else {
            let base = indexable_type(model_dimensions);
            return Err(format!(
                "create_index is hnsw, but {shown} {} the type {}, which pgvector does not index; install pgvector \
                 (CREATE EXTENSION vector;) and {}{} set create_index to NULL",
                if destination.exists {
                    "has"
                } else {
                    "would get"
                },
                destination.type_name,
                change(base, &format!("{base}({model_dimensions})")),
                if destination.exists { " or" } else { ", or" },
            ));
        };
        let schema = identifier(vector_schema);
        let own_type = match destination.base_type.as_str() {
            "halfvec" => "halfvec",
            _ => "vector",
        };
        let Some(dimensions) = destination.dimensions else {
            let to = format!("{schema}.{own_type}({model_dimensions})");
            return Err(format!(
                "create_index is hnsw, but {shown} is declared as {} without dimensions, which pgvector does not index; \
                 {}",
                destination.type_name,
                change(own_type, &to)
            ));
        };
        let indexed_type = match options.as_halfvec {
            true => "halfvec",
            false => own_type,
        };
        let too_many = |limit: u32, remedy: &str| {
            format!(
                "create_index is hnsw, but {shown} has {dimensions} dimensions, and pgvector indexes at most {limit} of a \
                 {indexed_type}; {remedy}, or set create_index to NULL"
            )
        };
        if indexed_type == "vector" && dimensions > MAX_VECTOR && dimensions <= MAX_HALFVEC {
            let halfvec = format!("{schema}.halfvec({dimensions})");
            return Err(too_many(
                MAX_VECTOR,
                &format!(
                    "of a halfvec it indexes up to {MAX_HALFVEC}: set index_params to {{\"type\": \"halfvec\"}}, or {}",
                    change("halfvec", &halfvec)
                ),
            ));
        }
        if dimensions > MAX_HALFVEC {
            let remedy = "choose a model with shorter vectors, or shorten them with dimensions in runtime_params";
            return Err(too_many(MAX_HALFVEC, remedy));
        }
        let expression = match own_type == indexed_type {
            true => column,
            false => format!("({column}::{schema}.{indexed_type}({dimensions}))"),
        };
        Ok(WantedIndex {
            column: destination.name.clone(),
            options: options.clone(),
            vector_schema: vector_schema.clone(),
            indexed_type,
            vector_bytes: u64::from(dimensions) * if indexed_type == "vector" { 4 } else { 2 },
            expression,
        })
    }

    /// The name of the operator class, without its schema.
    pub fn operator_class(&self) -> String {
        self.options.distance.operator_class(self.indexed_type)
    }

    /// Whether an index of the column makes this one superfluous, once it is valid.
    pub fn is_served_by(&self, index: &VectorIndex) -> bool {
        index.is_whole && index.distance == self.options.distance
    }

    /// The name of the index on a table: always the same one, so that a build that was interrupted is found again.
    pub fn name(&self, table: &str) -> String {
        index_name(table, &self.column, self.options.distance)
    }

    /// `hnsw ("embedding" "public"."vector_cosine_ops") WITH (m = 8)`.
    fn definition(&self) -> String {
        format!(
            "USING hnsw ({} {}.{}){}",
            self.expression,
            identifier(&self.vector_schema),
            identifier(&self.operator_class()),
            self.options.storage_parameters()
        )
    }

    /// The statement that builds the index of a table, with schema and name of the table as SQL.
    pub fn create_concurrently(&self, name: &str, table: &str) -> String {
        let (name, definition) = (identifier(name), self.definition());
        format!("CREATE INDEX CONCURRENTLY {name} ON {table} {definition}")
    }

    /// The statement that builds the index and blocks writers meanwhile, as it must for a partitioned table with all of
    /// its partitions.
    pub fn create(&self, name: &str, table: &str) -> String {
        let (name, definition) = (identifier(name), self.definition());
        format!("CREATE INDEX {name} ON {table} {definition}")
    }

    /// The statement for a partitioned table, which indexes no row.
    pub fn create_on_only(&self, name: &str, table: &str) -> String {
        let (name, definition) = (identifier(name), self.definition());
        format!("CREATE INDEX {name} ON ONLY {table} {definition}")
    }
}

/// A type of pgvector that it can index.
fn indexable_type(dimensions: usize) -> &'static str {
    let limit = usize::try_from(MAX_VECTOR).unwrap_or(usize::MAX);
    match dimensions <= limit {
        true => "vector",
        false => "halfvec",
    }
}

/// `articles_title_embedding_cosine_lantern_idx`. Where that is too long, a hash of the whole takes the place of what
/// is cut off.
pub fn index_name(table: &str, column: &str, distance: Distance) -> String {
    let whole = format!("{table}_{column}_{}", distance.name());
    if whole.len() + ENDING.len() <= MAX_NAME {
        return whole + ENDING;
    }
    let hash = xxh3_64(whole.as_bytes());
    let ending = format!("_{:08x}{ENDING}", (hash ^ (hash >> 32)) as u32);
    let mut end = MAX_NAME - ending.len();
    while !whole.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", &whole[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(params: &str) -> IndexOptions {
        let options = IndexOptions::from_columns(Some("hnsw"), Some(params)).unwrap();
        options.unwrap()
    }

    fn table(base_type: &str, dimensions: Option<u32>) -> TargetTable {
        let mut target = TargetTable::example();
        target.destination.base_type = base_type.into();
        target.destination.type_name = format!("ext.{base_type}");
        target.destination.dimensions = dimensions;
        target.destination.vector_schema = Some("ext".into());
        target
    }

    #[test]
    fn the_statement_names_everything_with_its_schema() {
        let index = WantedIndex::new(&table("vector", Some(384)), 384, &options("{}")).unwrap();
        assert_eq!(
            index.create_concurrently("i", "\"public\".\"docs\""),
            "CREATE INDEX CONCURRENTLY \"i\" ON \"public\".\"docs\" USING hnsw (\"embedding\" \"ext\".\"vector_cosine_ops\")"
        );
        let params = options(r#"{"distance": "inner_product", "type": "halfvec", "m": 8}"#);
        let index = WantedIndex::new(&table("vector", Some(3000)), 3000, &params).unwrap();
        assert_eq!(
            index.create_on_only("i", "t"),
            "CREATE INDEX \"i\" ON ONLY t USING hnsw ((\"embedding\"::\"ext\".halfvec(3000)) \"ext\".\"halfvec_ip_ops\") \
             WITH (m = 8)"
        );
    }

    #[test]
    fn what_cannot_be_indexed_is_told_with_the_remedy() {
        let refusal =
            |target: TargetTable| WantedIndex::new(&target, 384, &options("{}")).unwrap_err();
        let long = refusal(table("vector", Some(3000)));
        assert!(long.contains("\"type\": \"halfvec\""), "{long}");
        assert!(
            long.contains("TYPE \"ext\".halfvec(3000) USING \"embedding\"::\"ext\".halfvec(3000);"),
            "{long}"
        );
        for too_long in [table("vector", Some(4001)), table("halfvec", Some(4001))] {
            let refused = refusal(too_long);
            assert!(
                refused.contains("dimensions in runtime_params"),
                "{refused}"
            );
        }
        let unbounded = refusal(table("vector", None));
        assert!(unbounded.contains("without dimensions"), "{unbounded}");
        let array = refusal(TargetTable::example());
        assert!(
            array.contains("CREATE EXTENSION vector;")
                && array.contains("TYPE vector(384) USING \"embedding\"::vector(384);"),
            "{array}"
        );
        let mut planned = TargetTable::example();
        planned.destination.exists = false;
        let planned = refusal(planned);
        assert!(
            planned.contains("would get the type real[]")
                && planned.contains("set column_type to vector, or set create_index to NULL"),
            "{planned}"
        );
        assert!(WantedIndex::new(&table("halfvec", Some(4000)), 4000, &options("{}")).is_ok());
    }

    #[test]
    fn a_name_is_never_longer_than_the_server_keeps_and_differs_for_each_column() {
        let name = |table: &str, column: &str| index_name(table, column, Distance::Cosine);
        assert_eq!(name("docs", "v"), "docs_v_cosine_lantern_idx");
        let long = "ä".repeat(31);
        let names = [name(&long, "v"), name(&long, "w"), name("a", &long)];
        for name in &names {
            assert!(name.len() <= MAX_NAME && name.ends_with(ENDING), "{name}");
        }
        assert_ne!(names[0], names[1]);
    }
}
