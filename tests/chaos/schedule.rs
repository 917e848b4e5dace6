//! What happens in one schedule: a table, a workload, and faults at their times. All of it follows from the seed.

use std::fmt;
use std::time::Duration;

use testkit::random::Random;
use testkit::restartable::Stop;

use super::documents::Documents;
use super::documents::quiet_rows::QuietRows;
use super::engine::{self, EngineIncident};
use super::proxy::{Condition, Direction, Kind};
use super::role::Refusal;
use super::shape::{Shape, Triggers};

/// Documents that exist before the job, at most: each is several passages.
const MAX_DOCUMENTS_BEFORE: u64 = 300;

#[derive(Clone, Debug)]
pub struct Schedule {
    pub seed: u64,
    pub shape: Shape,
    /// Rows that exist before the job.
    pub rows_before: u64,
    pub clients: u64,
    /// How long the workload runs.
    pub duration: Duration,
    /// In order of time.
    pub faults: Vec<Incident>,
    /// For the clients.
    pub random: Random,
    /// The jobs' role owns their tables and is not a superuser.
    pub has_role: bool,
    /// The jobs share one slot.
    pub shares_slot: bool,
    /// How many daemons share the jobs.
    pub daemons: usize,
    /// How the daemon that streams is lost at the end, so that the others take over.
    pub loss: Option<Loss>,
    /// What happens to the servers that compute the vectors, where it is not the daemon.
    pub engine: Option<Vec<EngineIncident>>,
    /// The first job cuts documents, where it has a table for passages.
    pub documents: Option<Documents>,
}

#[derive(Clone, Debug)]
pub struct Incident {
    pub at: Duration,
    /// The number of the daemon that it strikes, where it strikes one.
    pub daemon: usize,
    pub fault: Fault,
}

/// How a daemon is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    Killed,
    Hung,
    CutOff,
}

/// One thing that goes wrong, or that an operator does at an unlucky moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; the service manager starts the daemon again.
    Kill,
    /// SIGTERM, and a new start when it has ended.
    Terminate,
    /// SIGSTOP, and SIGCONT after a while.
    Freeze(Duration),
    /// SIGKILL; the next daemon kills itself at this failpoint or is delayed there (see `src/failpoint.rs`).
    Failpoint(String),
    /// All connections of these kinds are cut.
    Cut(Vec<Kind>),
    /// A connection is cut after this many bytes, in the middle of a message.
    CutAfter(Kind, Direction, u32),
    /// A condition of the network for connections of these kinds, for a while.
    Network {
        kinds: Vec<Kind>,
        condition: Condition,
        pause: Duration,
        /// The server does not learn of the end of its connections.
        half_open: bool,
    },
    /// The server stops, and starts again after a while.
    Restart(Stop, Duration),
    /// `pg_terminate_backend` on the daemon's walsenders.
    TerminateWalsender,
    /// `pg_terminate_backend` on the daemon's SQL sessions.
    TerminateBackends,
    DropSlot,
    /// By `max_slot_wal_keep_size`.
    InvalidateSlot,
    DropPublication,
    /// Another daemon on the same jobs table, killed after a while.
    SecondDaemon(Duration),
    /// A user's transaction stays open; with a change of its own, slots cannot be created meanwhile.
    LongTransaction {
        pause: Duration,
        writes: bool,
    },
    /// The job is canceled, and resumed after a while.
    Cancel(Duration),
    /// The job's row is deleted and inserted again after a while.
    Recreate(Duration),
    /// The job gets the other model.
    ChangeModel,
    /// The job gets another destination.
    ChangeDestination,
    /// The job's table, or a partition of it, is replaced by a copy of it.
    SwapTable {
        keeps_old: bool,
    },
    /// Commits of users wait for a standby that is away: they are streamed, and not visible.
    InvisibleCommits(Duration),
    /// Row level security hides the rows from the job's role for a while.
    HideRows(Duration),
    /// The server does not let the job's role in for a while. Sessions of the role go on, or end.
    RefuseRole {
        refusal: Refusal,
        pause: Duration,
        ends_sessions: bool,
    },
    /// The server is cloned, jobs table and slots and all, and a daemon runs on the clone for a while.
    Clone(Duration),
    /// A long document is written; SIGKILL; the next daemon kills itself after so many batches of texts.
    KillInDocument(u64),
    /// The job cuts documents in another way.
    ChangeCutting,
    /// The table for passages is dropped.
    DropPassages,
    /// An operator runs `resync` beside the daemons.
    Resync {
        all: bool,
    },
    /// `resync` is held within its write while a daemon comes to write the same documents, perhaps after another edit.
    HeldWrite {
        all: bool,
        edits_again: bool,
    },
    /// Documents change between the reading and the write of their passages. The daemon does not hear of it: its stream is
    /// held back, or it is killed.
    UnseenEdit {
        kills: bool,
    },
    /// Documents change while the answer to the write of their passages is on its way.
    LateAnswer,
}

