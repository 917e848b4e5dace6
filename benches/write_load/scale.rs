//! How much is measured.

use crate::questions::{
    backlog, beside_inference, burst, documents, freshness, jobs, near_saturation, repeats,
    user_side, write_back,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Everything once and briefly, to see that it works; the figures mean nothing.
    Smoke,
    /// Half an hour.
    Usual,
    /// About an hour.
    Full,
}

impl Scale {
    pub fn from_arguments(arguments: &[String]) -> Scale {
        let has = |argument: &str| arguments.iter().any(|given| given == argument);
        match (has("--full"), has("--smoke")) {
            (_, true) => Scale::Smoke,
            (true, _) => Scale::Full,
            _ => Scale::Usual,
        }
    }

    fn choose<T>(self, smoke: T, usual: T, full: T) -> T {
        match self {
            Scale::Smoke => smoke,
            Scale::Usual => usual,
            Scale::Full => full,
        }
    }

    pub fn user_side(self) -> user_side::Plan {
        user_side::Plan {
            clients: self.choose(vec![8], vec![8], vec![1, 4, 8, 16]),
            bulk_clients: self.choose(vec![2], vec![8], vec![1, 8]),
            rounds: self.choose(1, 7, 7),
            trigger_rounds: self.choose(1, 3, 3),
            seconds: self.choose(1, 2, 3),
        }
    }

    pub fn beside_inference(self) -> beside_inference::Plan {
        beside_inference::Plan {
            rounds: self.choose(1, 3, 5),
            seconds: self.choose(1, 4, 6),
        }
    }

    pub fn freshness(self) -> freshness::Plan {
        freshness::Plan {
            loads: self.choose(
                vec![10],
                vec![10, 100, 400, 800],
                vec![2, 10, 50, 100, 200, 300, 400, 500, 600, 800],
            ),
            seconds: self.choose(1, 5, 8),
            lone: self.choose(3, 20, 40),
        }
    }

    pub fn near_saturation(self) -> near_saturation::Plan {
        near_saturation::Plan {
            rounds: self.choose(1, 3, 5),
            seconds: self.choose(1, 4, 8),
        }
    }

    pub fn repeats(self) -> repeats::Plan {
        repeats::Plan {
            rounds: self.choose(1, 3, 5),
            rows: self.choose(300, 3000, 6000),
        }
    }

    pub fn bursts(self) -> burst::Plan {
        burst::Plan {
            rows: self.choose(500, 5_000, 10_000),
            rounds: self.choose(1, 2, 3),
            sizes: self.choose(
                vec![(1_000, 50)],
                vec![(10_000, 200)],
                vec![(100, 2_000), (1_000, 300), (10_000, 300), (100_000, 300)],
            ),
        }
    }

    /// Rows of one burst.
    pub fn drain(self) -> usize {
        self.choose(1_000, 20_000, 100_000)
    }

    pub fn backlog(self) -> backlog::Plan {
        backlog::Plan {
            rows: self.choose(1_000, 200_000, 1_000_000),
            rounds: self.choose(1, 7, 7),
        }
    }

    pub fn write_back(self) -> write_back::Plan {
        write_back::Plan {
            rows: self.choose(4, 40, 80) * write_back::BATCH,
            rounds: self.choose(1, 5, 9),
        }
    }

    pub fn documents(self) -> documents::Plan {
        documents::Plan {
            throughput: documents::throughput::Plan {
                documents: self.choose(5, 100, 200),
                rounds: self.choose(1, 2, 3),
            },
            edited: self.choose(1, 5, 10),
            write_backs: self.choose(1, 7, 15),
            users: user_side::Plan {
                clients: vec![8],
                bulk_clients: Vec::new(),
                rounds: self.choose(1, 7, 9),
                trigger_rounds: 0,
                seconds: self.choose(1, 3, 3),
            },
        }
    }

    pub fn jobs(self) -> jobs::Plan {
        jobs::Plan {
            rounds: self.choose(1, 2, 3),
            seconds: self.choose(1, 3, 4),
        }
    }

    /// Rows.
    pub fn tables(self) -> Vec<u64> {
        self.choose(
            vec![2_000, 10_000],
            vec![10_000, 1_000_000],
            vec![10_000, 100_000, 1_000_000, 10_000_000],
        )
    }
}
