//! Publishes one image to one project: looks, decides, changes one thing, and looks again.
//!
//! It refuses to go on from what it believes to have done: every change is read back before the next.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::check::Checks;
use super::compute::{Change, Compute};
use super::desired::{desired, verify};
use super::notes::{Note, Notebook, begun};
use super::plan::{Action, Deprecated, Desired, Observed, plan};
use super::storage::Storage;
use super::target::Target;
use super::token::Google;
use crate::api::Api;
use crate::authorize::context;
use crate::error::Error;
use crate::patience::{Patience, chance};
use crate::provider::{
    Finding, Options, Pending, Progress, Provider, Published, Receipt, Stage, Step,
};
use crate::subject::{Disk, Subject};

/// A change is seen within this time, or never.
const SEEN: Patience = Patience {
    pause: Duration::from_millis(100),
    ..Patience::task(Duration::from_mins(2))
};
/// Longest time that the cloud may take to make an image.
pub(super) const READY: Patience = Patience {
    pause: Duration::from_millis(100),
    ..Patience::task(Duration::from_mins(45))
};
/// How long what another publisher did is left alone.
const AGAIN: Duration = Duration::from_millis(300);
/// How often another publisher may have been there.
const CONFLICTS: u32 = 8;
/// Changes of one stage at most; more means that somebody undoes them.
const ROUNDS: usize = 20;

/// One image on its way to one project.
#[derive(Debug)]
pub struct Publisher {
    pub(super) target: Target,
    pub(super) desired: Desired,
    pub(super) observed: Observed,
    pub(super) key: String,
    pub(super) disk: Arc<dyn Disk>,
    api: Api,
    pub(super) storage: Storage,
    pub(super) compute: Compute,
    journal: PathBuf,
    /// The generation of the object whose bytes were compared.
    pub(super) compared: Option<String>,
}

impl Publisher {
    /// Makes it ready; nothing is asked yet.
    ///
    /// # Errors
    /// When the image cannot be published to such a target.
    pub fn new(target: &Target, subject: &Subject, options: &Options) -> Result<Self, Error> {
        let (disk, desired) = desired(target, subject)?;
        let google = Google::new(target, context(&options.http));
        let api = Api::new(options.http.clone(), Arc::new(google), super::judge::judge);
        let endpoints = &target.endpoints;
        Ok(Self {
            storage: Storage::new(api.clone(), &endpoints.storage, &target.bucket),
            compute: Compute::new(api.clone(), &endpoints.compute, &target.project),
            target: target.clone(),
            desired,
            observed: Observed::default(),
            key: subject.key(),
            disk,
            api,
            journal: options.journal.clone(),
            compared: None,
        })
    }

    async fn look(&mut self) -> Result<(), Error> {
        let desired = &self.desired;
        let image = self.compute.image(&desired.name).await?;
        let object = self.storage.object(&desired.object).await?;
        let mut observed = Observed {
            object,
            image,
            ..Observed::default()
        };
        if observed.ours(desired).is_some() && !desired.members.is_empty() {
            let policy = self.compute.policy(&desired.name).await?;
            observed.members = policy.map(|policy| policy.users()).unwrap_or_default();
        }
        if let Some(family) = &desired.family {
            observed.family = self
                .compute
                .images(&format!("family = \"{family}\""))
                .await?;
        }
        self.observed = observed;
        Ok(())
    }

    fn actions(&self) -> Vec<Action> {
        plan(&self.desired, &self.observed)
    }

    fn foreign(&self) -> Result<(), Error> {
        let foreign = self.observed.image.is_some() && self.observed.ours(&self.desired).is_none();
        if foreign {
            return Err(Error::Foreign {
                what: format!(
                    "image `{}` of project `{}`",
                    self.desired.name, self.desired.project
                ),
            });
        }
        Ok(())
    }

    async fn stage(&mut self, stage: Stage, progress: &dyn Progress) -> Result<(), Error> {
        let (mut notebook, mut conflicts) = (None, 0);
        let begun = Instant::now();
        let mut last = String::new();
        for _ in 0..ROUNDS {
            self.look().await?;
            self.foreign()?;
            self.settled(progress).await?;
            let next = self
                .actions()
                .into_iter()
                .find(|action| action.stage() == stage);
            let Some(action) = next else {
                return self.end(stage, notebook).await;
            };
            if notebook.is_none() {
                notebook = Some(Notebook::open(
                    &self.journal,
                    &self.key,
                    &self.desired.target,
                )?);
            }
            progress.begins(&action.step(&self.desired));
            let Some(open) = &mut notebook else { continue };
            match self.act(&action, open, progress).await? {
                Change::Done => {
                    self.seen(&action, progress).await?;
                    self.settled(progress).await?;
                    if action == Action::Insert {
                        self.made(open)?;
                    }
                }
                // Another publisher was there; what it did is seen soon.
                Change::Conflict(_) if conflicts < CONFLICTS => {
                    conflicts += 1;
                    tokio::time::sleep(AGAIN).await;
                }
                Change::Conflict(reason) => {
                    last = reason;
                    break;
                }
            }
        }
        Err(Error::Deadline {
            what: format!(
                "for the {} stage of image `{}`",
                stage.label(),
                self.desired.name
            ),
            waited: begun.elapsed(),
            last: if last.is_empty() {
                format!("{ROUNDS} changes, each undone by somebody")
            } else {
                last
            },
        })
    }

