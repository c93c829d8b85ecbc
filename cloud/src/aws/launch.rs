//! One instance of the image, launched to see that it boots there: it says so on its console, and is terminated.
//!
//! It refuses to let the instance be reached: it has no public address, and nothing is asked of it but its console. It
//! refuses to touch any other, also those that somebody gave all tags of their image. It refuses to end quietly while
//! one may still run.

use super::client::Client;
use super::console::{Said, said};
use super::ec2::{Instance, Launching, Mode};
use super::observe::observe;
use super::publisher::{Publisher, now};
use super::waiting::Waiting;
use crate::error::Error;
use crate::http::chain;
use crate::provider::Progress;
use crate::subject::{TAG_CHECK, TAG_IMAGE, TAG_LAUNCHED};

/// How often one is launched of an image within a day, by all runs together: a token names what it launched for a day
/// after that was terminated.
const ATTEMPTS: u32 = 32;
/// So many times as long as a run watches one, those of other builds are left to their runs.
const ABANDONED: u32 = 4;

impl Publisher {
    /// Launches one, waits for what it says of itself, and terminates it in any case.
    pub(super) async fn launch(
        &self,
        client: &Client,
        image: &str,
        kind: &str,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let there = self.there(client).await?;
        self.tidy(client, &there).await?;
        let id = match self.begin(client, &there, image, kind).await {
            Ok(id) => id,
            Err(error) if is_open(&error) => {
                return Err(self.undo(client, image, error, progress).await);
            }
            Err(error) => return Err(error),
        };
        let seen = self.watch(client, &id, progress).await;
        if let Err(error) = self.end(client, &id, progress).await {
            return Err(Error::Left {
                what: format!("instance {id} in {}", client.region),
                failure: seen.err().map(|error| chain(&error)),
                source: Box::new(error),
            });
        }
        let swept = self.sweep(client, &id).await;
        seen?;
        swept?;
        let tag = (TAG_LAUNCHED.to_owned(), kind.to_owned());
        client.tag(image, &[tag]).await
    }

    /// Asks whether one could be launched, of the image if there is one.
    pub(super) async fn may_launch(
        &self,
        client: &Client,
        image: Option<&str>,
        kind: &str,
    ) -> Result<(), Error> {
        let tags = self.tags();
        let image = image.unwrap_or("ami-00000000000000000");
        let launching = self.launching(image, kind, "", &tags);
        client.launch(&launching, Mode::Dry).await.map(drop)
    }

    fn tags(&self) -> Vec<(String, String)> {
        let check = (TAG_CHECK.to_owned(), self.desired.target.clone());
        self.desired.tags.iter().cloned().chain([check]).collect()
    }

    /// Instances that were launched for this check, of whatever build of the image.
    async fn there(&self, client: &Client) -> Result<Vec<Instance>, Error> {
        let tags = [
            (TAG_IMAGE, self.desired.subject.as_str()),
            (TAG_CHECK, self.desired.target.as_str()),
        ];
        client.instances(&tags).await
    }

    fn is_of_this_build(&self, instance: &Instance) -> bool {
        instance.manifest == self.desired.manifest
    }

