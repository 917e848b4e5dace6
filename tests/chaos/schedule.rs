//! What happens in one schedule: a table, a workload, and faults at their times. All of it follows from the seed.

use std::fmt;
use std::time::Duration;

use super::dice::Dice;
use super::proxy::{Direction, Kind, Weather};
use super::server::Stop;
use super::shape::Shape;

#[derive(Clone, Debug)]
pub struct Schedule {
    pub seed: u64,
    pub shape: Shape,
    /// Rows that are there before the job is.
    pub rows_before: u64,
    pub clients: u64,
    /// How long the workload runs.
    pub duration: Duration,
    /// In order of time.
    pub faults: Vec<Incident>,
    /// For the clients.
    pub dice: Dice,
    /// The jobs share one slot.
    pub shares_slot: bool,
    /// How many daemons share the jobs.
    pub daemons: usize,
    /// What becomes at the end of the daemon that streams: the others take over.
    pub loss: Option<Loss>,
}

#[derive(Clone, Debug)]
pub struct Incident {
    pub at: Duration,
    /// The number of the daemon that it happens to, where it happens to one.
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

/// One thing that goes wrong, or that a person does at an unlucky moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; the service manager starts the daemon again.
    Kill,
    /// SIGTERM, and a new start when it has ended.
    Terminate,
    /// SIGSTOP, and SIGCONT after a while.
    Freeze(Duration),
    /// SIGKILL; the next daemon kills itself at this place or is held there (see `src/failpoint.rs`).
    Failpoint(String),
    /// All connections of these kinds are cut.
    Cut(Vec<Kind>),
    /// A connection is cut behind this many bytes, which is in the middle of a message.
    CutAfter(Kind, Direction, u32),
    /// The weather over connections of these kinds for a while.
    Network {
        kinds: Vec<Kind>,
        weather: Weather,
        pause: Duration,
        /// The server does not hear of the end of its connections.
        zombies: bool,
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
    /// The job is cancelled, and taken back after a while.
    Cancel(Duration),
    /// The job's row is deleted and inserted again after a while.
    Recreate(Duration),
    /// The job gets the other model.
    ChangeModel,
    /// The job gets another destination.
    ChangeDestination,
}

impl Schedule {
    pub fn roll(seed: u64, knows_vector: bool) -> Self {
        let mut dice = Dice::new(seed);
        // Neighbouring seeds make neighbouring dice.
        let mut dice = dice.fork();
        let shape = Shape::roll(&mut dice, knows_vector);
        let duration = Duration::from_millis(dice.within(1800..3200));
        let daemons = *dice.pick(&[1, 1, 1, 1, 1, 1, 2, 2, 3]);
        let number = dice.within(1..6);
        let mut faults: Vec<Incident> = (0..number)
            .map(|_| {
                let at = Duration::from_millis(dice.below(duration.as_millis() as u64));
                let daemon = dice.below(daemons) as usize;
                let fault = fault(&mut dice);
                let at = match fault {
                    // The next daemon has to come to the place while there are still users.
                    Fault::Failpoint(_) => at / 2,
                    _ => at,
                };
                Incident { at, daemon, fault }
            })
            .collect();
        faults.sort_by_key(|incident| incident.at);
        let losses = [
            None,
            Some(Loss::Killed),
            Some(Loss::Hung),
            Some(Loss::CutOff),
        ];
        let loss = *dice.pick(&losses);
        Self {
            seed,
            shape,
            rows_before: *dice.pick(&[0, 20, 300, 1500]),
            clients: dice.within(2..5),
            duration,
            faults,
            dice: dice.fork(),
            shares_slot: dice.percent(30),
            daemons: daemons as usize,
            loss: loss.filter(|_| daemons > 1),
        }
    }

    /// How many jobs there are.
    pub fn jobs(&self) -> i64 {
        if self.shares_slot || self.daemons > 1 {
            3
        } else {
            1
        }
    }

