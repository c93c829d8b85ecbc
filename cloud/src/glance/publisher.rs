//! Publishes one image to one project: looks, decides, changes one thing, and looks again.
//!
//! It refuses to go on from what it believes to have done: every change is read back before the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use image_manifest::FormKind;

use super::images::{Change, Images};
use super::judge::judge;
use super::keystone::Keystone;
use super::plan::{ARCHITECTURE, Action, Desired, IMAGE, Image, MANIFEST, Observed, plan};
use super::settings::Settings;
use super::target::Target;
use crate::api::Api;
use crate::error::Error;
use crate::patience::{Patience, chance};
use crate::provider::{
    Finding, Options, Pending, Progress, Provider, Published, Receipt, Severity, Stage, Step,
};
use crate::subject::{Disk, Subject};

/// A change is seen within this time, or never.
const SEEN: Patience = Patience {
    pause: Duration::from_millis(100),
    ..Patience::task(Duration::from_mins(2))
};
/// Longest time that another upload of the same image is waited for.
const SAVING: Patience = Patience {
    pause: Duration::from_millis(100),
    ..Patience::task(Duration::from_mins(45))
};
/// How long what another publisher did is left alone.
const AGAIN: Duration = Duration::from_millis(300);
/// Changes of one stage at most; more means that somebody undoes them.
const ROUNDS: usize = 300;

/// One image on its way to one project.
#[derive(Debug)]
pub struct Publisher {
    pub(super) desired: Desired,
    pub(super) observed: Observed,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) images: Images,
    /// The id of the image whose bytes were sent in this run, and their SHA-512.
    pub(super) sent: Option<(String, String)>,
}

impl Publisher {
    /// Makes it ready; nothing is asked yet.
    ///
    /// # Errors
    /// When the image cannot be published to such a target, or there are no credentials.
    pub fn new(target: &Target, subject: &Subject, options: &Options) -> Result<Self, Error> {
        let (disk, desired) = desired(target, subject)?;
        let settings = Settings::load(target.openrc.as_deref())?;
        let keystone = Arc::new(Keystone::new(&options.http, settings));
        let api = Api::new(options.http.clone(), keystone.clone(), judge);
        Ok(Self {
            desired,
            observed: Observed::default(),
            disk,
            images: Images::new(api, keystone),
            sent: None,
        })
    }

    pub(super) fn property(&self, name: &str) -> &str {
        self.desired.properties.get(name).map_or("", String::as_str)
    }

    /// All images of this name and architecture.
    pub(super) async fn line(&self) -> Result<Vec<Image>, Error> {
        let wanted = [IMAGE, ARCHITECTURE].map(|name| (name, self.property(name)));
        self.images.images(&wanted).await
    }

    async fn look(&mut self) -> Result<(), Error> {
        let manifest = self.property(MANIFEST).to_owned();
        let (ours, others): (Vec<Image>, Vec<Image>) =
            self.line().await?.into_iter().partition(|image| {
                image.name == self.desired.name && image.properties.get(MANIFEST) == Some(&manifest)
            });
        // More than one is there only when somebody made it by hand; the whole one counts, then the oldest.
        let mut ours = ours.into_iter();
        let first = ours.next();
        let image = ours.fold(first, |best, next| match best {
            Some(best) if best.status == "active" || next.status != "active" => Some(best),
            _ => Some(next),
        });
        let members = match &image {
            Some(image) if image.visibility == "shared" && !self.desired.members.is_empty() => {
                self.images.members(&image.id).await?
            }
            _ => std::collections::BTreeSet::new(),
        };
        self.observed = Observed {
            project: self.images.project().await?,
            image,
            members,
            others,
        };
        Ok(())
    }

    fn actions(&self) -> Vec<Action> {
        plan(&self.desired, &self.observed)
    }

    fn next(&self, stage: Stage) -> Option<Action> {
        self.actions()
            .into_iter()
            .find(|action| action.stage() == stage)
    }