    /// Says so when the cloud made an image that is none; the next run replaces it.
    fn made(&self, notebook: &mut Notebook) -> Result<(), Error> {
        let image = self.observed.image.as_ref();
        let Some(image) = image.filter(|image| image.status == "FAILED") else {
            return Ok(());
        };
        let failed = notebook.failed() + 1;
        notebook.note(Note::Failed(failed))?;
        verify(&self.desired, image)
    }

    /// Waits until the cloud made the image, or failed to, or removed it.
    async fn settled(&mut self, progress: &dyn Progress) -> Result<(), Error> {
        let (begun, mut attempt) = (Instant::now(), 0);
        loop {
            let status = self
                .observed
                .image
                .as_ref()
                .map_or("", |image| image.status.as_str());
            if !matches!(status, "PENDING" | "DELETING") {
                return Ok(());
            }
            let what = format!("for image `{}` to be ready", self.desired.name);
            progress.waits(&self.desired.target, &what);
            let wait = READY.wait(attempt, begun.elapsed(), None, chance());
            let Some(wait) = wait else {
                return Err(Error::Deadline {
                    what,
                    waited: begun.elapsed(),
                    last: status.to_owned(),
                });
            };
            tokio::time::sleep(wait).await;
            attempt += 1;
            self.look().await?;
            self.foreign()?;
        }
    }

    /// Waits until a change is seen.
    async fn seen(&mut self, action: &Action, progress: &dyn Progress) -> Result<(), Error> {
        let (begun, mut attempt) = (Instant::now(), 0);
        loop {
            self.look().await?;
            if self
                .actions()
                .iter()
                .find(|next| next.stage() == action.stage())
                != Some(action)
            {
                return Ok(());
            }
            let what = format!(
                "for `{}` of image `{}` to be seen",
                action.step(&self.desired).action,
                self.desired.name
            );
            // Nobody undoes an upload but another publisher who needs it no longer; the next round sees that.
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

    /// Compares the end of a stage with what was wanted.
    async fn end(&mut self, stage: Stage, notebook: Option<Notebook>) -> Result<(), Error> {
        let Some(image) = self.observed.ours(&self.desired) else {
            return Ok(());
        };
        match stage {
            Stage::Private => {
                verify(&self.desired, image)?;
                let mut notebook = match notebook {
                    Some(notebook) => notebook,
                    None => Notebook::open(&self.journal, &self.key, &self.desired.target)?,
                };
                if let Some((object, session)) = begun(&notebook.notes) {
                    self.storage.abandon(object, &session.0).await?;
                }
                notebook.journal.clear()
            }
            Stage::Current if self.desired.family.is_some() && !image.is_withdrawn() => {
                match self.observed.ahead(image).first() {
                    Some(other) => Err(Error::Foreign {
                        what: format!("image `{}`, which is newer in the family,", other.name),
                    }),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

impl Provider for Publisher {
    fn target(&self) -> &str {
        &self.desired.target
    }

    fn observe(&mut self) -> Pending<'_, Result<(), Error>> {
        Box::pin(self.look())
    }

    fn check(&mut self) -> Pending<'_, Result<Vec<Finding>, Error>> {
        Box::pin(async move {
            let checks = Checks {
                desired: &self.desired,
                observed: &self.observed,
                storage: &self.storage,
                compute: &self.compute,
                api: &self.api,
                projects: &self.target.endpoints.projects,
            };
            checks.run().await
        })
    }

    fn plan(&self) -> Vec<Step> {
        let actions = self.actions();
        actions
            .iter()
            .map(|action| action.step(&self.desired))
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
        let Some(image) = self.observed.ours(&self.desired) else {
            return Vec::new();
        };
        if image.status != "READY" {
            return Vec::new();
        }
        let stage = match self.actions().iter().map(Action::stage).min() {
            None => Stage::Current,
            Some(Stage::Current) => Stage::Shared,
            Some(_) => Stage::Private,
        };
        vec![Receipt {
            target: self.desired.target.clone(),
            provider: "gce".to_owned(),
            kind: "image".to_owned(),
            place: self.desired.project.clone(),
            id: format!(
                "projects/{}/global/images/{}",
                self.desired.project, image.name
            ),
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
        Box::pin(async move {
            let now = OffsetDateTime::now_utc().unix_timestamp();
            let state = if from <= now { "DEPRECATED" } else { "ACTIVE" };
            let deprecated = Deprecated {
                state: state.to_owned(),
                replacement: None,
                from: Some(from * 1000),
            };
            self.compute
                .deprecate(&published.name, &deprecated)
                .await
                .map(drop)
        })
    }

    fn remove<'a>(&'a mut self, published: &'a Published) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.drop_image(published))
    }
}
