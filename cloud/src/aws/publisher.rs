//! One target: looks, plans, does what is planned, and looks again until nothing is left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use reqsign_core::Context;

use super::client::{Client, url};
use super::credentials::{Role, Source};
use super::desired::Desired;
use super::observe::{is_unknown, observe};
use super::plan::{Region, Step, plan};
use super::target::Target;
use super::together::all;
use super::verify::verify;
use super::waiting::{Bounds, Waiting};
use crate::authorize::context;
use crate::error::Error;
use crate::http::private;
use crate::provider::{
    self, Finding, Options, Pending, Progress, Provider, Published, Receipt, Stage,
};
use crate::subject::{Disk, Subject};

/// How often a stage is planned again: more rounds than a publish has steps that wait for another.
const ROUNDS: usize = 12;

/// Publishes one image to one target.
#[derive(Debug)]
pub struct Publisher {
    pub(super) target: Target,
    pub(super) desired: Desired,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) journal: PathBuf,
    pub(super) clients: Vec<Client>,
    pub(super) bounds: Bounds,
    pub(super) observed: BTreeMap<String, Region>,
    /// Snapshots that the cloud did not delete because something uses them: they are not tried again.
    in_use: Mutex<BTreeSet<String>>,
}

impl Publisher {
    /// Publishes as whoever the environment says.
    ///
    /// # Errors
    /// When the image cannot go to this target.
    pub fn new(target: &Target, subject: &Subject, options: &Options) -> Result<Self, Error> {
        Self::within(target, subject, options, context(&options.http))
    }

    /// Publishes as whoever a context says: its environment, its files, its programs.
    ///
    /// # Errors
    /// When the image cannot go to this target.
    pub fn within(
        target: &Target,
        subject: &Subject,
        options: &Options,
        context: Context,
    ) -> Result<Self, Error> {
        let unfit = |reason: String| Error::Unfit {
            image: subject.name.clone(),
            to: target.name.clone(),
            reason,
        };
        let desired = Desired::of(target, subject)?;
        let disk = subject
            .disk
            .clone()
            .ok_or_else(|| unfit("it has no disk".to_owned()))?;
        let endpoint = target
            .endpoint
            .clone()
            .or_else(|| context.env_var("AWS_ENDPOINT_URL"));
        if let Some(Err(problem)) = endpoint.as_deref().map(private::check) {
            return Err(unfit(format!("its endpoint: {problem}")));
        }
        let role = target.role.as_ref().map(|arn| Role {
            arn: arn.clone(),
            url: format!("{}/", url(endpoint.as_deref(), "sts", desired.home())),
            region: desired.home().to_owned(),
        });
        let source = Arc::new(Source::new(options.http.clone(), context, role));
        let client = |region: &String| {
            Client::new(
                options.http.clone(),
                endpoint.clone(),
                Arc::clone(&source),
                region,
            )
        };
        Ok(Self {
            clients: desired.regions.iter().map(client).collect(),
            target: target.clone(),
            desired,
            disk,
            journal: options.journal.clone(),
            bounds: Bounds::default(),
            observed: BTreeMap::new(),
            in_use: Mutex::default(),
        })
    }