    async fn stage(&mut self, stage: Stage, progress: &dyn Progress) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            self.look().await?;
            self.settled(progress).await?;
            let Some(action) = self.next(stage) else {
                return self.end(stage);
            };
            progress.begins(&action.step(&self.desired, &self.observed));
            match self.act(&action, progress).await? {
                Change::Done => self.seen(&action, progress).await?,
                // Another publisher was there; what it did is seen soon.
                Change::Conflict => tokio::time::sleep(AGAIN).await,
            }
        }
        Err(Error::Deadline {
            what: format!(
                "for the {} stage of image `{}`",
                stage.label(),
                self.desired.name
            ),
            waited: Duration::ZERO,
            last: format!("{ROUNDS} changes, each undone by somebody"),
        })
    }

    /// Waits until nobody uploads any more.
    async fn settled(&mut self, progress: &dyn Progress) -> Result<(), Error> {
        let (begun, mut attempt) = (Instant::now(), 0);
        while let Some(image) = self
            .observed
            .image
            .as_ref()
            .filter(|image| image.status == "saving")
        {
            let what = format!("for the upload of image `{}` to end", image.id);
            progress.waits(&self.desired.target, &what);
            let wait = SAVING.wait(attempt, begun.elapsed(), None, chance());
            let Some(wait) = wait else {
                return Err(Error::Deadline {
                    what,
                    waited: begun.elapsed(),
                    last: "saving; remove it when nobody uploads it".to_owned(),
                });
            };
            tokio::time::sleep(wait).await;
            attempt += 1;
            self.look().await?;
        }
        Ok(())
    }

    /// Waits until a change is seen.
    async fn seen(&mut self, action: &Action, progress: &dyn Progress) -> Result<(), Error> {
        let (begun, mut attempt) = (Instant::now(), 0);
        loop {
            self.look().await?;
            if self.next(action.stage()).as_ref() != Some(action) {
                return Ok(());
            }
            let step = action.step(&self.desired, &self.observed);
            let what = format!(
                "for `{}` of image `{}` to be seen",
                step.action, step.object
            );
            let wait = SEEN.wait(attempt, begun.elapsed(), None, chance());
            let Some(wait) = wait else {
                return Err(Error::Deadline {
                    what,
                    waited: begun.elapsed(),
                    last: "as before".to_owned(),
                });
            };
            progress.waits(&self.desired.target, &what);
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    fn end(&self, stage: Stage) -> Result<(), Error> {
        let image = self
            .observed
            .image
            .as_ref()
            .filter(|_| stage == Stage::Private);
        let wrong = image.and_then(|image| {
            let compared = [
                ("status", &image.status, "active"),
                ("format", &image.format, "qcow2"),
            ];
            let mut wrong = compared
                .into_iter()
                .filter(|(_, found, expected)| found != expected);
            wrong.next().map(|(what, found, expected)| Error::Mismatch {
                what: format!("{what} of image `{}`", image.id),
                found: found.clone(),
                expected: expected.to_owned(),
            })
        });
        wrong.map_or(Ok(()), Err)
    }

    async fn check(&self) -> Result<Vec<Finding>, Error> {
        let finding = |severity, message| Finding {
            target: self.desired.target.clone(),
            place: self.observed.project.clone(),
            severity,
            message,
        };
        let mut findings = Vec::new();
        let image = self.observed.image.as_ref();
        if let Some(image) = image.filter(|image| image.is_withdrawn()) {
            let message = format!(
                "image `{}` was withdrawn: it is neither shared nor pointed to",
                image.id
            );
            findings.push(finding(Severity::Warning, message));
        }
        let usage = match self.images.usage().await {
            // Not every cloud tells.
            Err(Error::Denied { .. } | Error::Refused { .. }) => None,
            usage => usage?,
        };
        let usage = usage.filter(|_| image.is_none()).unwrap_or_default();
        let wanted = [
            ("image_count_total", 1),
            ("image_size_total", self.desired.size.div_ceil(1 << 20)),
        ];
        for (name, more) in wanted {
            let quota = &usage["usage"][name];
            // A limit of -1 is none.
            if let (Some(limit), Some(used)) = (quota["limit"].as_u64(), quota["usage"].as_u64())
                && used + more > limit
            {
                findings.push(finding(
                    Severity::Error,
                    format!("quota `{name}` is used up: {used} and {more} of {limit}"),
                ));
            }
        }
        Ok(findings)
    }
}

fn desired(target: &Target, subject: &Subject) -> Result<(Arc<dyn Disk>, Desired), Error> {
    let unfit = |reason: &str| Error::Unfit {
        image: subject.name.clone(),
        to: target.name.clone(),
        reason: reason.to_owned(),
    };
    let disk = subject
        .disk
        .as_ref()
        .ok_or_else(|| unfit("it has no disk"))?;
    let (digest, size) = disk
        .form(FormKind::Qcow2)
        .ok_or_else(|| unfit("its disk has no form `qcow2`"))?;
    let desired = Desired {
        target: target.name.clone(),
        name: target.image_name(subject),
        digest: digest.to_string(),
        size,
        min_disk: disk.blocks().size.div_ceil(1 << 30),
        properties: target.all_properties(subject),
        tags: target.tags.clone(),
        protected: target.protected,
        visibility: target.visibility,
        members: target.members.clone(),
        hide_older: target.hide_older,
    };
    Ok((Arc::clone(disk), desired))
}

impl Provider for Publisher {
    fn target(&self) -> &str {
        &self.desired.target
    }

    fn observe(&mut self) -> Pending<'_, Result<(), Error>> {
        Box::pin(self.look())
    }

    fn check(&mut self) -> Pending<'_, Result<Vec<Finding>, Error>> {
        Box::pin(Self::check(self))
    }

    fn plan(&self) -> Vec<Step> {
        let actions = self.actions();
        actions
            .iter()
            .map(|action| action.step(&self.desired, &self.observed))
            .collect()
    }

    fn advance<'a>(
        &'a mut self,
        stage: Stage,
        progress: &'a dyn Progress,
    ) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.stage(stage, progress))
    }

    fn receipts(&self) -> Vec<Receipt> {
        let image = self.observed.image.as_ref();
        let Some(image) = image.filter(|image| image.status == "active") else {
            return Vec::new();
        };
        let stage = match self.actions().iter().map(Action::stage).min() {
            None => Stage::Current,
            Some(Stage::Current) => Stage::Shared,
            Some(_) => Stage::Private,
        };
        vec![Receipt {
            target: self.desired.target.clone(),
            provider: "glance".to_owned(),
            kind: "image".to_owned(),
            place: self.observed.project.clone(),
            id: image.id.clone(),
            name: image.name.clone(),
            stage,
        }]
    }

    fn inventory(&mut self) -> Pending<'_, Result<Vec<Published>, Error>> {
        Box::pin(self.all())
    }

    fn deprecate<'a>(
        &'a mut self,
        published: &'a Published,
        from: i64,
    ) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.outdate(published, from))
    }

    fn remove<'a>(&'a mut self, published: &'a Published) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.drop_image(published))
    }
}
