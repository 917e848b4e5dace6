//! How many sessions of a model there are on a provider, and how many threads each has.

use super::choice::ExecutionProvider;

/// The most threads that a run is divided among. The steps of a text are short, and more threads wait for each other more
/// than they compute.
const MAX_THREADS_OF_RUN: usize = 4;
/// The most sessions on the processor of a provider whose runs take turns: each costs 1.2 times the model's size.
const MAX_PROCESSOR_SESSIONS: usize = 4;
/// Sessions on a device: while one computes, the inputs and outputs of the other are copied. On an H200 two had 1.2 to
/// 1.3 times the throughput of one, and four little more.
const DEVICE_SESSIONS: usize = 2;
/// Padded tokens in a batch on a device. On an H200 fewer left it idle, and four times as many were no faster.
const DEVICE_BATCH_TOKENS: usize = 16_384;

/// The sessions of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionPlan {
    pub sessions: usize,
    /// The threads of a run.
    pub threads: usize,
}

impl SessionPlan {
    /// The sessions on this provider of an engine with so many threads, whose runs are divided among several of them or
    /// not.
    pub(crate) fn new(provider: &ExecutionProvider, threads: usize, divides_runs: bool) -> Self {
        let divided = threads.min(MAX_THREADS_OF_RUN);
        if provider.is_cpu() {
            return Self {
                sessions: 1,
                threads: if divides_runs { divided } else { 1 },
            };
        }
        if !provider.uses_processor() {
            return Self {
                sessions: DEVICE_SESSIONS,
                threads: 1,
            };
        }
        // Runs take turns, so all threads are busy only if they are divided among the sessions.
        let sessions = match divides_runs {
            true => (threads / divided).clamp(1, MAX_PROCESSOR_SESSIONS),
            false => threads.min(MAX_PROCESSOR_SESSIONS),
        };
        Self {
            sessions,
            threads: threads.div_ceil(sessions),
        }
    }
}

/// Padded tokens in a batch on this provider; `None` where the default is right.
pub(crate) fn batch_tokens(provider: &ExecutionProvider) -> Option<usize> {
    (!provider.uses_processor()).then_some(DEVICE_BATCH_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(provider: &str, threads: usize, divides_runs: bool) -> (usize, usize) {
        let plan = SessionPlan::new(&provider.parse().unwrap(), threads, divides_runs);
        (plan.sessions, plan.threads)
    }

    #[test]
    fn the_cpu_shares_one_session_and_divides_only_runs_that_someone_waits_for() {
        assert_eq!(plan("cpu", 16, false), (1, 1));
        assert_eq!(plan("cpu", 16, true), (1, 4));
        assert_eq!(plan("cpu", 2, true), (1, 2));
    }

    #[test]
    fn all_threads_work_where_the_runs_of_a_session_take_turns() {
        assert_eq!(plan("openvino", 1, false), (1, 1));
        assert_eq!(plan("openvino", 2, false), (2, 1));
        assert_eq!(plan("openvino:CPU", 16, false), (4, 4));
        assert_eq!(plan("openvino", 2, true), (1, 2));
        assert_eq!(plan("onednn", 16, true), (4, 4));
    }

    #[test]
    fn a_device_has_two_sessions_and_large_batches() {
        assert_eq!(plan("cuda:1", 16, false), (2, 1));
        assert_eq!(batch_tokens(&"cuda".parse().unwrap()), Some(16_384));
        assert_eq!(batch_tokens(&"openvino".parse().unwrap()), None);
    }
}
