//! Makes one change of a plan.
//!
//! It refuses to make an image of bytes that nobody compared.

use super::compute::Change;
use super::notes::{Note, Notebook};
use super::plan::{Action, Deprecated};
use super::publisher::Publisher;
use super::upload::{Sender, checksum, compare};
use crate::error::Error;
use crate::provider::Progress;
use crate::uuid::uuid;

impl Publisher {
    /// Makes one change.
    pub(super) async fn act(
        &mut self,
        action: &Action,
        notebook: &mut Notebook,
        progress: &dyn Progress,
    ) -> Result<Change, Error> {
        let name = &self.desired.name;
        Ok(match action {
            Action::Upload => {
                let sender = Sender {
                    storage: &self.storage,
                    desired: &self.desired,
                    disk: &self.disk,
                    notebook,
                };
                self.compared = sender.run(progress).await?;
                match self.compared {
                    Some(_) => Change::Done,
                    None => Change::gone(name),
                }
            }
            Action::Insert => self.insert(notebook).await?,
            Action::RemoveFailed => self.compute.delete(name).await?,
            Action::RemoveObject => {
                if let Some(object) = &self.observed.object {
                    self.storage
                        .remove(&self.desired.object, &object.generation)
                        .await?;
                }
                Change::Done
            }
            Action::SetLabels => match &self.observed.image {
                Some(image) => self.compute.set_labels(image, &self.desired.labels).await?,
                None => Change::gone(name),
            },
            Action::Share(members) => match self.compute.policy(name).await? {
                Some(mut policy) => {
                    policy.add(members);
                    self.compute.set_policy(name, &policy).await?
                }
                None => Change::gone(name),
            },
            Action::Activate(from) => {
                let active = Deprecated {
                    state: "ACTIVE".to_owned(),
                    replacement: None,
                    from: *from,
                };
                self.compute.deprecate(name, &active).await?
            }
            Action::SetFamily(family) => self.compute.set_family(name, family).await?,
            Action::Supersede(other) => {
                let replaced = Deprecated {
                    state: "DEPRECATED".to_owned(),
                    replacement: Some(name.clone()),
                    from: None,
                };
                self.compute.deprecate(other, &replaced).await?
            }
        })
    }

    async fn insert(&mut self, notebook: &mut Notebook) -> Result<Change, Error> {
        let desired = &self.desired;
        let Some(object) = &self.observed.object else {
            return Ok(Change::gone(&desired.name));
        };
        if self.compared.as_ref() != Some(&object.generation) {
            // Somebody else sent it, or a run that was killed before it could compare.
            let sum = checksum(&self.disk, desired.size).await?;
            if let Err(error) = compare(desired, object, sum) {
                self.storage
                    .remove(&desired.object, &object.generation)
                    .await?;
                return Err(error);
            }
            self.compared = Some(object.generation.clone());
        }
        let failed = notebook.failed();
        let id = format!(
            "{}\n{}\n{}\n{}\n{failed}",
            self.key, desired.project, desired.name, object.generation
        );
        let source = format!(
            "{}/{}/{}",
            self.target.endpoints.storage, desired.bucket, desired.object
        );
        let made = self.compute.insert(desired, &source, &uuid(&id)).await;
        if let Err(Error::Refused { .. }) = &made {
            // The cloud answers the same to the same id for hours.
            notebook.note(Note::Failed(failed + 1))?;
        }
        made
    }
}
