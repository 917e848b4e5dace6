//! The text that is embedded, made of a text and other columns of its row: `'{title}\n{chunk}'`.

use crate::postgres::quote::{identifier, literal};

/// The field that stands for the text itself: the source column, or a passage of it.
const TEXT: &str = "chunk";

/// A template. Its canonical text decides vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    /// The columns that it names, each once, in order of their first use.
    columns: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// The text itself.
    Text,
    /// A column, by its place in `columns`.
    Column(usize),
}

impl Template {
    /// Reads a template. `{chunk}`, or the name of the column `source` in braces, stands for the text; other names in
    /// braces are columns of the row. `{{` and `}}` are braces.
    ///
    /// # Errors
    /// A sentence that names what is wrong.
    pub fn parse(template: &str, source: &str) -> Result<Template, String> {
        let mut parsed = Template {
            pieces: Vec::new(),
            columns: Vec::new(),
        };
        let mut literal = String::new();
        let mut rest = template.chars().peekable();
        while let Some(next) = rest.next() {
            match next {
                '{' | '}' if rest.next_if_eq(&next).is_some() => literal.push(next),
                '{' => {
                    let mut name = String::new();
                    loop {
                        match rest.next() {
                            Some('}') => break,
                            Some(other) => name.push(other),
                            None => {
                                return Err(format!(
                                    "template has a brace that is not closed before {name:?}; write {{{{ for a brace"
                                ));
                            }
                        }
                    }
                    if name.is_empty() {
                        return Err("template has {} without a name; write {{}} for braces".into());
                    }
                    parsed.add(Piece::Literal(std::mem::take(&mut literal)));
                    let piece = parsed.field(name, source);
                    parsed.add(piece);
                }
                '}' => return Err("template has a } without a {; write }} for a brace".into()),
                other => literal.push(other),
            }
        }
        parsed.add(Piece::Literal(literal));
        if !parsed.pieces.contains(&Piece::Text) {
            return Err(format!(
                "template lacks {{{TEXT}}}, which stands for the text of src_column; add it"
            ));
        }
        Ok(parsed)
    }

    fn field(&mut self, name: String, source: &str) -> Piece {
        if name == TEXT || name == source {
            return Piece::Text;
        }
        let known = self.columns.iter().position(|column| *column == name);
        Piece::Column(known.unwrap_or_else(|| {
            self.columns.push(name);
            self.columns.len() - 1
        }))
    }

    fn add(&mut self, piece: Piece) {
        if piece != Piece::Literal(String::new()) {
            self.pieces.push(piece);
        }
    }

    /// The columns that it names besides the text, not quoted.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The text that is embedded. `values` are those of [`columns`](Self::columns), as their types print them; NULL
    /// counts as empty.
    pub fn apply(&self, text: &str, values: &[Option<String>]) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Literal(literal) => literal.clone(),
            Piece::Text => text.to_owned(),
            Piece::Column(place) => values.get(*place).cloned().flatten().unwrap_or_default(),
        };
        self.pieces.iter().map(piece).collect()
    }

    /// SQL for the text that is embedded of the row `alias`; NULL where `text`, which is SQL, is NULL.
    pub fn sql(&self, alias: &str, text: &str) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Literal(text) => literal(text),
            Piece::Text => text.to_owned(),
            Piece::Column(place) => format!("COALESCE({}, '')", self.value_sql(alias, *place)),
        };
        let pieces: Vec<String> = self.pieces.iter().map(piece).collect();
        format!(
            "(CASE WHEN {text} IS NOT NULL THEN {} END COLLATE \"C\")",
            pieces.join(" || ")
        )
    }

    /// SQL for the value of a column in the row `alias`, as its type prints it; NULL for NULL.
    pub fn value_sql(&self, alias: &str, place: usize) -> String {
        let column = format!("{alias}.{}", identifier(&self.columns[place]));
        format!(
            "CASE WHEN {column} IS NOT NULL THEN pg_catalog.format('%s', {column}) COLLATE pg_catalog.\"C\" END"
        )
    }

    /// One text for each template that makes other texts of the same row.
    pub fn canonical(&self) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Literal(literal) => literal.replace('{', "{{").replace('}', "}}"),
            Piece::Text => format!("{{{TEXT}}}"),
            Piece::Column(place) => format!("{{{}}}", self.columns[*place]),
        };
        self.pieces.iter().map(piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_replaced_and_null_is_empty() {
        let template = Template::parse("{title}: {{{body}}} {tag}{title}", "body").unwrap();
        assert_eq!(template.columns(), ["title", "tag"]);
        let values = [Some("Tides".to_owned()), None];
        assert_eq!(template.apply("text", &values), "Tides: {text} Tides");
        assert_eq!(template.canonical(), "{title}: {{{chunk}}} {tag}{title}");
        let again = Template::parse(&template.canonical(), "body");
        assert_eq!(again.as_ref(), Ok(&template));
    }

    #[test]
    fn a_template_that_cannot_be_meant_is_refused() {
        for template in ["{title}", "", "{chunk", "{}{chunk}", "chunk}", "{chunk} }"] {
            assert!(Template::parse(template, "body").is_err(), "{template:?}");
        }
    }
}
