//! The calls of EC2 that we make, typed.
//!
//! It refuses to decide anything: what to call when is the plan's.

mod describe;
mod instances;

pub(super) use describe::seconds;
pub use describe::{Image, Mapping, Snapshot};
pub(super) use instances::{Instance, Launching};

use std::collections::BTreeSet;

use super::client::{Client, Query};
use super::wire;
use crate::error::Error;

/// Who may use an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Accounts.
    pub accounts: BTreeSet<String>,
    /// ARNs of organisations.
    pub organisations: BTreeSet<String>,
    /// ARNs of organisational units.
    pub units: BTreeSet<String>,
    /// Whether everybody may.
    pub everybody: bool,
}

impl Grants {
    /// Those of these that others do not have.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        Self {
            accounts: &self.accounts - &others.accounts,
            organisations: &self.organisations - &others.organisations,
            units: &self.units - &others.units,
            everybody: self.everybody && !others.everybody,
        }
    }

    /// Whether nobody is granted anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// All of them, for people.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let named = self
            .accounts
            .iter()
            .chain(&self.organisations)
            .chain(&self.units);
        let everybody = self.everybody.then(|| "everybody".to_owned());
        everybody.into_iter().chain(named.cloned()).collect()
    }

    fn add_to(&self, mut query: Query, prefix: &str) -> Query {
        let mut entries = Vec::new();
        entries.extend(self.accounts.iter().map(|id| ("UserId", id.as_str())));
        entries.extend(
            self.organisations
                .iter()
                .map(|arn| ("OrganizationArn", arn.as_str())),
        );
        entries.extend(
            self.units
                .iter()
                .map(|arn| ("OrganizationalUnitArn", arn.as_str())),
        );
        if self.everybody {
            entries.push(("Group", "all"));
        }
        for (index, (kind, value)) in entries.into_iter().enumerate() {
            query = query.with(format!("{prefix}.{}.{kind}", index + 1), value);
        }
        query
    }
}

/// What an image is registered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registration<'a> {
    pub name: &'a str,
    pub description: &'a str,
    pub architecture: &'a str,
    pub boot_mode: &'a str,
    pub tpm: bool,
    pub imdsv2: bool,
    pub ena: bool,
    pub snapshot: &'a str,
    pub tags: &'a [(String, String)],
}

/// Whether something is done, or only asked whether it could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Do,
    Dry,
}

/// Device of the first disk, as Amazon's own images name it.
pub(super) const ROOT: &str = "/dev/xvda";

impl Client {
    /// Registers an image; returns its id, which is empty when only asked.
    pub(super) async fn register(
        &self,
        image: &Registration<'_>,
        mode: Mode,
    ) -> Result<String, Error> {
        let mut query = Query::new(format!("register image `{}`", image.name), "RegisterImage")
            .with("Name", image.name)
            .with("Description", image.description)
            .with("Architecture", image.architecture)
            .with("VirtualizationType", "hvm")
            .with("BootMode", image.boot_mode)
            .with("RootDeviceName", ROOT)
            .with("BlockDeviceMapping.1.DeviceName", ROOT)
            .with("BlockDeviceMapping.1.Ebs.SnapshotId", image.snapshot)
            .with("BlockDeviceMapping.1.Ebs.VolumeType", "gp3")
            .with("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true")
            .with("EnaSupport", if image.ena { "true" } else { "false" });
        if image.tpm {
            query = query.with("TpmSupport", "v2.0");
        }
        if image.imdsv2 {
            query = query.with("ImdsSupport", "v2.0");
        }
        if mode == Mode::Dry {
            query = query.with("DryRun", "true");
        }
        let answer = self.ec2(query.tags(1, "image", image.tags)).await?;
        made(&answer, "imageId", mode)
    }

    /// Copies an image from another region to this one; returns its id, which is empty when only asked.
    pub(super) async fn copy(&self, copy: &Copying<'_>, mode: Mode) -> Result<String, Error> {
        let what = format!("copy image `{}` from {}", copy.name, copy.region);
        let mut query = Query::new(what, "CopyImage")
            .with("Name", copy.name)
            .with("Description", copy.description)
            .with("SourceRegion", copy.region)
            .with("SourceImageId", copy.image);
        if mode == Mode::Do {
            query = query.with("ClientToken", copy.token);
        } else {
            query = query.with("DryRun", "true");
        }
        if let Some(key) = copy.key {
            query = query.with("Encrypted", "true").with("KmsKeyId", key);
        }
        let query = query
            .tags(1, "image", copy.tags)
            .tags(2, "snapshot", copy.tags);
        made(&self.ec2(query).await?, "imageId", mode)
    }

