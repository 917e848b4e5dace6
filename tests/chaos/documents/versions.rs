//! The versions that a row had, and which of them the passages of its key show.

use super::cutting::{Content, Judge, Passage};

/// A statement may begin so long before it reads, in seconds.
const MAX_DELAY: f64 = 0.05;

/// A key, with the versions of its row in order.
pub struct Versions {
    all: Vec<Version>,
    /// Which of them its passages showed last: they never show an older one again.
    shown: usize,
}

struct Version {
    /// The transaction that made it.
    xid: String,
    /// `None` where no passages are due: there is no row, or it has no text.
    content: Option<Content>,
    /// From when on each statement sees it, or a later one: seconds of the server's clock.
    seen: f64,
}

impl Default for Versions {
    /// At first there is no row.
    fn default() -> Self {
        let absent = Version {
            xid: String::new(),
            content: None,
            seen: 0.0,
        };
        Versions {
            all: vec![absent],
            shown: 0,
        }
    }
}

impl Versions {
    /// Notes the next version. Of those of one transaction, others see the last one alone.
    pub fn push(&mut self, xid: &str, content: Option<Content>, seen: f64) {
        let version = Version {
            xid: xid.to_owned(),
            content,
            seen,
        };
        match self.all.last_mut() {
            Some(last) if last.xid == xid => *last = version,
            _ => self.all.push(version),
        }
    }

    /// Older versions may be shown again, and none: the table for passages is another one.
    pub fn forget_shown(&mut self) {
        self.shown = 0;
    }

    /// Looks for the version that these passages show, no older than the one before. A statement that began at `written`
    /// has written them, so they are of a version that it could see.
    ///
    /// # Errors
    /// What they show instead.
    pub fn show(
        &mut self,
        judges: &mut [Judge],
        found: &[Passage],
        written: Option<f64>,
    ) -> Result<(), String> {
        let later = self.shown..self.all.len();
        let mut shown = later.clone().filter(|at| self.is(*at, judges, found));
        let is_fresh = |at: &usize| match (self.all.get(at + 1), written) {
            (Some(next), Some(written)) => written < next.seen + MAX_DELAY,
            _ => true,
        };
        let first = shown.next();
        let fresh = first.filter(is_fresh).or_else(|| shown.find(is_fresh));
        if let Some(at) = fresh {
            self.shown = at;
            return Ok(());
        }
        if let Some(at) = first {
            self.shown = at;
            return Err(format!(
                "those of version {at}, written {:.3} s after the next one could be seen: {}",
                written.unwrap_or_default() - self.all[at + 1].seen,
                shorten(found)
            ));
        }
        let older = (0..self.shown).rev().find(|at| self.is(*at, judges, found));
        let what = match (older, found.is_empty()) {
            (_, true) => "none, although it has had a text all the time".to_owned(),
            (Some(older), _) => format!("those of the older version {older}"),
            (None, _) => format!("those of no version: {}", shorten(found)),
        };
        let versions = later.map(|at| shorten_version(&self.all[at]));
        let versions: Vec<String> = versions.take(4).collect();
        let error = format!(
            "{what}; versions from {} on: {}",
            self.shown,
            versions.join(" | ")
        );
        // Each fault is reported once.
        self.shown = older.unwrap_or(self.shown);
        Err(error)
    }

    fn is(&self, at: usize, judges: &mut [Judge], found: &[Passage]) -> bool {
        match &self.all[at].content {
            None => found.is_empty(),
            Some(_) if found.is_empty() => false,
            Some(content) => judges.iter_mut().any(|judge| judge.accepts(content, found)),
        }
    }
}

fn shorten(passages: &[Passage]) -> String {
    let shown = passages.iter().map(|passage| {
        let chunk: String = passage.chunk.chars().take(24).collect();
        format!("{}..{} {chunk:?}", passage.start, passage.end)
    });
    let mut shown: Vec<String> = shown.take(6).collect();
    if shown.len() < passages.len() {
        shown.push(format!("… {} in all", passages.len()));
    }
    shown.join(", ")
}

fn shorten_version(version: &Version) -> String {
    match &version.content {
        None => "none".to_owned(),
        Some(Content { body, other }) => {
            let begin: String = body.chars().take(60).collect();
            format!("{} characters {begin:?} {other:?}", body.chars().count())
        }
    }
}
