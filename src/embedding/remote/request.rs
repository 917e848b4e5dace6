//! One request, repeated until a server answers it or the texts themselves may be the cause.

use std::pin::pin;
use std::time::Instant;

use futures_util::future::{Either, select};
use tokio::time::timeout;

use super::answer::Answer;
use super::exchange::{Ask, Failed};
use super::fleet::Fleet;
use super::tried::{Tried, Trouble};
use super::turns::Turn;

impl Fleet {
    /// Sends a request until it is answered. What passes is repeated: at another server at once, at the same one after a
    /// pause and with a permit.
    ///
    /// Cancellation safe.
    pub(super) async fn request(&self, ask: &Ask<'_>) -> Result<Answer, Trouble> {
        let since = Instant::now();
        let mut tried = Tried::new(self, ask.options);
        loop {
            let _permit = match tried.needs_permit {
                true => Some(self.retries.acquire().await),
                false => None,
            };
            if let Some(last) = tried
                .last
                .take_if(|_| Instant::now() >= self.turns.deadline(since))
            {
                return Err(Trouble::Fleet(last));
            }
            let turn = self.turns.take(ask.tokens, &tried.except(), since).await;
            let Some(turn) = turn else {
                return Err(Trouble::Fleet(tried.last.unwrap_or_else(|| self.trouble())));
            };
            let failed = match self.hedged(turn, ask, &tried).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if let Some(pause) = tried.note(failed, ask.texts)? {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Sends a request, and after a while a second one to another server if the options ask for it. The first vectors
    /// count.
    async fn hedged(
        &self,
        turn: Turn<'_>,
        ask: &Ask<'_>,
        tried: &Tried<'_>,
    ) -> Result<Answer, Failed> {
        let mut except = tried.except();
        except.push(turn.server);
        let mut first = pin!(self.exchange(turn, ask));
        let Some(pause) = ask.options.hedge_after else {
            return first.await;
        };
        if let Ok(ended) = timeout(pause, first.as_mut()).await {
            return ended;
        }
        let Ok(turn) = self.turns.try_take(ask.tokens, &except) else {
            return first.await;
        };
        let second = pin!(self.exchange(turn, ask));
        match select(first, second).await {
            Either::Left((Err(_), second)) => second.await,
            Either::Right((Err(_), first)) => first.await,
            Either::Left((answer, _)) | Either::Right((answer, _)) => answer,
        }
    }
}
