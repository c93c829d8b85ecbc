//! Doing: one stage after the other, each change read back before the next.
//!
//! It refuses to repeat a change blindly: whatever fails because somebody else did the same is looked at again first.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::Publisher;
use super::arm::{Operation, Progress as Goes, Taken, Wait};
use super::bodies;
use super::names::{COMPUTE, GALLERY, Kind};
use super::observed::{Copies, Object, State};
use super::plan::{self, Act};
use super::upload::Upload;
use crate::api::Refusal;
use crate::error::Error;
use crate::journal::Journal;
use crate::provider::{Progress, Stage};

/// A stage is finished after so many looks, or somebody works against us.
const ROUNDS: usize = 8;

/// What a change is waited for to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The resource is there, whole.
    Ready,
    /// It is gone.
    Gone,
}

/// Whether a version is a candidate when the latest is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latest {
    Considered,
    PassedOver,
}

impl Publisher {
    /// Does what is left of a stage.
    pub(super) async fn execute(
        &mut self,
        stage: Stage,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let mut left = Vec::new();
        for _ in 0..ROUNDS {
            self.look().await?;
            left = plan::plan(&self.desired, &self.observed);
            left.retain(|(of, _)| *of == stage);
            if left.is_empty() {
                return Ok(());
            }
            for (_, act) in &left {
                progress.begins(&act.step(&self.desired, stage));
                let Err(error) = self.act(act, progress).await else {
                    continue;
                };
                self.forgive(error, act).await?;
                break;
            }
        }
        let steps = left.iter().map(|(_, act)| act.step(&self.desired, stage));
        let steps: Vec<String> = steps
            .map(|step| format!("{} {}", step.action, step.object))
            .collect();
        Err(Error::Protocol {
            what: format!("finish the stage `{}`", stage.label()),
            reason: format!("after {ROUNDS} tries there is still: {}", steps.join(", ")),
        })
    }

    /// What failed may have failed because another publisher was faster: then its result is ours.
    async fn forgive(&self, error: Error, act: &Act) -> Result<(), Error> {
        let making = matches!(act, Act::Upload | Act::Create | Act::Await);
        let refused = matches!(error, Error::Refused { .. });
        if !making || !refused {
            return Err(error);
        }
        match self.object().await? {
            // What somebody began and what failed is made anew.
            Some(object) if object.state != State::Failed || *act == Act::Await => Ok(()),
            _ => Err(error),
        }
    }

    async fn act(&mut self, act: &Act, progress: &dyn Progress) -> Result<(), Error> {
        let path = self.desired.path.clone();
        match act {
            Act::Await => {
                let leaving = self.observed.object.as_ref();
                let leaving = leaving.is_some_and(|object| object.state == State::Leaving);
                let until = if leaving { Until::Gone } else { Until::Ready };
                self.settle(&path, None, until, progress).await
            }
            Act::RemoveFailed => self.delete(&path, progress).await,
            Act::Upload => self.upload(progress).await,
            Act::CreateDefinition => {
                let path = self.desired.definition_path().unwrap_or_default();
                let body = bodies::definition(&self.desired);
                self.write(Method::PUT, &path, &body, progress).await
            }
            Act::Create => {
                // Another publisher may have been faster, and may have offered it as the latest already.
                match self.object().await?.map(|object| object.state) {
                    None | Some(State::Failed) => {}
                    Some(State::Leaving) => {
                        self.settle(&path, None, Until::Gone, progress).await?;
                    }
                    Some(_) => return self.settle(&path, None, Until::Ready, progress).await,
                }
                let body = bodies::object(&self.desired, OffsetDateTime::now_utc());
                self.write(Method::PUT, &path, &body, progress).await?;
                self.read_back().await
            }
            Act::Update(_) => {
                let Some(object) = self.object().await? else {
                    return Ok(());
                };
                let body = bodies::updated(&self.desired, &object, OffsetDateTime::now_utc());
                self.write(Method::PATCH, &path, &body, progress).await
            }
            Act::RemoveBlob => match self.object().await? {
                // It is being made of this very blob; it is looked at once more.
                Some(object) if object.state == State::Working => Ok(()),
                _ => self.blob.remove().await,
            },
            Act::Share(group, id) => {
                let groups = json!([{ "type": group.label(), "ids": [id] }]);
                self.share(
                    &json!({ "operationType": "Add", "groups": groups }),
                    progress,
                )
                .await
            }
            Act::ShareWithAll => {
                self.share(&json!({ "operationType": "EnableCommunity" }), progress)
                    .await
            }
            Act::Include => self.offer(&path, Latest::Considered, progress).await,
            Act::Exclude(other) => self.offer(&other.path, Latest::PassedOver, progress).await,
        }
    }

    async fn upload(&mut self, progress: &dyn Progress) -> Result<(), Error> {
        let Some(disk) = &self.disk else {
            return Ok(());
        };
        let desired = &self.desired;
        let (mut journal, notes) =
            Journal::open(&self.journal, &desired.manifest, &desired.target.name)?;
        let upload = Upload {
            desired,
            blob: &self.blob,
            disk,
            patience: self.pages,
        };
        upload.run(&mut journal, notes, progress).await?;
        journal.clear()
    }

    /// Makes or changes a resource, and waits until it is what was asked for.
    pub(super) async fn write(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let what = format!("write `{path}`");
        let taken = self
            .arm
            .change(&what, method, path, version(path), Some(body));
        let operation = match taken.await? {
            Taken::Yes(operation) => operation,
            // Somebody else changes it: what comes of that is seen by looking again.
            Taken::Busy(refusal) => {
                tracing::debug!(path, code = refusal.code, "somebody else is changing it");
                if self.state(path).await?.is_none() {
                    return Err(refused(path, refusal));
                }
                None
            }
        };
        self.settle(path, operation, Until::Ready, progress).await
    }

