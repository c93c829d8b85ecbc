//! Doing one step. What a step before a kill did already is found and not done twice.

use super::client::Client;
use super::ec2::{Copying, Mode, Registration};
use super::observe::observe;
use super::plan::{Step, minute};
use super::publisher::Publisher;
use super::upload::{Note, Upload, compare};
use super::waiting::Waiting;
use crate::error::Error;
use crate::journal::Journal;
use crate::provider::Progress;
use crate::subject::{TAG_IMAGE, TAG_TARGET};

/// How often a copy is asked for anew when the one before it never shows.
const COPIES: u32 = 3;

impl Publisher {
    /// Does one step that is ready.
    pub(super) async fn execute(
        &self,
        client: &Client,
        step: &Step,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        match step {
            Step::Upload { .. } => self.upload(client, progress).await,
            Step::Register {
                snapshot: Some(snapshot),
                ..
            } => self.register(client, snapshot).await,
            Step::Copy {
                from: Some(from), ..
            } => self.copy(client, from).await,
            Step::Deregister { image, .. } => client.deregister(image).await,
            Step::Discard { snapshot, .. } => {
                if !client.delete_snapshot(snapshot).await? {
                    self.in_use().insert(snapshot.clone());
                }
                Ok(())
            }
            Step::Tag { object, tags, .. } => client.tag(object, tags).await,
            Step::Launch {
                image: Some(image),
                kind,
                ..
            } => self.launch(client, image, kind, progress).await,
            Step::Deprecate {
                image: Some(image),
                at: Some(at),
                ..
            } => client.deprecate(image, &minute(*at)).await,
            Step::Protect {
                image: Some(image), ..
            } => client.protect(image).await,
            Step::ShareSnapshot {
                snapshot: Some(snapshot),
                add,
                remove,
                ..
            } => client.share_snapshot(snapshot, add, remove).await,
            Step::Share {
                image: Some(image),
                add,
                remove,
                ..
            } => client.share(image, add, remove).await,
            Step::Point {
                parameter,
                image: Some(image),
                from,
                ..
            } => {
                let tags: Vec<_> = self
                    .desired
                    .tags
                    .iter()
                    .filter(|(key, _)| lasts(key))
                    .cloned()
                    .collect();
                let new = from.is_none().then_some(tags.as_slice());
                client.set_parameter(parameter, image, new).await
            }
            Step::Register { .. }
            | Step::Copy { .. }
            | Step::Launch { .. }
            | Step::Deprecate { .. }
            | Step::Protect { .. }
            | Step::ShareSnapshot { .. }
            | Step::Share { .. }
            | Step::Point { .. } => Ok(()),
        }
    }

    async fn upload(&self, client: &Client, progress: &dyn Progress) -> Result<(), Error> {
        let about = format!("{}\n{}", self.desired.target, client.region);
        let opened = Journal::open::<Note>(&self.journal, &self.desired.manifest, &about);
        let (mut journal, notes) = opened.map_err(|error| match error {
            Error::Busy(_) => Error::Busy(self.desired.target.clone()),
            error => error,
        })?;
        let upload = Upload {
            client,
            target: &self.desired.target,
            disk: &self.disk,
            description: &self.desired.description,
            tags: &self.desired.tags,
            key: self.desired.keys.get(&client.region).map(String::as_str),
            bounds: self.bounds,
            progress,
        };
        upload.run(&mut journal, notes).await?;
        journal.clear()
    }

    fn registration<'a>(&'a self, snapshot: &'a str) -> Registration<'a> {
        let desired = &self.desired;
        Registration {
            name: &desired.name,
            description: &desired.description,
            architecture: desired.architecture,
            boot_mode: desired.boot_mode,
            tpm: desired.tpm,
            imdsv2: desired.imdsv2,
            ena: desired.ena,
            snapshot,
            tags: &desired.tags,
        }
    }