    pub(super) async fn tag(&self, object: &str, tags: &[(String, String)]) -> Result<(), Error> {
        let mut query =
            Query::new(format!("tag {object}"), "CreateTags").with("ResourceId.1", object);
        for (index, (key, value)) in tags.iter().enumerate() {
            let tag = format!("Tag.{}", index + 1);
            query = query
                .with(format!("{tag}.Key"), key)
                .with(format!("{tag}.Value"), value);
        }
        self.ec2(query).await.map(drop)
    }

    pub(super) async fn share(
        &self,
        image: &str,
        add: &Grants,
        remove: &Grants,
    ) -> Result<(), Error> {
        let query = Query::new(
            format!("change who may use {image}"),
            "ModifyImageAttribute",
        );
        let query = query.with("ImageId", image);
        let query = add.add_to(query, "LaunchPermission.Add");
        let query = remove.add_to(query, "LaunchPermission.Remove");
        self.ec2(query).await.map(drop)
    }

    pub(super) async fn share_snapshot(
        &self,
        snapshot: &str,
        add: &BTreeSet<String>,
        remove: &BTreeSet<String>,
    ) -> Result<(), Error> {
        let what = format!("change who may use {snapshot}");
        let mut query = Query::new(what, "ModifySnapshotAttribute").with("SnapshotId", snapshot);
        for (word, accounts) in [("Add", add), ("Remove", remove)] {
            for (index, account) in accounts.iter().enumerate() {
                let name = format!("CreateVolumePermission.{word}.{}.UserId", index + 1);
                query = query.with(name, account);
            }
        }
        self.ec2(query).await.map(drop)
    }

    /// `at` is RFC 3339, whole minutes in UTC.
    pub(super) async fn deprecate(&self, image: &str, at: &str) -> Result<(), Error> {
        let query = Query::new(
            format!("deprecate {image} from {at} on"),
            "EnableImageDeprecation",
        );
        self.ec2(query.with("ImageId", image).with("DeprecateAt", at))
            .await
            .map(drop)
    }

    pub(super) async fn protect(&self, image: &str) -> Result<(), Error> {
        let what = format!("protect {image} from deregistration");
        let query = Query::new(what, "EnableImageDeregistrationProtection");
        self.ec2(query.with("ImageId", image)).await.map(drop)
    }

    /// Deregisters an image and deletes the snapshots that nothing else uses.
    pub(super) async fn deregister(&self, image: &str) -> Result<(), Error> {
        let query = Query::new(format!("deregister {image}"), "DeregisterImage");
        let query = query
            .with("ImageId", image)
            .with("DeleteAssociatedSnapshots", "true");
        gone(
            self.ec2(query).await,
            &["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"],
        )
    }

    /// Deletes a snapshot unless somebody uses it; says whether it is gone.
    pub(super) async fn delete_snapshot(&self, snapshot: &str) -> Result<bool, Error> {
        let query = Query::new(format!("delete {snapshot}"), "DeleteSnapshot");
        match self.ec2(query.with("SnapshotId", snapshot)).await {
            Err(Error::Refused { code, message, .. }) if code == "InvalidSnapshot.InUse" => {
                let region = &self.region;
                tracing::warn!(snapshot, region, message, "snapshot is in use and stays");
                Ok(false)
            }
            deleted => gone(deleted, &["InvalidSnapshot.NotFound"]).map(|()| true),
        }
    }
}

/// What is copied to a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copying<'a> {
    pub name: &'a str,
    pub description: &'a str,
    pub region: &'a str,
    pub image: &'a str,
    pub token: &'a str,
    pub key: Option<&'a str>,
    pub tags: &'a [(String, String)],
}

/// What is gone already was removed by somebody else, or by us before a kill.
fn gone(answer: Result<String, Error>, codes: &[&str]) -> Result<(), Error> {
    match answer {
        Err(Error::Refused { code, .. }) if codes.contains(&code.as_str()) => Ok(()),
        answer => answer.map(drop),
    }
}

fn made(answer: &str, name: &str, mode: Mode) -> Result<String, Error> {
    if mode == Mode::Dry {
        return Ok(String::new());
    }
    let document = wire::document(answer);
    let id = document
        .as_ref()
        .and_then(|document| wire::find(document.root(), name)?.text());
    id.map(str::to_owned).ok_or_else(|| Error::Protocol {
        what: format!("read `{name}` in an answer of EC2"),
        reason: "it is not there".to_owned(),
    })
}
