//! Texts that are longer than the model's window: their vectors are of their beginnings alone, and do not show it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::embedding::Model;
use crate::pipeline::table::target::TargetTable;
use crate::plural::form;
use crate::status::JobCounters;

/// How often a job says that texts are cut: a table of long texts cuts each of them.
const REPORT_INTERVAL: Duration = Duration::from_secs(3600);

const REMEDY: &str = "divide long texts into rows of their own, use a model with a larger window, or average windows \
                      (\"long_text\": \"mean\" in runtime_params)";
const REMEDY_ELSEWHERE: &str =
    "divide long texts into rows of their own, or use a model with a larger window";
/// Passages fit the window by themselves. What fills it are the fields in the template.
const REMEDY_OF_PASSAGES: &str = "set chunk_tokens in runtime_params to fewer tokens, so that the fields of the template have room, too";

/// Counts the texts of a job that were cut, and says so now and then.
pub struct TruncatedTexts {
    /// What they are too long for.
    window: String,
    /// What to do about it.
    remedy: &'static str,
    counters: Arc<JobCounters>,
    /// When the next report is due: at once for the first text.
    due: Option<Instant>,
}

impl TruncatedTexts {
    /// Of a job with this model and target, which counts them here.
    pub fn of_job(model: &Model, target: &TargetTable, counters: Arc<JobCounters>) -> Self {
        let has_fields = target.source.template.is_some();
        TruncatedTexts {
            window: model.window(),
            remedy: match model.max_text_tokens() {
                _ if target.passages.is_some() && has_fields => REMEDY_OF_PASSAGES,
                Some(_) => REMEDY,
                None => REMEDY_ELSEWHERE,
            },
            counters,
            due: None,
        }
    }

    /// A text of `table` was cut.
    pub fn note(&mut self, table: &str) {
        self.counters.texts_truncated.add(1);
        if !self.is_due(Instant::now()) {
            return;
        }
        let cut = self.counters.texts_truncated.get();
        tracing::warn!(
            "{} {} longer than {}: what is beyond does not \
             count; {}",
            cut,
            form(
                cut,
                &format!("text of {table} so far is"),
                &format!("texts of {table} so far are")
            ),
            self.window,
            self.remedy
        );
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_none_or(|due| now >= due);
        if is_due {
            self.due = Some(now + REPORT_INTERVAL);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_due_at_once_and_then_each_hour() {
        let mut texts = TruncatedTexts {
            window: "8 tokens".into(),
            remedy: REMEDY,
            counters: Arc::default(),
            due: None,
        };
        let begin = Instant::now();
        let minutes =
            (0..125).filter(|minute| texts.is_due(begin + Duration::from_secs(minute * 60)));
        assert_eq!(minutes.collect::<Vec<u64>>(), [0, 60, 120]);
    }
}