    pub fn slots(&self) -> i64 {
        if self.shares_slot { 1 } else { self.jobs() }
    }
}

fn fault(dice: &mut Dice) -> Fault {
    let pause = |dice: &mut Dice| Duration::from_millis(dice.within(50..1500));
    match dice.below(30) {
        0..3 => Fault::Kill,
        3 => Fault::Terminate,
        4 => Fault::Freeze(pause(dice)),
        5..10 => Fault::Failpoint(failpoint(dice)),
        10..12 => Fault::Cut(kinds(dice)),
        12..14 => Fault::CutAfter(
            *dice.pick(&[Kind::Replication, Kind::Sql]),
            *dice.pick(&[Direction::ToServer, Direction::ToDaemon]),
            dice.within(1..3000) as u32,
        ),
        14..17 => Fault::Network {
            kinds: kinds(dice),
            weather: *dice.pick(&[
                Weather::Stalled,
                Weather::Silent,
                Weather::Silent,
                Weather::Refusing,
            ]),
            pause: pause(dice),
            zombies: dice.percent(50),
        },
        17 => Fault::Restart(Stop::Fast, pause(dice) / 3),
        18 => Fault::Restart(Stop::Immediate, pause(dice) / 3),
        19 => Fault::TerminateWalsender,
        20 => Fault::TerminateBackends,
        21 => Fault::DropSlot,
        22 => Fault::InvalidateSlot,
        23 => Fault::DropPublication,
        24 => Fault::SecondDaemon(pause(dice)),
        25 => Fault::LongTransaction {
            pause: pause(dice),
            writes: dice.percent(60),
        },
        26 => Fault::Cancel(pause(dice) / 2),
        27 => Fault::Recreate(pause(dice) / 2),
        28 => Fault::ChangeModel,
        _ => Fault::ChangeDestination,
    }
}

fn kinds(dice: &mut Dice) -> Vec<Kind> {
    dice.pick(&[
        vec![Kind::Replication],
        vec![Kind::Sql],
        vec![Kind::Replication, Kind::Sql],
    ])
    .clone()
}

/// One failpoint after some passes through it.
fn failpoint(dice: &mut Dice) -> String {
    let moment = dice.within(100..1500);
    // Longer than any user should wait for the rows of a write-back.
    let long = dice.within(1200..2500);
    let die = || "return".to_owned();
    let choices = [
        ("write-back-before-commit", 30, die()),
        ("write-back-before-commit", 10, format!("return({moment})")),
        ("write-back-before-commit", 10, format!("return({long})")),
        ("write-back-before-commit", 5, format!("return({long})")),
        ("write-back-after-commit", 30, die()),
        ("write-back-after-commit", 30, die()),
        ("status-before", 40, die()),
        ("status-after", 40, die()),
        ("between-publication-and-slot", 1, die()),
        ("slot-created", 1, die()),
        ("within-backfill-page", 400, die()),
        ("embedder", 20, format!("sleep({moment})")),
    ];
    let (name, passes, action) = dice.pick(&choices).clone();
    match dice.below(passes) {
        0 => format!("{name}=1*{action}"),
        after => format!("{name}={after}*off->1*{action}"),
    }
}

impl Schedule {
    /// Whether the daemon may go on for a moment, confirming what it has, before it notices: it looks at the jobs table and at
    /// the publication now and then. In all other schedules a confirmed position means right vectors at once.
    pub fn is_noticed_late(&self) -> bool {
        // Of several jobs one may already stream while another has yet to begin again.
        self.jobs() > 1
            || self.faults.iter().any(|incident| {
                matches!(
                    incident.fault,
                    Fault::DropPublication | Fault::ChangeModel | Fault::ChangeDestination
                )
            })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "schedule {}: {}; {} rows before, {} clients for {} ms; {} jobs, slots: {}; {} daemons",
            self.seed,
            self.shape,
            self.rows_before,
            self.clients,
            self.duration.as_millis(),
            self.jobs(),
            self.slots(),
            self.daemons
        )?;
        for Incident { at, daemon, fault } in &self.faults {
            writeln!(f, "  {:>5} ms  {daemon}: {fault:?}", at.as_millis())?;
        }
        if let Some(loss) = self.loss {
            writeln!(f, "  at the end, the daemon that streams: {loss:?}")?;
        }
        Ok(())
    }
}
