//! How long things of Amazon's cloud may take, and waiting for them. Every wait has an end and says what it waits for.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::patience::{Patience, chance};

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What was made can be seen everywhere after this time (the EBS team names two minutes).
    pub visible: Duration,
    /// A snapshot is completed, an image available, a copy made. Copies of encrypted images between continents take tens of minutes.
    pub task: Duration,
    /// An instance of any size is healthy.
    pub boot: Duration,
    /// Blocks are given up when none arrives for this time.
    pub stall: Duration,
    /// One block arrives in this time, or is sent again.
    pub block: Duration,
    /// The first pause between two looks; it doubles up to a quarter of a minute.
    pub pause: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            visible: Duration::from_mins(2),
            task: Duration::from_mins(90),
            boot: Duration::from_mins(15),
            stall: Duration::from_mins(3),
            block: Duration::from_mins(1),
            pause: Duration::from_millis(500),
        }
    }
}

impl Bounds {
    pub(super) fn patience(&self, whole: Duration) -> Patience {
        let mut patience = Patience::task(whole);
        patience.pause = self.pause;
        patience
    }
}

/// One wait.
#[derive(Debug)]
pub(super) struct Waiting {
    what: String,
    patience: Patience,
    begun: Instant,
    attempt: u32,
}

impl Waiting {
    /// `what` begins with "for".
    pub(super) fn new(what: impl Into<String>, patience: Patience) -> Self {
        Self {
            what: what.into(),
            patience,
            begun: Instant::now(),
            attempt: 0,
        }
    }

    /// What is waited for.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Pauses before the next look, or ends the wait with what was seen last.
    pub(super) async fn again(&mut self, last: impl Into<String>) -> Result<(), Error> {
        let spent = self.begun.elapsed();
        let Some(pause) = self.patience.wait(self.attempt, spent, None, chance()) else {
            return Err(Error::Deadline {
                what: self.what.clone(),
                waited: spent,
                last: last.into(),
            });
        };
        self.attempt += 1;
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
