//! What a change shows of the text of its row, and how that compares with what the row had before.
//!
//! ```text
//!                       what is passed on    what is compared
//! the source alone      its text             the text
//! with a template,      nothing: the row     each value of the source and of the columns that the template names;
//! or documents          is read by key       unchanged TOAST is as it was
//! ```
//!
//! A text that a template makes is computed here all the same where the stream carries all of its columns: it tells that a
//! change is our own write-back, or that the row has the fingerprint of its text. That saves reading the row. Where the two
//! differ, the row is read, so nothing depends on the stream and SQL printing each type alike.

use std::borrow::Cow;

use crate::pipeline::table::recent_texts::{RecentTexts, Seen};
use crate::pipeline::table::recent_values::{RecentValues, ShownValue};
use crate::pipeline::table::row::{Key, SourceText, TextHash};
use crate::pipeline::table::target::{SourceColumn, TargetTable};
use crate::pipeline::table::template::{FieldForm, Template};
use crate::pipeline::table::text::MAX_HEAD;
use crate::replication::pgoutput::{TupleData, Value};

/// The places of the columns with texts in the tuples of a relation: the source, then the columns that the template names.
/// `None` for one that is not published.
#[derive(Debug)]
pub(super) struct TextPlaces(Vec<Option<usize>>);

impl TextPlaces {
    /// Finds them. `place` knows where the column of a name is.
    ///
    /// # Errors
    /// A column that should be there and is not, and what it is for.
    pub(super) fn find<'a>(
        source: &'a SourceColumn,
        place: impl Fn(&str) -> Option<usize>,
    ) -> Result<TextPlaces, (&'a str, &'static str)> {
        let published = source.published_columns();
        let find = |column: &'a str| {
            let role = match column == source.name {
                true => "src_column",
                false => "template",
            };
            match published.contains(&column) {
                true => place(column).map(Some).ok_or((column, role)),
                false => Ok(None),
            }
        };
        let places: Result<Vec<_>, _> = source.columns().into_iter().map(find).collect();
        places.map(TextPlaces)
    }
}

/// What the tuple of a change shows of the text of its row.
#[derive(Clone, Copy)]
pub(super) struct ShownTexts<'s, 'a> {
    target: &'s TargetTable,
    places: &'s TextPlaces,
    tuple: TupleData<'a>,
}

impl<'s, 'a> ShownTexts<'s, 'a> {
    pub(super) fn new(
        target: &'s TargetTable,
        places: &'s TextPlaces,
        tuple: TupleData<'a>,
    ) -> Self {
        ShownTexts {
            target,
            places,
            tuple,
        }
    }

    /// Whether the change carries none of the texts, because it left all of them as they were.
    pub(super) fn are_unchanged_toast(&self) -> bool {
        self.all().all(|value| value == Some(Value::UnchangedToast))
    }

    /// Whether the texts are those of the whole row `old`.
    pub(super) fn are_as_in(&self, old: &TupleData<'_>) -> bool {
        let mut places = self.places.0.iter();
        places.all(
            |place| match place.and_then(|place| self.tuple.get(place)) {
                None => false,
                Some(Value::UnchangedToast) => true,
                value => place.and_then(|place| old.get(place)) == value,
            },
        )
    }

    /// The text to pass on; [`Unread`](SourceText::Unread) where the row is read by key.
    pub(super) fn source(&self) -> SourceText {
        if self.target.reads_texts() {
            return SourceText::Unread;
        }
        match self.of_source() {
            Some(Value::Null) => SourceText::Empty,
            Some(Value::Text(_)) => SourceText::from_column(self.text()),
            Some(Value::UnchangedToast | Value::Binary(_)) | None => SourceText::Unread,
        }
    }

    /// The hash of the text that is embedded of the row; `None` where the tuple does not show it. `source` is the text to
    /// pass on.
    pub(super) fn hash(&self, source: &SourceText) -> Option<TextHash> {
        if !self.target.reads_texts() {
            return TextHash::new(source);
        }
        let shown = match self.of_source() {
            Some(Value::Null) => SourceText::Empty,
            _ => SourceText::from_column(Some(&*self.whole()?)),
        };
        TextHash::new(&shown)
    }

