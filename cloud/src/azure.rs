//! Microsoft's cloud: a page blob becomes a managed image, or a version in a compute gallery that is replicated and, last of
//! all, offered as the latest.
//!
//! It refuses to take an object for ours by its name: its tags have our manifest's digest, or it is somebody else's.

pub mod arm;
pub mod blob;
pub mod bodies;
mod check;
pub mod credentials;
mod execute;
mod inventory;
pub mod names;
mod observe;
pub mod observed;
pub mod permissions;
pub mod plan;
pub mod ranges;
pub mod shared_key;
pub mod target;
pub mod upload;
mod users;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::authorize::Authorize;
use crate::error::Error;
use crate::patience::Patience;
use crate::provider::{
    Finding, Options, Pending, Progress, Provider, Published, Receipt, Stage, Step,
};
use crate::subject::{Disk, Subject};

use arm::Arm;
use blob::Blob;
use credentials::{Environment, Tokens};
use names::{Desired, Kind};
use observed::Observed;
use shared_key::SharedKey;

pub use names::version;
#[cfg(feature = "fake")]
pub use shared_key::{sign, to_sign};
pub use target::{
    Controller, Endpoints, Gallery, Generation, Region, SecurityType, Share, Storage, Target,
};

/// The resource manager of everybody; sovereign clouds have others.
const ARM: &str = "https://management.azure.com";
/// What tokens for blobs are for, in every cloud.
const BLOBS: &str = "https://storage.azure.com";

/// Publishes one image to one target.
#[derive(Debug)]
pub struct Publisher {
    desired: Desired,
    disk: Option<Arc<dyn Disk>>,
    arm: Arm,
    blob: Blob,
    /// Whether blobs are asked for with the account's key, which no role limits.
    keyed: bool,
    pages: Patience,
    journal: PathBuf,
    observed: Observed,
}

impl Publisher {
    /// A publisher with the credentials of this process's environment.
    ///
    /// # Errors
    /// When the image cannot be published so.
    pub fn new(target: &Target, subject: &Subject, options: &Options) -> Result<Self, Error> {
        Self::in_environment(target, subject, options, &Environment::of_process())
    }

    /// A publisher with the credentials of an environment.
    ///
    /// # Errors
    /// When the image cannot be published so.
    pub fn in_environment(
        target: &Target,
        subject: &Subject,
        options: &Options,
        environment: &Environment,
    ) -> Result<Self, Error> {
        let desired = Desired::new(target, subject)?;
        let http = &options.http;
        let tokens = |audience: &str| -> Arc<dyn Authorize> {
            let login = target.endpoints.login.clone();
            Arc::new(Tokens::new(
                http.clone(),
                environment.clone(),
                login,
                audience,
            ))
        };
        let key = environment.variable("AZURE_STORAGE_KEY");
        let storage = match key {
            Some(key) => Arc::new(SharedKey::new(&target.storage_account, key)?),
            None => tokens(BLOBS),
        };
        let arm = target.arm();
        // A token is for the resource manager of its cloud; a fake on this computer takes everybody's.
        let audience = if arm.starts_with("https://") {
            &arm
        } else {
            ARM
        };
        let whole = Duration::from_mins(u64::from(target.timeout_minutes));
        Ok(Self {
            blob: Blob::new(http.clone(), storage, desired.blob_url()),
            arm: Arm::new(http.clone(), tokens(audience), arm.clone(), whole),
            keyed: key.is_some(),
            pages: Patience {
                whole: Duration::from_mins(10),
                ..Patience::CALL
            },
            disk: subject.disk.clone(),
            journal: options.journal.clone(),
            observed: Observed::default(),
            desired,
        })
    }

    /// Waits for what takes long within other bounds.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.arm.patience = patience;
        self
    }

    fn stage(&self) -> Stage {
        let left = plan::plan(&self.desired, &self.observed);
        let first = left.iter().map(|(stage, _)| *stage).min();
        match first {
            None => Stage::Current,
            Some(Stage::Current) => Stage::Shared,
            Some(_) => Stage::Private,
        }
    }
}

impl Provider for Publisher {
    fn target(&self) -> &str {
        &self.desired.target.name
    }

    fn observe(&mut self) -> Pending<'_, Result<(), Error>> {
        Box::pin(self.look())
    }

    fn check(&mut self) -> Pending<'_, Result<Vec<Finding>, Error>> {
        Box::pin(self.findings())
    }

    fn plan(&self) -> Vec<Step> {
        let plan = plan::plan(&self.desired, &self.observed);
        let steps = plan
            .iter()
            .map(|(stage, act)| act.step(&self.desired, *stage));
        steps.collect()
    }

    fn advance<'a>(
        &'a mut self,
        stage: Stage,
        progress: &'a dyn Progress,
    ) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.execute(stage, progress))
    }

    fn receipts(&self) -> Vec<Receipt> {
        let desired = &self.desired;
        let receipt = |kind: &str, place: &str, id: String| Receipt {
            target: desired.target.name.clone(),
            provider: "azure".to_owned(),
            kind: kind.to_owned(),
            place: place.to_owned(),
            id,
            name: desired.name().to_owned(),
            stage: self.stage(),
        };
        let mut receipts = Vec::new();
        if let Some(object) = &self.observed.object {
            match &desired.kind {
                Kind::Image { .. } => {
                    receipts.push(receipt(
                        "image",
                        &desired.target.location,
                        object.path.clone(),
                    ));
                }
                Kind::Version { .. } => receipts.extend(
                    object
                        .regions
                        .keys()
                        .map(|region| receipt("gallery-version", region, object.path.clone())),
                ),
            }
        }
        if self.observed.blob.is_some() {
            let url = self.blob.url().to_owned();
            receipts.push(receipt("page-blob", &desired.target.location, url));
        }
        receipts
    }

    fn inventory(&mut self) -> Pending<'_, Result<Vec<Published>, Error>> {
        Box::pin(self.all())
    }

    fn deprecate<'a>(
        &'a mut self,
        published: &'a Published,
        from: i64,
    ) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.end(published, from))
    }

    fn remove<'a>(&'a mut self, published: &'a Published) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.drop_object(published))
    }
}
