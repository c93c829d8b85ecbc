//! One image to all of its targets at once: a stage is finished in every one of them before the next begins in any.
//!
//! It refuses to stop the others when one target fails: what they began is finished, and found by the next run.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::error::Error;
use crate::http::chain;
use crate::provider::{Finding, Pending, Progress, Provider, Published, Receipt, Stage, Step};

/// The targets of one image.
#[derive(Debug)]
pub struct Publication {
    providers: Vec<Box<dyn Provider>>,
}

/// One failed target.
#[derive(Debug)]
pub struct Failed {
    /// Its name.
    pub target: String,
    /// Why.
    pub error: Error,
}

/// What the targets said: answers, and the failures of those that have none.
#[derive(Debug)]
pub struct Said<T> {
    /// Answers with the name of their target, in the order of the targets.
    pub answers: Vec<(String, T)>,
    /// Failures, in the same order.
    pub failed: Vec<Failed>,
}

impl<T> Said<T> {
    /// The answers, when no target failed.
    ///
    /// # Errors
    /// When one did; several are told as one.
    pub fn whole(self) -> Result<Vec<(String, T)>, Error> {
        let of = self.answers.len() + self.failed.len();
        match together(self.failed, of) {
            Some(error) => Err(error),
            None => Ok(self.answers),
        }
    }
}

/// The failures of several targets as one.
#[must_use]
pub fn together(failed: Vec<Failed>, of: usize) -> Option<Error> {
    let mut failed = failed.into_iter();
    let first = failed.next()?;
    let mut failures = vec![format!("{}: {}", first.target, chain(&first.error))];
    failures.extend(failed.map(|one| format!("{}: {}", one.target, chain(&one.error))));
    Some(Error::Partly {
        failures,
        of,
        first: Box::new(first.error),
    })
}

impl Publication {
    /// Of one image, to these targets.
    #[must_use]
    pub fn new(providers: Vec<Box<dyn Provider>>) -> Self {
        Self { providers }
    }

    /// Looks what there is in every target.
    pub async fn observe(&mut self) -> Said<()> {
        self.each(|provider| provider.observe()).await
    }

    /// Asks what stands in the way, as far as it can be asked.
    pub async fn check(&mut self) -> Said<Vec<Finding>> {
        self.each(|provider| provider.check()).await
    }

    /// What would be done up to a stage, in the order in which it would be done.
    #[must_use]
    pub fn plan(&self, until: Stage) -> Vec<Step> {
        let steps = self.providers.iter().flat_map(|provider| provider.plan());
        let mut steps: Vec<_> = steps.filter(|step| step.stage <= until).collect();
        steps.sort_by_key(|step| step.stage);
        steps
    }

    /// Does one stage in every target.
    pub async fn advance(&mut self, stage: Stage, progress: &Arc<dyn Progress>) -> Said<()> {
        let progress = Arc::clone(progress);
        self.each(move |provider| {
            let progress = Arc::clone(&progress);
            Box::pin(async move { provider.advance(stage, &*progress).await })
        })
        .await
    }

    /// Does all stages up to one, until one of them fails in some target; returns the last that all finished, and
    /// what failed in the next.
    pub async fn advance_to(
        &mut self,
        until: Stage,
        progress: &Arc<dyn Progress>,
    ) -> (Option<Stage>, Vec<Failed>) {
        let mut reached = None;
        for stage in Stage::ALL.into_iter().filter(|stage| *stage <= until) {
            let said = self.advance(stage, progress).await;
            if !said.failed.is_empty() {
                return (reached, said.failed);
            }
            reached = Some(stage);
        }
        (reached, Vec::new())
    }

    /// Names of the targets, in their order.
    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        let names = self.providers.iter().map(|provider| provider.target());
        names.map(str::to_owned).collect()
    }

    /// What there is, sorted.
    #[must_use]
    pub fn receipts(&self) -> Vec<Receipt> {
        let receipts = self
            .providers
            .iter()
            .flat_map(|provider| provider.receipts());
        let mut receipts: Vec<_> = receipts.collect();
        receipts.sort();
        receipts
    }

    /// Every image of this name in every target.
    pub async fn inventory(&mut self) -> Said<Vec<Published>> {
        self.each(|provider| provider.inventory()).await
    }

    /// Says of one image that it should not be used any more from a time on.
    ///
    /// # Errors
    /// When the cloud refuses.
    pub async fn deprecate(&mut self, published: &Published, from: i64) -> Result<(), Error> {
        match self.of(&published.target) {
            Some(provider) => provider.deprecate(published, from).await,
            None => Ok(()),
        }
    }

    /// Removes one image.
    ///
    /// # Errors
    /// When somebody keeps it, or the cloud refuses.
    pub async fn remove(&mut self, published: &Published) -> Result<(), Error> {
        match self.of(&published.target) {
            Some(provider) => provider.remove(published).await,
            None => Ok(()),
        }
    }

    fn of(&mut self, target: &str) -> Option<&mut Box<dyn Provider>> {
        let mut providers = self.providers.iter_mut();
        providers.find(|provider| provider.target() == target)
    }

    /// Asks every target at the same time.
    async fn each<T, F>(&mut self, ask: F) -> Said<T>
    where
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Box<dyn Provider>) -> Pending<'a, Result<T, Error>>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let mut running = JoinSet::new();
        for (at, mut provider) in std::mem::take(&mut self.providers).into_iter().enumerate() {
            let ask = ask.clone();
            running.spawn(async move {
                let answer = ask(&mut provider).await;
                (at, provider, answer)
            });
        }
        let mut done = Vec::new();
        while let Some(one) = running.join_next().await {
            match one {
                Ok(one) => done.push(one),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        done.sort_by_key(|(at, ..)| *at);
        let mut said = Said {
            answers: Vec::new(),
            failed: Vec::new(),
        };
        for (_, provider, answer) in done {
            let target = provider.target().to_owned();
            match answer {
                Ok(answer) => said.answers.push((target, answer)),
                Err(error) => said.failed.push(Failed { target, error }),
            }
            self.providers.push(provider);
        }
        said
    }
}
