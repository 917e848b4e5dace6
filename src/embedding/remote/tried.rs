//! What a request has been through: which servers are left, and whether the texts may be the cause of its failures.

use std::time::{Duration, Instant};

use super::error::{RemoteError, RemoteFailure};
use super::exchange::Failed;
use super::fleet::Fleet;
use super::options::RemoteOptions;
use super::verdict::Verdict;
use crate::backoff::Backoff;

/// Failures after which the texts may be the cause.
const MAX_SUSPICIONS: u32 = 3;

/// Why a request has no answer.
pub(super) enum Trouble {
    /// No server of the fleet can answer it.
    Fleet(RemoteError),
    /// The texts may be the cause.
    Texts {
        server: usize,
        verdict: Verdict,
        error: RemoteError,
    },
}

/// The servers that a request has been sent to in vain.
pub(super) struct Tried<'a> {
    fleet: &'a Fleet,
    options: &'a RemoteOptions,
    /// Those that do not have the model.
    unfit: Vec<usize>,
    /// Those that failed in this round.
    failed: Vec<usize>,
    suspicions: u32,
    backoff: Backoff,
    /// Whether the next attempt repeats one at the same server.
    pub needs_permit: bool,
    pub last: Option<RemoteError>,
}

impl<'a> Tried<'a> {
    pub(super) fn new(fleet: &'a Fleet, options: &'a RemoteOptions) -> Self {
        let unfit = fleet.memory.unfit(options, Instant::now());
        // If no server has the model, one is asked whether that is still so.
        let unfit = if unfit.len() < fleet.endpoints.len() {
            unfit
        } else {
            Vec::new()
        };
        Self {
            fleet,
            options,
            unfit,
            failed: Vec::new(),
            suspicions: 0,
            backoff: Backoff::new(fleet.patience.first_pause, fleet.patience.max_pause),
            needs_permit: false,
            last: None,
        }
    }

    /// The servers that are not asked now.
    pub(super) fn except(&self) -> Vec<usize> {
        self.unfit.iter().chain(&self.failed).copied().collect()
    }

    /// Decides what a failure means: a pause before the next attempt, if it needs one.
    pub(super) fn note(
        &mut self,
        failed: Failed,
        texts: usize,
    ) -> Result<Option<Duration>, Trouble> {
        let Failed {
            server,
            verdict,
            error,
        } = failed;
        match verdict {
            Verdict::TooLong | Verdict::Refused => {
                return Err(Trouble::Texts {
                    server,
                    verdict,
                    error,
                });
            }
            Verdict::Unfit => {
                self.fleet.memory.learn_unfit(self.options, server);
                self.unfit.push(server);
                if self.unfit.len() >= self.fleet.endpoints.len() {
                    return Err(Trouble::Fleet(error));
                }
            }
            // Its pause is kept by the turns.
            Verdict::Throttled => {
                self.needs_permit = true;
                self.last = Some(error);
                return Ok(Some(Duration::ZERO));
            }
            Verdict::Passing => {
                if may_be_the_texts(&error.failure, texts) {
                    self.suspicions += 1;
                    if self.suspicions >= MAX_SUSPICIONS {
                        return Err(Trouble::Texts {
                            server,
                            verdict,
                            error,
                        });
                    }
                }
                self.failed.push(server);
                self.last = Some(error);
            }
        }
        if self.except().len() < self.fleet.endpoints.len() {
            return Ok(None);
        }
        self.failed.clear();
        self.needs_permit = true;
        Ok(Some(self.backoff.next_pause()))
    }
}

/// Whether the texts may be the cause of a failure that looks like one of the server.
fn may_be_the_texts(failure: &RemoteFailure, texts: usize) -> bool {
    match failure {
        RemoteFailure::Server { status, .. } => *status == 500,
        RemoteFailure::Garbled { .. } | RemoteFailure::Vector { .. } => true,
        // A smaller batch may be in time.
        RemoteFailure::Timeout { .. } => texts > 1,
        _ => false,
    }
}