impl Schedule {
    pub fn from_seed(seed: u64, has_vector: bool) -> Self {
        let mut random = Random::new(seed);
        // The first number mixes the bits of neighboring seeds.
        let mut random = random.fork();
        let shape = Shape::random(&mut random, has_vector);
        let duration = Duration::from_millis(random.within(1800..3200));
        let daemons = *random.pick(&[1, 1, 1, 1, 1, 1, 2, 2, 3]);
        let has_role = random.percent(40);
        let number = random.within(1..6);
        let mut faults: Vec<Incident> = (0..number)
            .map(|_| {
                let at = Duration::from_millis(random.below(duration.as_millis() as u64));
                let daemon = random.below(daemons) as usize;
                let fault = fault(&mut random, has_role);
                let at = match fault {
                    // The next daemon has to reach the failpoint while there are still users.
                    Fault::Failpoint(_) => at / 2,
                    _ => at,
                };
                Incident { at, daemon, fault }
            })
            .collect();
        // Some databases are far away.
        if random.percent(15) {
            let kilobits = *random.pick(&[1_000, 4_000, 10_000]);
            faults.extend((0..daemons as usize).map(|daemon| Incident {
                at: Duration::ZERO,
                daemon,
                fault: Fault::Network {
                    kinds: vec![Kind::Replication, Kind::Sql],
                    condition: Condition::Slow(kilobits),
                    pause: duration,
                    half_open: false,
                },
            }));
        }
        faults.sort_by_key(|incident| incident.at);
        let losses = [
            None,
            Some(Loss::Killed),
            Some(Loss::Hung),
            Some(Loss::CutOff),
        ];
        let loss = *random.pick(&losses);
        let schedule = Self {
            engine: engine::schedule(seed, duration),
            documents: None,
            seed,
            shape,
            rows_before: *random.pick(&[0, 20, 300, 1500]),
            clients: random.within(2..5),
            duration,
            faults,
            random: random.fork(),
            has_role,
            shares_slot: random.percent(30),
            daemons: daemons as usize,
            loss: loss.filter(|_| daemons > 1),
        };
        schedule.with_documents()
    }

    /// Some schedules have documents instead of the texts of the first job.
    fn with_documents(mut self) -> Self {
        let drawn = Documents::schedule(&self);
        if let Some((documents, faults)) = drawn {
            self.documents = Some(documents);
            self.shape.fingerprint = false;
            self.rows_before = self.rows_before.min(MAX_DOCUMENTS_BEFORE);
            self.faults.extend(faults);
            self.faults.sort_by_key(|incident| incident.at);
        }
        self
    }

    /// The documents that faults alone change, by the numbers of the faults, and those that change when all is over.
    pub fn quiet_rows(&self) -> impl Iterator<Item = QuietRows> {
        (0..=self.faults.len()).map(QuietRows::of_fault)
    }

    /// The documents that change when all faults are over.
    pub fn quiet_rows_at_rest(&self) -> QuietRows {
        QuietRows::of_fault(self.faults.len())
    }

    /// How many jobs there are.
    pub fn jobs(&self) -> usize {
        if self.shares_slot || self.daemons > 1 {
            3
        } else {
            1
        }
    }

    /// A job with a table for passages has a slot of its own.
    pub fn slots(&self) -> usize {
        match (self.shares_slot, &self.documents) {
            (true, None) => 1,
            (true, Some(_)) => 2,
            (false, _) => self.jobs(),
        }
    }
}