    fn launching<'a>(
        &'a self,
        image: &'a str,
        kind: &'a str,
        token: &'a str,
        tags: &'a [(String, String)],
    ) -> Launching<'a> {
        let launch = self.desired.launch.as_ref();
        Launching {
            image,
            kind,
            subnet: launch.and_then(|launch| launch.subnet.as_deref()),
            imdsv2: self.desired.imdsv2,
            token,
            tags,
        }
    }

    /// Terminates what killed runs of other builds left: theirs may never be published again, so nobody else would.
    async fn tidy(&self, client: &Client, there: &[Instance]) -> Result<(), Error> {
        let watched = i64::try_from((self.bounds.boot * ABANDONED).as_secs()).unwrap_or(i64::MAX);
        let latest = now().saturating_sub(watched);
        let abandoned = there.iter().filter(|one| {
            let is_old = one.launched > 0 && one.launched < latest;
            is_old && !one.is_gone() && !self.is_of_this_build(one)
        });
        for one in abandoned {
            let (instance, region, build) = (&one.id, &client.region, &one.manifest);
            tracing::warn!(instance, region, build, "instance of a killed publish ends");
            gone(client.terminate(instance).await)?;
        }
        Ok(())
    }

    /// The one that a run before, or somebody else, launched of the same image; else a new one.
    async fn begin(
        &self,
        client: &Client,
        there: &[Instance],
        image: &str,
        kind: &str,
    ) -> Result<String, Error> {
        let same = |one: &&Instance| {
            one.is_live() && one.image == image && one.kind == kind && self.is_of_this_build(one)
        };
        if let Some(instance) = there.iter().filter(same).min_by_key(|one| &one.id) {
            return Ok(instance.id.clone());
        }
        let tags = self.tags();
        for attempt in 0..ATTEMPTS {
            let token = self
                .desired
                .launch_token(&client.region, image, kind, attempt);
            let launching = self.launching(image, kind, &token, &tags);
            match client.launch(&launching, Mode::Do).await {
                Err(Error::Refused { code, .. }) if code == "IdempotentInstanceTerminated" => {}
                Ok(instance) if !instance.is_live() => {}
                launched => return launched.map(|instance| instance.id),
            }
        }
        Err(Error::Mismatch {
            what: format!(
                "the number of instances of {image} in {} within a day",
                client.region
            ),
            found: format!("{ATTEMPTS}, and all are terminated"),
            expected: "less: see why none was healthy, and publish again tomorrow".to_owned(),
        })
    }

    /// Terminates what a launch made whose answer was lost, as soon as it can be seen; returns what is to be told.
    async fn undo(
        &self,
        client: &Client,
        image: &str,
        error: Error,
        progress: &dyn Progress,
    ) -> Error {
        let what = format!(
            "for an instance of {image} in {} to be seen, if there is one",
            client.region
        );
        let mut waiting = Waiting::new(what, self.bounds.patience(self.bounds.visible));
        loop {
            progress.waits(&self.desired.target, waiting.what());
            match self.sweep(client, "").await {
                Ok(0) if waiting.again("none").await.is_ok() => {}
                Ok(_) => return error,
                Err(source) => {
                    return Error::Left {
                        what: format!("an instance of {image} in {}", client.region),
                        failure: Some(chain(&error)),
                        source: Box::new(source),
                    };
                }
            }
        }
    }

    async fn watch(&self, client: &Client, id: &str, progress: &dyn Progress) -> Result<(), Error> {
        let what = format!("for {id} in {} to say that it is healthy", client.region);
        let mut waiting = Waiting::new(what, self.bounds.patience(self.bounds.boot));
        let mut ending: Option<Waiting> = None;
        loop {
            let instance = client.instance(id).await?;
            let last = match said(&client.console(id).await?, &self.desired.tree) {
                Said::Well => return Ok(()),
                Said::Ill(found) => return Err(self.unwell(client, id, found)),
                Said::Nothing(last) => last,
            };
            if let Some(ended) = instance.filter(|instance| !instance.is_live()) {
                // Somebody who publishes the same has seen enough of it.
                let region = observe(client, &self.desired).await?;
                let image = region.image().filter(|image| image.id == ended.image);
                if image.is_some_and(|image| image.tags.get(TAG_LAUNCHED) == Some(&ended.kind)) {
                    return Ok(());
                }
                // They terminate it first, and tag then.
                let soon = ending.get_or_insert_with(|| {
                    let what = format!("for {} to be tagged", ended.image);
                    Waiting::new(what, self.bounds.patience(self.bounds.visible))
                });
                if !ended.was_terminated() || soon.again("it is not").await.is_err() {
                    let found = format!("{} {}; its last words: {last}", ended.state, ended.reason);
                    return Err(self.unwell(client, id, found));
                }
                continue;
            }
            progress.waits(&self.desired.target, waiting.what());
            waiting.again(last).await?;
        }
    }

    fn unwell(&self, client: &Client, id: &str, found: String) -> Error {
        Error::Mismatch {
            what: format!("instance {id} in {}", client.region),
            found,
            expected: format!("healthy, with tree {}", self.desired.tree),
        }
    }

    /// Terminates one by its id, which lists may not show yet, and again while the cloud does not know it or rests.
    async fn end(&self, client: &Client, id: &str, progress: &dyn Progress) -> Result<(), Error> {
        let what = format!("for {id} in {} to be terminated", client.region);
        let mut waiting = Waiting::new(what, self.bounds.patience(self.bounds.visible));
        loop {
            let error = match client.terminate(id).await {
                Err(error) if is_open(&error) || is_unknown(&error) => error,
                ended => return ended,
            };
            progress.waits(&self.desired.target, waiting.what());
            if waiting.again("it is not").await.is_err() {
                return Err(error);
            }
        }
    }

    /// Terminates all others of this build, also those of runs that were killed; says how many.
    async fn sweep(&self, client: &Client, but: &str) -> Result<usize, Error> {
        let there = self.there(client).await?;
        let others = there
            .iter()
            .filter(|one| self.is_of_this_build(one) && !one.is_gone() && one.id != but);
        let mut count = 0;
        for one in others {
            gone(client.terminate(&one.id).await)?;
            count += 1;
        }
        Ok(count)
    }
}

/// Whether it is not known after a failure if what was asked for was done.
fn is_open(error: &Error) -> bool {
    match error {
        Error::Transport { .. } | Error::Deadline { .. } | Error::Protocol { .. } => true,
        // Nothing was launched where there is no room, although that is answered like a failure of the cloud.
        Error::Refused { status, code, .. } => *status >= 500 && !code.contains("Capacity"),
        _ => false,
    }
}

/// Whether the cloud does not know an instance: not yet, or not any more.
fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::Refused { code, .. } if code == "InvalidInstanceID.NotFound")
}

/// What was in a list and is not known was terminated long ago.
fn gone(answer: Result<(), Error>) -> Result<(), Error> {
    match answer {
        Err(error) if is_unknown(&error) => Ok(()),
        answer => answer,
    }
}