    /// Removes a resource and waits until it is gone.
    pub(super) async fn delete(&self, path: &str, progress: &dyn Progress) -> Result<(), Error> {
        let what = format!("remove `{path}`");
        let taken = self
            .arm
            .change(&what, Method::DELETE, path, version(path), None);
        let operation = match taken.await? {
            Taken::Yes(operation) => operation,
            Taken::Busy(refusal) => return Err(refused(path, refusal)),
        };
        self.settle(path, operation, Until::Gone, progress).await
    }

    /// Offers a version as the latest, or no longer.
    async fn offer(
        &self,
        path: &str,
        latest: Latest,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let Some(object) = self.state(path).await? else {
            return Ok(());
        };
        let mut body = bodies::change(&object);
        body["properties"]["publishingProfile"]["excludeFromLatest"] =
            json!(latest == Latest::PassedOver);
        self.write(Method::PATCH, path, &body, progress).await
    }

    async fn share(&self, body: &Value, progress: &dyn Progress) -> Result<(), Error> {
        let gallery = self.desired.gallery_path().unwrap_or_default();
        let path = format!("{gallery}/share");
        let what = format!("share `{gallery}`");
        let taken = self
            .arm
            .change(&what, Method::POST, &path, GALLERY, Some(body));
        match taken.await? {
            Taken::Yes(operation) => {
                self.settle(&gallery, operation, Until::Ready, progress)
                    .await
            }
            Taken::Busy(refusal) => Err(refused(&gallery, refusal)),
        }
    }

    /// What a resource is now.
    pub(super) async fn state(&self, path: &str) -> Result<Option<Object>, Error> {
        let mut query = format!("api-version={}", version(path));
        if path.contains("/versions/") {
            query.push_str("&$expand=ReplicationStatus");
        }
        let read = self.arm.read(&format!("`{path}`"), path, &query).await?;
        Ok(read.as_ref().map(Object::read))
    }

    /// Waits until a resource is what was asked for.
    pub(super) async fn settle(
        &self,
        path: &str,
        mut operation: Option<Operation>,
        until: Until,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let goal = match until {
            Until::Ready => "ready",
            Until::Gone => "removed",
        };
        let mut wait = self.arm.wait(format!("for `{path}` to be {goal}"));
        loop {
            let mut asked = None;
            if let Some(asking) = &operation {
                match self.arm.progress(wait.what(), asking).await? {
                    Goes::Running(after) => asked = after,
                    Goes::Done => operation = None,
                    Goes::Failed(refusal) => return Err(refused(path, refusal)),
                }
            }
            let last = match self.seen(path, until, operation.as_ref()).await? {
                Ok(()) => return Ok(()),
                Err(last) => last,
            };
            self.pause(&mut wait, asked, &last, progress).await?;
        }
    }

    /// Whether a resource is what is waited for; otherwise what it is.
    async fn seen(
        &self,
        path: &str,
        until: Until,
        operation: Option<&Operation>,
    ) -> Result<Result<(), String>, Error> {
        let running = operation.is_some();
        let Some(object) = self.state(path).await? else {
            return Ok(match until {
                Until::Gone if !running => Ok(()),
                _ => Err("it is not there".to_owned()),
            });
        };
        // What copies of others do is not waited for.
        let copies = if path == self.desired.path {
            object.copies
        } else {
            Copies::Whole
        };
        Ok(match object.state {
            State::Failed if until == Until::Ready => {
                return Err(refused(
                    path,
                    Refusal {
                        code: "ProvisioningFailed".to_owned(),
                        message: object.detail,
                    },
                ));
            }
            _ if until == Until::Gone => Err("it is still there".to_owned()),
            State::Ready if copies == Copies::Failed => {
                return Err(refused(
                    path,
                    Refusal {
                        code: "ReplicationFailed".to_owned(),
                        message: object.detail,
                    },
                ));
            }
            State::Ready if copies == Copies::Whole && !running => Ok(()),
            State::Ready if copies == Copies::Whole => Err("its operation goes on".to_owned()),
            State::Leaving => Err("it is being removed".to_owned()),
            _ => Err(format!("it is being made {}", object.detail)
                .trim()
                .to_owned()),
        })
    }

    async fn pause(
        &self,
        wait: &mut Wait,
        asked: Option<Duration>,
        last: &str,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let said = format!("{}; {last}", wait.what());
        progress.waits(&self.desired.target.name, &said);
        wait.pause(asked, last).await
    }

    /// Compares what was made with what was asked for.
    async fn read_back(&self) -> Result<(), Error> {
        let Some(object) = self.object().await? else {
            return Ok(());
        };
        let desired = &self.desired;
        let mut differences = plan::differences(desired, &object);
        let generation = desired.target.hyper_v_generation.label();
        if matches!(desired.kind, Kind::Image { .. }) && object.generation != generation {
            differences.push(format!("generation {}", object.generation));
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::Mismatch {
            what: format!("`{}`", desired.path),
            found: format!("different in: {}", differences.join(", ")),
            expected: "what was asked for".to_owned(),
        })
    }
}

/// Version of the interface that a path belongs to.
fn version(path: &str) -> &'static str {
    if path.contains("/galleries/") {
        GALLERY
    } else {
        COMPUTE
    }
}

/// What a change came to that was taken at first.
fn refused(path: &str, refusal: Refusal) -> Error {
    let plain = |text: String| text.chars().filter(|c| !c.is_control()).take(400).collect();
    Error::Refused {
        what: format!("change `{path}`"),
        status: 409,
        code: plain(refusal.code),
        message: plain(refusal.message),
    }
}