    /// Waits as long as said.
    #[must_use]
    pub fn bounded(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// The steps that are left.
    pub(super) fn steps(&self) -> Vec<Step> {
        self.planned(&self.observed)
    }

    fn planned(&self, observed: &BTreeMap<String, Region>) -> Vec<Step> {
        let mut steps = plan(&self.desired, observed, now());
        let in_use = self.in_use();
        steps.retain(
            |step| !matches!(step, Step::Discard { snapshot, .. } if in_use.contains(snapshot)),
        );
        steps
    }

    pub(super) fn in_use(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what stays although it carries our tags.
    fn warn(&self) {
        for (region, has) in &self.observed {
            for (id, why) in &has.left {
                tracing::warn!(id, region, why, "has the tags of this image, is left alone");
            }
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        let looks = self.clients.iter().map(|client| -> Pending<'_, _> {
            let desired = &self.desired;
            Box::pin(async move { Ok((client.region.clone(), observe(client, desired).await?)) })
        });
        let observed = all(looks.collect()).await?;
        self.observed = observed.into_iter().collect();
        Ok(())
    }

    async fn run(&mut self, stage: Stage, progress: &dyn Progress) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            self.look().await?;
            if stage == Stage::Private {
                self.await_images(progress).await?;
            }
            let steps: Vec<Step> = self
                .steps()
                .into_iter()
                .filter(|step| step.stage() == stage)
                .collect();
            if steps.is_empty() {
                if stage == Stage::Private {
                    self.warn();
                }
                return verify(&self.desired, &self.observed, stage);
            }
            let ready: Vec<Step> = steps.into_iter().filter(Step::is_ready).collect();
            if ready.is_empty() {
                return Err(Error::Mismatch {
                    what: format!("stage `{}` of `{}`", stage.label(), self.desired.target),
                    found: "begun before the image is there".to_owned(),
                    expected: "begun after it".to_owned(),
                });
            }
            let regions = self.clients.iter().map(|client| -> Pending<'_, _> {
                let steps = ready.iter().filter(|step| step.region() == client.region);
                let steps: Vec<_> = steps.collect();
                let this = &*self;
                Box::pin(async move {
                    for step in steps {
                        progress.begins(&step.told(&this.desired));
                        this.persist(client, step, progress).await?;
                        this.took_effect(client, step, progress).await?;
                    }
                    Ok(())
                })
            });
            all(regions.collect()).await?;
        }
        Err(Error::Mismatch {
            what: format!("stage `{}` of `{}`", stage.label(), self.desired.target),
            found: "not finished, however often it is done".to_owned(),
            expected: "finished".to_owned(),
        })
    }

    /// Does a step, again while the cloud does not know yet what was made a moment ago.
    async fn persist(
        &self,
        client: &Client,
        step: &Step,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let what = format!("for what was made in {} to be known", client.region);
        let mut waiting = Waiting::new(what, self.bounds.patience(self.bounds.visible));
        loop {
            let error = match self.execute(client, step, progress).await {
                Err(error @ Error::Refused { .. }) if is_unknown(&error) => error,
                done => return done,
            };
            progress.waits(&self.desired.target, waiting.what());
            if waiting.again("it is not known").await.is_err() {
                return Err(error);
            }
        }
    }

    /// Looks at one region until a step is not planned any more: its effect is read back.
    async fn took_effect(
        &self,
        client: &Client,
        step: &Step,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let told = step.told(&self.desired);
        let what = format!(
            "for {} of {} in {} to take effect",
            told.action, told.object, told.place
        );
        let mut waiting = Waiting::new(what, self.bounds.patience(self.bounds.visible));
        let mut observed = self.observed.clone();
        loop {
            let region = observe(client, &self.desired).await?;
            if matches!(step, Step::Register { .. } | Step::Copy { .. }) {
                self.check_failed(client, &region)?;
            }
            observed.insert(client.region.clone(), region);
            if !self.planned(&observed).contains(step) {
                return Ok(());
            }
            progress.waits(&self.desired.target, waiting.what());
            waiting.again("it is not there yet").await?;
        }
    }

    /// Waits until every image that there is can be used.
    async fn await_images(&mut self, progress: &dyn Progress) -> Result<(), Error> {
        let pending = self.clients.iter().filter(|client| {
            let image = self.observed.get(&client.region).and_then(Region::image);
            image.is_some_and(|image| image.state != "available")
        });
        let waits = pending.map(|client| -> Pending<'_, _> {
            let this = &*self;
            Box::pin(async move {
                Ok((
                    client.region.clone(),
                    this.await_image(client, progress).await?,
                ))
            })
        });
        let observed = all(waits.collect()).await?;
        self.observed.extend(observed);
        Ok(())
    }

    /// Says why the only image failed. One that failed before was removed before another was made.
    pub(super) fn check_failed(&self, client: &Client, region: &Region) -> Result<(), Error> {
        let found = match region.image() {
            Some(image) if image.is_disabled() => format!("{}: somebody disabled it", image.id),
            Some(_) => return Ok(()),
            None => match region.images.iter().find(|image| image.has_failed()) {
                Some(image) => format!("{}: {}", image.state, image.reason),
                None => return Ok(()),
            },
        };
        Err(Error::Mismatch {
            what: format!("image `{}` in {}", self.desired.name, client.region),
            found,
            expected: "available".to_owned(),
        })
    }

    async fn await_image(&self, client: &Client, progress: &dyn Progress) -> Result<Region, Error> {
        let name = &self.desired.name;
        let what = format!("for image `{name}` in {} to be available", client.region);
        let mut waiting = Waiting::new(what, self.bounds.patience(self.bounds.task));
        loop {
            let region = observe(client, &self.desired).await?;
            self.check_failed(client, &region)?;
            let Some(image) = region.image() else {
                return Err(Error::Mismatch {
                    what: format!("image `{name}` in {}", client.region),
                    found: "gone".to_owned(),
                    expected: "available".to_owned(),
                });
            };
            if image.state == "available" {
                return Ok(region);
            }
            progress.waits(&self.desired.target, waiting.what());
            let last = format!("{} {}", image.state, image.reason);
            waiting.again(last.trim_end()).await?;
        }
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

impl Provider for Publisher {
    fn target(&self) -> &str {
        &self.desired.target
    }

    fn observe(&mut self) -> Pending<'_, Result<(), Error>> {
        Box::pin(self.look())
    }

    fn check(&mut self) -> Pending<'_, Result<Vec<Finding>, Error>> {
        Box::pin(self.preflight())
    }

    fn plan(&self) -> Vec<provider::Step> {
        self.steps()
            .iter()
            .map(|step| step.told(&self.desired))
            .collect()
    }

    fn advance<'a>(
        &'a mut self,
        stage: Stage,
        progress: &'a dyn Progress,
    ) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.run(stage, progress))
    }

    fn receipts(&self) -> Vec<Receipt> {
        super::inventory::receipts(&self.desired, &self.observed, &self.steps())
    }

    fn inventory(&mut self) -> Pending<'_, Result<Vec<Published>, Error>> {
        Box::pin(self.published())
    }

    fn deprecate<'a>(
        &'a mut self,
        published: &'a Published,
        from: i64,
    ) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.deprecate_one(published, from))
    }

    fn remove<'a>(&'a mut self, published: &'a Published) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.remove_one(published))
    }
}