fn fault(random: &mut Random, has_role: bool) -> Fault {
    let pause = |random: &mut Random| Duration::from_millis(random.within(50..1500));
    match random.below(37) {
        0..3 => Fault::Kill,
        3 => Fault::Terminate,
        4 => Fault::Freeze(pause(random)),
        5..10 => Fault::Failpoint(failpoint(random)),
        10..12 => Fault::Cut(kinds(random)),
        12..14 => Fault::CutAfter(
            *random.pick(&[Kind::Replication, Kind::Sql]),
            *random.pick(&[Direction::ToServer, Direction::ToDaemon]),
            random.within(1..3000) as u32,
        ),
        14..17 => Fault::Network {
            kinds: kinds(random),
            condition: *random.pick(&[
                Condition::Stalled,
                Condition::Dropping,
                Condition::Dropping,
                Condition::Refusing,
                Condition::Slow(500),
                Condition::Slow(4_000),
            ]),
            pause: pause(random),
            half_open: random.percent(50),
        },
        17 => Fault::Restart(Stop::Fast, pause(random) / 3),
        18 => Fault::Restart(Stop::Immediate, pause(random) / 3),
        19 => Fault::TerminateWalsender,
        20 => Fault::TerminateBackends,
        21 => Fault::DropSlot,
        22 => Fault::InvalidateSlot,
        23 => Fault::DropPublication,
        24 => Fault::SecondDaemon(pause(random)),
        25 => Fault::LongTransaction {
            pause: pause(random),
            writes: random.percent(60),
        },
        26 => Fault::Cancel(pause(random) / 2),
        27 => Fault::Recreate(pause(random) / 2),
        28 => Fault::ChangeModel,
        29 => Fault::ChangeDestination,
        30 | 31 => Fault::SwapTable {
            keeps_old: random.percent(50),
        },
        32 => Fault::Clone(pause(random) * 2),
        33 if has_role => Fault::HideRows(pause(random)),
        34.. if has_role => Fault::RefuseRole {
            refusal: *random.pick(&[Refusal::Password, Refusal::NoLogin, Refusal::NoConnect]),
            pause: pause(random),
            ends_sessions: random.percent(50),
        },
        _ => Fault::TerminateBackends,
    }
}

fn kinds(random: &mut Random) -> Vec<Kind> {
    random
        .pick(&[
            vec![Kind::Replication],
            vec![Kind::Sql],
            vec![Kind::Replication, Kind::Sql],
        ])
        .clone()
}

/// A failpoint that acts once, after some passes through it.
fn failpoint(random: &mut Random) -> String {
    let moment = random.within(100..1500);
    // Longer than users may wait for the rows of a write-back.
    let long = random.within(1200..2500);
    let die = || "return".to_owned();
    let choices = [
        ("write-back-sent", 30, die()),
        ("write-back-sent", 10, format!("return({moment})")),
        ("write-back-sent", 10, format!("return({long})")),
        ("write-back-sent", 5, format!("return({long})")),
        ("write-back-after-commit", 30, die()),
        ("write-back-after-commit", 30, die()),
        ("status-before", 40, die()),
        ("status-after", 40, die()),
        ("between-publication-and-slot", 1, die()),
        ("slot-created", 1, die()),
        ("within-backfill-page", 400, die()),
        ("embedder", 20, format!("sleep({moment})")),
    ];
    let (name, passes, action) = random.pick(&choices).clone();
    match random.below(passes) {
        0 => format!("{name}=1*{action}"),
        after => format!("{name}={after}*off->1*{action}"),
    }
}

impl Schedule {
    /// Whether the daemon may confirm positions for a moment before it notices a fault, because it polls the jobs table
    /// and the publication. In all other schedules a confirmed position means right vectors at once.
    pub fn is_noticed_late(&self) -> bool {
        // Of several jobs one may already stream while another has yet to restart. A text that a write-back has cleaned up
        // is a change of its own, which comes later.
        self.jobs() > 1
            || self.shape.triggers == Triggers::Clean
            || self.faults.iter().any(|incident| {
                matches!(
                    incident.fault,
                    Fault::DropPublication
                        | Fault::ChangeModel
                        | Fault::ChangeDestination
                        | Fault::SwapTable { .. }
                        | Fault::HideRows(_)
                        | Fault::ChangeCutting
                        | Fault::DropPassages
                )
            })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "schedule {}: {}; {} rows before, {} clients for {} ms; {} jobs{}, slots: {}; {} daemons{}",
            self.seed,
            self.shape,
            self.rows_before,
            self.clients,
            self.duration.as_millis(),
            self.jobs(),
            if self.has_role {
                " of the tables' owner"
            } else {
                ""
            },
            self.slots(),
            self.daemons,
            match self.engine {
                Some(_) => "; vectors come from two servers",
                None => "",
            }
        )?;
        if let Some(documents) = &self.documents {
            writeln!(f, "  {documents}")?;
        }
        for Incident { at, daemon, fault } in &self.faults {
            writeln!(f, "  {:>5} ms  {daemon}: {fault:?}", at.as_millis())?;
        }
        for EngineIncident { at, server, fault } in self.engine.iter().flatten() {
            writeln!(f, "  {:>5} ms  engine {server}: {fault:?}", at.as_millis())?;
        }
        if let Some(loss) = self.loss {
            writeln!(f, "  at the end, the daemon that streams: {loss:?}")?;
        }
        Ok(())
    }
}
