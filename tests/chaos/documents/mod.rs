//! Documents in chunks: in some schedules the first job has a table for passages.
//!
//! ```text
//!  edits, texts ──▶ notes ──▶ daemon ──▶ table of passages ──▶ reader ──▶ versions: which text does each document show?
//!                     │ trigger                                              ▲   │
//!                     └──▶ history ──────────────────────────────────────────┘   ▼
//!                                       cutting: the passages that a text must have, cut and embedded by the judge
//! ```

pub mod cutting;
pub mod edits;
pub mod held_write;
pub mod late_answer;
mod passages_lock;
pub mod quiet_rows;
pub mod reader;
pub mod readiness;
pub mod resync;
pub mod tables;
pub mod texts;
pub mod unseen_edit;
pub mod versions;

use std::fmt;
use std::time::Duration;

use testkit::random::Random;

use super::schedule::{Fault, Incident, Schedule};
use cutting::Cutting;

/// Tells the numbers of a schedule's documents from those of its other parts, which so stay what they were.
const APART: u64 = 0x000d_0c5d_0c5d;

/// How many of a hundred schedules have documents.
const SHARE: u64 = 35;

/// What a schedule's job does with documents.
#[derive(Clone, Debug)]
pub struct Documents {
    pub table: PassageTableName,
    pub cutting: Cutting,
    /// How documents are cut once [`Fault::ChangeCutting`] has struck.
    pub other_cutting: Cutting,
    /// The users have created the table for passages.
    pub exists_before: bool,
    /// Users and faults begin when existing rows have their passages. Otherwise, on a busy machine, the job begins when the
    /// users have stopped, and its first scan does all the work.
    pub waits_for_job: bool,
    /// Users truncate the table. That mends, or hides, nearly all that faults have done before.
    pub users_truncate: bool,
}

/// The name of a table for passages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassageTableName {
    /// As the jobs row has it.
    pub written: &'static str,
    /// Quoted, with its schema.
    pub qualified: &'static str,
    /// The view of documents, quoted, with its schema.
    pub view: &'static str,
}

/// The names that a job begins with.
const NAMES: [PassageTableName; 3] = [
    PassageTableName {
        written: "notes_chunks",
        qualified: "public.notes_chunks",
        view: "public.notes_chunks_documents",
    },
    PassageTableName {
        written: "search.notes_chunks",
        qualified: "search.notes_chunks",
        view: "search.notes_chunks_documents",
    },
    PassageTableName {
        written: r#"search."the ""passages"" of notes""#,
        qualified: r#"search."the ""passages"" of notes""#,
        view: r#"search."the ""passages"" of notes_documents""#,
    },
];

/// The table that a job gets whose destination changes.
pub const OTHER_TABLE: PassageTableName = PassageTableName {
    written: "search.others",
    qualified: "search.others",
    view: "search.others_documents",
};

impl PassageTableName {
    /// The table with this name in a jobs row.
    pub fn from_row(written: &str) -> Option<Self> {
        let mut names = NAMES.into_iter().chain([OTHER_TABLE]);
        names.find(|name| name.written == written)
    }
}

impl Documents {
    /// The documents of the schedule with this seed, and the faults that are about them; `None` where the job has no table
    /// for passages.
    pub fn schedule(schedule: &Schedule) -> Option<(Documents, Vec<Incident>)> {
        let Schedule {
            shape, duration, ..
        } = schedule;
        let mut random = Random::new(schedule.seed ^ APART).fork();
        if !random.percent(SHARE) {
            return None;
        }
        let table = *random.pick(&NAMES);
        let cutting = Cutting::random(&mut random);
        let documents = Documents {
            table,
            other_cutting: cutting.changed(&mut random),
            cutting,
            // The trigger that rejects passages has to be there before them.
            exists_before: random.percent(60) || shape.rejects,
            waits_for_job: random.percent(75),
            users_truncate: random.percent(40),
        };
        let incidents = (0..random.within(2..5)).map(|_| {
            let at = Duration::from_millis(random.below(duration.as_millis() as u64 * 2 / 3));
            Incident {
                at,
                daemon: random.below(schedule.daemons as u64) as usize,
                fault: fault(&mut random, schedule.has_role),
            }
        });
        let incidents = incidents.collect();
        Some((documents, incidents))
    }

    /// The ways in which documents may be cut during the schedule.
    pub fn cuttings(&self) -> [&Cutting; 2] {
        [&self.cutting, &self.other_cutting]
    }

    /// The tables that may have passages during the schedule.
    pub fn tables(&self) -> [PassageTableName; 2] {
        [self.table, OTHER_TABLE]
    }
}

fn fault(random: &mut Random, has_role: bool) -> Fault {
    let pause = |random: &mut Random| Duration::from_millis(random.within(100..700));
    let held_write = |random: &mut Random| Fault::HeldWrite {
        all: random.percent(25),
        edits_again: random.percent(50),
    };
    match random.below(40) {
        0..4 => Fault::KillInDocument(random.below(12)),
        4..9 => Fault::Failpoint(failpoint(random)),
        9..11 => Fault::Resync {
            all: random.percent(50),
        },
        11 | 12 => Fault::ChangeCutting,
        13 => Fault::DropPassages,
        14 => Fault::DropSlot,
        15 => Fault::Restart(
            testkit::restartable::Stop::Immediate,
            Duration::from_millis(random.within(20..300)),
        ),
        16..20 => Fault::UnseenEdit {
            kills: random.percent(30),
        },
        20..26 => Fault::LateAnswer,
        26..30 => Fault::InvisibleCommits(pause(random)),
        30..35 if has_role => Fault::HideRows(pause(random)),
        _ => held_write(random),
    }
}

/// A failpoint of the way of documents, at which the daemon dies or is delayed after some passes.
fn failpoint(random: &mut Random) -> String {
    let moment = random.within(50..1500);
    let die = || "1*return".to_owned();
    let choices = [
        ("documents-read", 30, die()),
        ("documents-read", 10, format!("1*sleep({})", moment / 5)),
        ("documents-cut", 60, die()),
        ("documents-embedded", 60, die()),
        ("embedder", 20, die()),
        ("write-back-sent", 30, die()),
        ("write-back-sent", 20, format!("1*return({moment})")),
        // Newer changes of the documents come before the answers.
        ("write-back-sent", 20, format!("8*return({})", moment / 5)),
        ("write-back-after-commit", 30, die()),
        ("write-back-after-commit", 10, die()),
        ("orphans-read", 3, die()),
        ("within-backfill-page", 100, die()),
        ("chunk-table-created", 1, die()),
    ];
    let (name, passes, action) = random.pick(&choices).clone();
    match random.below(passes) {
        0 => format!("{name}={action}"),
        after => format!("{name}={after}*off->{action}"),
    }
}

impl fmt::Display for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "documents in {}{}{}{}, cut as {}, later perhaps as {}",
            self.table.written,
            match self.exists_before {
                true => " (there before)",
                false => "",
            },
            match self.waits_for_job {
                true => ", and the job before its users",
                false => "",
            },
            match self.users_truncate {
                true => ", truncated",
                false => "",
            },
            self.cutting.params(),
            self.other_cutting.params(),
        )
    }
}