    /// Asks whether an image could be registered.
    pub(super) async fn may_register(&self, client: &Client) -> Result<(), Error> {
        let nothing = "snap-00000000000000000";
        client
            .register(&self.registration(nothing), Mode::Dry)
            .await
            .map(drop)
    }

    /// Asks whether an image could be copied.
    pub(super) async fn may_copy(&self, client: &Client) -> Result<(), Error> {
        let copying = self.copying(client, "ami-00000000000000000", "");
        client.copy(&copying, Mode::Dry).await.map(drop)
    }

    async fn register(&self, client: &Client, snapshot: &str) -> Result<(), Error> {
        if let Err(error) = compare(client, &self.disk, snapshot).await {
            if matches!(error, Error::Mismatch { .. }) {
                // Whoever looks next would make an image of it.
                client.delete_snapshot(snapshot).await?;
            }
            return Err(error);
        }
        match client
            .register(&self.registration(snapshot), Mode::Do)
            .await
        {
            // There is no token for this call: the name is what makes the second one fail.
            Err(error @ Error::Refused { .. }) if is(&error, "InvalidAMIName.Duplicate") => {
                self.named(client, error).await
            }
            answer => answer.map(drop),
        }
    }

    /// Waits until the image that has our name can be seen: ours from before a kill or of somebody who publishes the same.
    async fn named(&self, client: &Client, error: Error) -> Result<(), Error> {
        let what = format!(
            "for image `{}` in {} to be seen",
            self.desired.name, client.region
        );
        let mut waiting = Waiting::new(what, self.bounds.patience(self.bounds.visible));
        loop {
            let region = observe(client, &self.desired).await?;
            if region.image().is_some() {
                return Ok(());
            }
            if let Some(id) = region.foreign {
                return Err(Error::Foreign {
                    what: format!("image `{}` ({id}) in {}", self.desired.name, client.region),
                });
            }
            if waiting.again("it is not there yet").await.is_err() {
                return Err(error);
            }
        }
    }

    fn copying<'a>(&'a self, client: &Client, image: &'a str, token: &'a str) -> Copying<'a> {
        let desired = &self.desired;
        Copying {
            name: &desired.name,
            description: &desired.description,
            region: desired.home(),
            image,
            token,
            key: desired.keys.get(&client.region).map(String::as_str),
            tags: &desired.tags,
        }
    }

    async fn copy(&self, client: &Client, from: &str) -> Result<(), Error> {
        if let Some(id) = self
            .observed
            .get(&client.region)
            .and_then(|region| region.foreign.as_ref())
        {
            // Names of copies need not be unique, so nothing else would tell.
            return Err(Error::Foreign {
                what: format!("image `{}` ({id}) in {}", self.desired.name, client.region),
            });
        }
        let mut last = None;
        for attempt in 0..COPIES {
            let token = self
                .desired
                .copy_token(&client.region, &format!("{from}\n{attempt}"));
            let id = client
                .copy(&self.copying(client, from, &token), Mode::Do)
                .await?;
            let what = format!("for {id} in {} to be seen", client.region);
            let mut waiting = Waiting::new(what, self.bounds.patience(self.bounds.visible));
            loop {
                // One that somebody else made of the same is as good.
                let region = observe(client, &self.desired).await?;
                self.check_failed(client, &region)?;
                if region.image().is_some() {
                    return Ok(());
                }
                if let Err(error) = waiting.again("it is not there yet").await {
                    // A token names what it made first, also when that is gone.
                    last = Some(error);
                    break;
                }
            }
        }
        last.map_or(Ok(()), Err)
    }
}

fn is(error: &Error, expected: &str) -> bool {
    matches!(error, Error::Refused { code, .. } if code == expected)
}

/// Whether a tag says the same of every build: parameters outlive builds.
fn lasts(key: &str) -> bool {
    key == TAG_IMAGE || key == TAG_TARGET || (!key.starts_with("firstboot:") && key != "Name")
}
