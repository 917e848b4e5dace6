//! The lines of the log: one for each event, with its subject (the job or the slot that it is about) in one place.
//!
//! ```text
//! 2026-01-31T12:00:00.000000Z  INFO job=7: streaming from 0/1567F28
//! {"timestamp":"2026-01-31T12:00:00.000000Z","level":"INFO","job":"7","message":"streaming from 0/1567F28"}
//! warning: the password file /home/me/.pgpass is not used
//! ```
//!
//! Code that works for one job runs in a span with the field `job`; the supervisor, which works for all, names it in
//! the event. A reader of the log need not know the difference.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::json;
use crate::shown;

/// Fields of an event that name its subject, as those of spans do.
const SUBJECTS: [&str; 2] = ["job", "slot"];

/// How lines look. The fields of spans must be formatted as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLine {
    /// For people, plain.
    Plain,
    /// For people, on a terminal.
    Colored,
    /// An object, for log collectors.
    Json,
    /// What a command says beside its result.
    Command,
}

impl<S, N> FormatEvent<S, N> for LogLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut parts = Parts {
            level: *event.metadata().level(),
            ..Parts::default()
        };
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            let fields = fields.and_then(|fields| serde_json::from_str::<Map<_, _>>(fields).ok());
            for (name, value) in fields.unwrap_or_default() {
                parts.set_subject(&name, value);
            }
        }
        event.record(&mut parts);
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        match self {
            LogLine::Plain => writeln!(writer, "{timestamp} {:>5} {}", parts.level, parts.text()),
            LogLine::Colored => writeln!(
                writer,
                "\x1b[2m{timestamp}\x1b[0m \x1b[{}m{:>5}\x1b[0m {}",
                color(parts.level),
                parts.level,
                parts.text()
            ),
            LogLine::Json => writeln!(writer, "{}", parts.json(&timestamp)),
            LogLine::Command => writeln!(writer, "{}: {}", kind(parts.level), parts.text()),
        }
    }
}

/// The parts of a line.
struct Parts {
    level: Level,
    /// What the event is about.
    subject: Vec<(String, Value)>,
    message: String,
    fields: Vec<(String, Value)>,
}

impl Default for Parts {
    fn default() -> Self {
        Parts {
            level: Level::INFO,
            subject: Vec::new(),
            message: String::new(),
            fields: Vec::new(),
        }
    }
}

impl Parts {
    fn set_subject(&mut self, name: &str, value: Value) {
        self.subject.retain(|(other, _)| other != name);
        self.subject.push((name.to_owned(), value));
    }

    fn set(&mut self, field: &Field, value: Value) {
        let name = field.name();
        if name == "message" {
            self.message = plain(&value);
        } else if SUBJECTS.contains(&name) {
            self.set_subject(name, value);
        } else if !name.starts_with("log.") {
            // What the bridge from the `log` crate adds is about the library's code.
            self.fields.push((name.to_owned(), value));
        }
    }

    /// `job=7: message field=value`, on one line: texts of servers and users are in it.
    fn text(&self) -> String {
        let mut text = String::new();
        let pairs = |pairs: &[(String, Value)]| -> Vec<String> {
            let pair =
                |(name, value): &(String, Value)| format!("{name}={}", shown::shown(&plain(value)));
            pairs.iter().map(pair).collect()
        };
        if !self.subject.is_empty() {
            text += &format!("{}: ", pairs(&self.subject).join(" "));
        }
        let rest = [vec![shown::shown(&self.message)], pairs(&self.fields)].concat();
        text += &rest.join(" ");
        text
    }

    /// The format escapes what would end the line.
    fn json(&self, timestamp: &str) -> String {
        let string = |text: &str| Value::from(shown::shortened(text));
        let head = [
            ("timestamp".to_owned(), string(timestamp)),
            ("level".to_owned(), string(self.level.as_str())),
        ];
        let message = [("message".to_owned(), string(&self.message))];
        let members = head.iter().chain(&self.subject).chain(&message);
        let members: Vec<String> = members
            .chain(&self.fields)
            .map(|(name, value)| {
                let value = value.as_str().map_or_else(|| value.clone(), string);
                format!("{}:{value}", string(name))
            })
            .collect();
        json::safe(&format!("{{{}}}", members.join(",")))
    }
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
}

/// A value as text: strings without quotes.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The color of a level, as a parameter of SGR (ECMA-48).
fn color(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

fn kind(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        _ => "note",
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::fmt::format::JsonFields;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Buffer {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// The lines of the events that `log` logs, without their timestamps.
    fn lines(format: LogLine, log: impl FnOnce()) -> Vec<String> {
        let buffer = Buffer::default();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(format)
            .with_writer(buffer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = buffer.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        let line = |line: &str| match line.split_once('Z') {
            Some((_, rest)) => rest.to_owned(),
            None => line.to_owned(),
        };
        text.lines().map(line).collect()
    }

    fn about_job_seven() {
        tracing::info_span!("job", job = %7).in_scope(|| tracing::info!(rows = 3, "in the span"));
        tracing::info!(job = %7, "in the event");
        tracing::info_span!("job", job = %7).in_scope(|| tracing::info!(job = %8, "in both"));
        tracing::info!("of no job");
    }

    #[test]
    fn the_job_is_in_one_place_wherever_the_code_names_it() {
        assert_eq!(
            lines(LogLine::Plain, about_job_seven),
            [
                "  INFO job=7: in the span rows=3",
                "  INFO job=7: in the event",
                "  INFO job=8: in both",
                "  INFO of no job",
            ]
        );
        let tail = |rest: &str| format!("\",\"level\":\"INFO\",{rest}}}");
        assert_eq!(
            lines(LogLine::Json, about_job_seven),
            [
                tail(r#""job":"7","message":"in the span","rows":3"#),
                tail(r#""job":"7","message":"in the event""#),
                tail(r#""job":"8","message":"in both""#),
                tail(r#""message":"of no job""#),
            ]
        );
    }

    #[test]
    fn a_text_with_control_characters_stays_on_its_line() {
        let log = || tracing::warn!(key = "a\tb", "two\nlines and \x1b[31mred");
        assert_eq!(
            lines(LogLine::Command, log),
            [r"warning: two\nlines and \u{1b}[31mred key=a\tb"]
        );
        let json = lines(LogLine::Json, log).remove(0);
        assert!(
            json.contains(r#""message":"two\nlines and \u001b[31mred""#),
            "{json}"
        );
    }

    #[test]
    fn only_colored_lines_have_colors() {
        let log = || tracing::error!("red");
        let colored = lines(LogLine::Colored, log).remove(0);
        assert!(colored.contains("\x1b[31mERROR\x1b[0m red"), "{colored}");
        assert_eq!(lines(LogLine::Plain, log), [" ERROR red"]);
    }
}
