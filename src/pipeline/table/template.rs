//! The text that is embedded, made of a text and other columns of its row: `'{title}\n{chunk}'`.

use super::text_form::TextForm;
use crate::postgres::quote::{identifier, literal};

/// The field that stands for the text itself: the source column, or a passage of it.
const TEXT: &str = "chunk";

/// A template. Its canonical text decides vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    /// The columns that it names, each once, in order of their first use.
    columns: Vec<String>,
    /// How these columns are shown, in the same order.
    forms: Vec<FieldForm>,
}

/// How a column that a template names is shown by SQL and by the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldForm {
    /// How its value becomes text.
    pub form: TextForm,
    /// False for generated columns, which servers before 18 do not publish.
    pub published: bool,
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
            forms: Vec::new(),
        };
        if template.contains('\0') {
            return Err(
                "template has a character that no text can have, \\u0000; remove it".into(),
            );
        }
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
            self.forms.push(FieldForm {
                form: TextForm::Output,
                published: true,
            });
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

    /// The same template of columns that are shown so; in the order of [`columns`](Self::columns).
    pub fn with_forms(self, forms: Vec<FieldForm>) -> Template {
        debug_assert_eq!(forms.len(), self.columns.len(), "a form for each column");
        Template { forms, ..self }
    }

    /// The columns that servers publish, not quoted.
    pub fn published_columns(&self) -> impl Iterator<Item = &str> {
        let columns = self.columns.iter().zip(&self.forms);
        columns.filter_map(|(column, form)| form.published.then_some(column.as_str()))
    }

    /// How the columns are shown.
    pub fn forms(&self) -> &[FieldForm] {
        &self.forms
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
            Piece::Column(place) => self.forms[*place]
                .form
                .sql_or_empty(&self.column(alias, *place)),
        };
        let pieces: Vec<String> = self.pieces.iter().map(piece).collect();
        format!(
            "(CASE WHEN {text} IS NOT NULL THEN {} END COLLATE \"C\")",
            pieces.join(" || ")
        )
    }

    /// SQL for the text of the column at `place` in the row `alias`; NULL for NULL.
    pub fn value_sql(&self, alias: &str, place: usize) -> String {
        self.forms[place].form.sql(&self.column(alias, place))
    }

    fn column(&self, alias: &str, place: usize) -> String {
        format!("{alias}.{}", identifier(&self.columns[place]))
    }

    /// The text that it has itself, without fields.
    pub fn own_text(&self) -> String {
        let pieces = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(literal) => Some(literal.as_str()),
            Piece::Text | Piece::Column(_) => None,
        });
        pieces.collect()
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
        for template in [
            "{title}",
            "",
            "{chunk",
            "{}{chunk}",
            "chunk}",
            "{chunk} }",
            "{chunk}\0",
        ] {
            assert!(Template::parse(template, "body").is_err(), "{template:?}");
        }
    }
}