    /// The text that is embedded of the row, whole; `None` where the tuple does not show it, or where the source is NULL.
    pub(super) fn whole(&self) -> Option<Cow<'a, str>> {
        let text = self.text()?;
        match &self.target.source.template {
            // Without a text there is nothing to embed, whatever the other columns hold.
            Some(template) if !text.is_empty() => self.made(template, text).map(Cow::Owned),
            _ => Some(Cow::Borrowed(text)),
        }
    }

    /// What the template makes of `text`. A long one is left to the server.
    fn made(&self, template: &Template, text: &str) -> Option<String> {
        let fields = self.all().skip(1).zip(template.forms());
        let value = |(value, form): (Option<Value<'a>>, &FieldForm)| match value? {
            Value::Null => Some(None),
            value => Some(Some(form.form.normalize(value.as_str()?).to_owned())),
        };
        let values: Vec<Option<String>> = fields.map(value).collect::<Option<_>>()?;
        let lengths = values.iter().flatten().map(String::len);
        let longest = lengths.max().unwrap_or(0).max(text.len());
        (longest <= MAX_HEAD).then(|| template.apply(text, &values))
    }

    /// Each value by itself, where those are compared. Of a column that is not published nothing is known.
    pub(super) fn values(&self) -> ShownValues<'a> {
        if !self.target.reads_texts() {
            return ShownValues::default();
        }
        let mut shown = ShownValues {
            values: Vec::with_capacity(self.places.0.len()),
            are_complete: true,
        };
        for value in self.all() {
            shown.are_complete &= !matches!(value, None | Some(Value::Binary(_)));
            shown.values.push(match value {
                Some(Value::Null) => ShownValue::Null,
                Some(Value::Text(text)) => ShownValue::Text(text),
                Some(Value::UnchangedToast | Value::Binary(_)) | None => ShownValue::Unchanged,
            });
        }
        shown
    }

    /// The text of the source column, if the tuple has it.
    fn text(&self) -> Option<&'a str> {
        let text = self.of_source()?.as_str()?;
        Some(self.target.source.normalize(text))
    }

    fn of_source(&self) -> Option<Value<'a>> {
        self.all().next().flatten()
    }

    /// The values of the source and of the columns that the template names.
    fn all(&self) -> impl Iterator<Item = Option<Value<'a>>> {
        let tuple = self.tuple;
        let places = self.places.0.iter();
        places.map(move |place| place.and_then(|place| tuple.get(place)))
    }
}

/// The values that a change shows.
#[derive(Default)]
pub(super) struct ShownValues<'a> {
    values: Vec<ShownValue<'a>>,
    /// Whether a change of each of them shows.
    are_complete: bool,
}

/// What the last change of each row has shown.
pub(super) enum RecentRows {
    Texts(RecentTexts),
    Values(RecentValues),
}

impl RecentRows {
    pub(super) fn for_target(target: &TargetTable) -> Self {
        match target.reads_texts() {
            true => RecentRows::Values(RecentValues::default()),
            false => RecentRows::Texts(RecentTexts::default()),
        }
    }

    /// No row has this key any more.
    pub(super) fn forget(&mut self, key: &Key) {
        match self {
            RecentRows::Texts(texts) => {
                texts.note(key, &SourceText::Unread);
            }
            RecentRows::Values(values) => values.forget(key),
        }
    }

    /// Notes what a change shows of a row that has just got its key.
    pub(super) fn note_new(
        &mut self,
        key: &Key,
        source: &SourceText,
        shown: &ShownValues<'_>,
    ) -> Seen {
        match self {
            RecentRows::Texts(texts) => texts.note(key, source),
            RecentRows::Values(values) => {
                values.note_new(key, &shown.values);
                Seen::Unknown
            }
        }
    }

    /// Notes what a change shows of a row that had its key before, and compares it with what the last one has shown.
    pub(super) fn note_update(
        &mut self,
        key: &Key,
        source: &SourceText,
        shown: &ShownValues<'_>,
    ) -> Seen {
        match self {
            RecentRows::Texts(texts) => texts.note(key, source),
            RecentRows::Values(values) => match values.note_update(key, &shown.values) {
                Seen::Same if !shown.are_complete => Seen::Unknown,
                seen => seen,
            },
        }
    }
}
