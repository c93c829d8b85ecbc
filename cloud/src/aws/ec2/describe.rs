//! What EC2 tells about images and snapshots.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::Node;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Client, Grants, Query};
use crate::aws::wire;
use crate::error::Error;

/// Answers that are asked for at once; EC2 gives up to a thousand.
const PAGE: &str = "500";
/// More pages than this are none of one image.
const PAGES: usize = 100;

/// An image of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `pending`, `available`, `failed`, …
    pub state: String,
    /// Why it failed.
    pub reason: String,
    /// When it was made, in seconds since 1970; 0 when that is not known.
    pub created: i64,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// How it boots.
    pub boot_mode: String,
    /// `v2.0`, or nothing.
    pub tpm: String,
    /// `v2.0`, or nothing.
    pub imds: String,
    /// Whether it has the enhanced network adapter.
    pub ena: bool,
    /// Whether everybody may use it.
    pub public: bool,
    /// Its first disk's device.
    pub root: String,
    /// Its disks.
    pub mappings: Vec<Mapping>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// From when on it is deprecated.
    pub deprecated: Option<String>,
    /// Whether it cannot be deregistered.
    pub protected: bool,
}

/// A disk of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Its device.
    pub device: String,
    /// The snapshot that it begins as.
    pub snapshot: String,
    /// Its size in GiB.
    pub size: u64,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

/// A snapshot of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// `pending`, `completed`, `error`, …
    pub state: String,
    /// When it was begun, in seconds since 1970.
    pub begun: i64,
    /// Size of its volume in GiB.
    pub size: u64,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Bytes that are paid for, when the cloud tells.
    pub bytes: Option<u64>,
    /// What it says of itself: that of an upload of ours is ours.
    pub description: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Client {
    /// Our images that have all of these tags.
    pub(in crate::aws) async fn images(&self, tags: &[(&str, &str)]) -> Result<Vec<Image>, Error> {
        let query = Query::new("list images", "DescribeImages").list("Owner", ["self"]);
        // One that somebody disabled is there, and has its name.
        let query = query.with("IncludeDisabled", "true");
        self.described(tagged(query, tags), "imagesSet", image)
            .await
    }

    /// Our images of a name, whatever their tags.
    pub(in crate::aws) async fn images_named(&self, name: &str) -> Result<Vec<Image>, Error> {
        let query = Query::new(format!("look for image `{name}`"), "DescribeImages");
        let query = query.list("Owner", ["self"]).filter(1, "name", name);
        let query = query.with("IncludeDisabled", "true");
        self.described(query, "imagesSet", image).await
    }

    /// Our snapshots that have all of these tags.
    pub(in crate::aws) async fn snapshots(
        &self,
        tags: &[(&str, &str)],
    ) -> Result<Vec<Snapshot>, Error> {
        let query = Query::new("list snapshots", "DescribeSnapshots").list("Owner", ["self"]);
        self.described(tagged(query, tags), "snapshotSet", snapshot)
            .await
    }

    /// One snapshot, when it can be seen.
    pub(in crate::aws) async fn snapshot(&self, id: &str) -> Result<Option<Snapshot>, Error> {
        let query = Query::new(format!("look at {id}"), "DescribeSnapshots");
        let query = query.list("Owner", ["self"]).filter(1, "snapshot-id", id);
        let found = self.described(query, "snapshotSet", snapshot).await?;
        Ok(found.into_iter().find(|snapshot| snapshot.id == id))
    }

    pub(super) async fn described<T>(
        &self,
        query: Query,
        set: &str,
        read: fn(Node<'_, '_>) -> T,
    ) -> Result<Vec<T>, Error> {
        self.pages(query.with("MaxResults", PAGE), set, read).await
    }

    /// All pages of a list.
    async fn pages<T>(
        &self,
        query: Query,
        set: &str,
        read: fn(Node<'_, '_>) -> T,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES {
            let mut page = query.clone();
            if let Some(token) = &next {
                page = page.with("NextToken", token);
            }
            let text = self.ec2(page).await?;
            let document = wire::document(&text).ok_or_else(|| malformed(set))?;
            let root = document.root_element();
            wire::child(root, set).ok_or_else(|| malformed(set))?;
            found.extend(wire::items(root, set).map(read));
            match wire::text(root, "nextToken") {
                Some(token) if !token.is_empty() => next = Some(token.to_owned()),
                _ => return Ok(found),
            }
        }
        Err(Error::Protocol {
            what: format!("read `{set}`"),
            reason: "the list does not end".to_owned(),
        })
    }

    /// Who may use an image.
    pub(in crate::aws) async fn grants(&self, image: &str) -> Result<Grants, Error> {
        let query = Query::new(
            format!("read who may use {image}"),
            "DescribeImageAttribute",
        );
        let query = query
            .with("ImageId", image)
            .with("Attribute", "launchPermission");
        let text = self.ec2(query).await?;
        let document = wire::document(&text).ok_or_else(|| malformed("launchPermission"))?;
        let mut grants = Grants::default();
        for item in wire::items(document.root_element(), "launchPermission") {
            let read = |name| wire::text(item, name).map(str::to_owned);
            grants.accounts.extend(read("userId"));
            grants.organisations.extend(read("organizationArn"));
            grants.units.extend(read("organizationalUnitArn"));
            grants.everybody |= wire::text(item, "group") == Some("all");
        }
        Ok(grants)
    }

    /// Accounts that may use a snapshot.
    pub(in crate::aws) async fn snapshot_grants(
        &self,
        id: &str,
    ) -> Result<BTreeSet<String>, Error> {
        let query = Query::new(
            format!("read who may use {id}"),
            "DescribeSnapshotAttribute",
        );
        let query = query
            .with("SnapshotId", id)
            .with("Attribute", "createVolumePermission");
        let text = self.ec2(query).await?;
        let document = wire::document(&text).ok_or_else(|| malformed("createVolumePermission"))?;
        let items = wire::items(document.root_element(), "createVolumePermission");
        Ok(items
            .filter_map(|item| wire::text(item, "userId").map(str::to_owned))
            .collect())
    }

    /// What uses an image: instances, launch templates, parameters of ours.
    pub(in crate::aws) async fn references(&self, image: &str) -> Result<Vec<String>, Error> {
        let query = Query::new(format!("ask what uses {image}"), "DescribeImageReferences");
        let query = query
            .list("ImageId", [image])
            .with("IncludeAllResourceTypes", "true");
        let arn = |item: Node<'_, '_>| wire::text(item, "arn").map(str::to_owned);
        let found = self.pages(query, "imageReferenceSet", arn).await?;
        // One that cannot be named is one, too.
        let named = found
            .into_iter()
            .map(|arn| arn.unwrap_or_else(|| "something".to_owned()));
        Ok(named.collect())
    }

    /// Whether images of this region may be shared with everybody.
    pub(in crate::aws) async fn blocks_public(&self) -> Result<bool, Error> {
        let query = Query::new(
            "ask whether images may be public",
            "GetImageBlockPublicAccessState",
        );
        let text = self.ec2(query).await?;
        let document =
            wire::document(&text).ok_or_else(|| malformed("imageBlockPublicAccessState"))?;
        let state = wire::text(document.root_element(), "imageBlockPublicAccessState");
        Ok(state != Some("unblocked"))
    }

    /// Whether every new disk of this region is encrypted, whatever it is asked for with.
    pub(in crate::aws) async fn encrypts(&self) -> Result<bool, Error> {
        let query = Query::new(
            "ask whether disks are encrypted by default",
            "GetEbsEncryptionByDefault",
        );
        let text = self.ec2(query).await?;
        let document = wire::document(&text).ok_or_else(|| malformed("ebsEncryptionByDefault"))?;
        let word = wire::text(document.root_element(), "ebsEncryptionByDefault");
        Ok(word == Some("true"))
    }

    /// All regions, and whether each is enabled for the account.
    pub(in crate::aws) async fn regions(&self) -> Result<BTreeMap<String, bool>, Error> {
        let query = Query::new("list regions", "DescribeRegions").with("AllRegions", "true");
        let text = self.ec2(query).await?;
        let document = wire::document(&text).ok_or_else(|| malformed("regionInfo"))?;
        let items = wire::items(document.root_element(), "regionInfo");
        let read = |item| {
            let name = wire::text(item, "regionName")?.to_owned();
            Some((
                name,
                wire::text(item, "optInStatus") != Some("not-opted-in"),
            ))
        };
        Ok(items.filter_map(read).collect())
    }
}

pub(super) fn tagged(mut query: Query, tags: &[(&str, &str)]) -> Query {
    for (index, (key, value)) in tags.iter().enumerate() {
        query = query.filter(index + 1, &format!("tag:{key}"), value);
    }
    query
}

pub(super) fn malformed(what: &str) -> Error {
    Error::Protocol {
        what: format!("read `{what}` in an answer of EC2"),
        reason: "it cannot be read".to_owned(),
    }
}

fn image(node: Node<'_, '_>) -> Image {
    let read = |name| wire::text(node, name).unwrap_or_default().to_owned();
    let reason = wire::child(node, "stateReason").and_then(|reason| wire::text(reason, "message"));
    Image {
        id: read("imageId"),
        name: read("name"),
        state: read("imageState"),
        reason: reason.unwrap_or_default().to_owned(),
        created: seconds(&read("creationDate")),
        architecture: read("architecture"),
        boot_mode: read("bootMode"),
        tpm: read("tpmSupport"),
        imds: read("imdsSupport"),
        ena: read("enaSupport") == "true",
        public: read("isPublic") == "true",
        root: read("rootDeviceName"),
        mappings: wire::items(node, "blockDeviceMapping")
            .filter_map(mapping)
            .collect(),
        tags: tags(node),
        deprecated: wire::text(node, "deprecationTime").map(str::to_owned),
        protected: read("deregistrationProtection").starts_with("enabled"),
    }
}

fn mapping(node: Node<'_, '_>) -> Option<Mapping> {
    let ebs = wire::child(node, "ebs")?;
    let read = |name| wire::text(ebs, name).unwrap_or_default().to_owned();
    Some(Mapping {
        device: wire::text(node, "deviceName")?.to_owned(),
        snapshot: read("snapshotId"),
        size: read("volumeSize").parse().unwrap_or_default(),
        encrypted: read("encrypted") == "true",
    })
}

fn snapshot(node: Node<'_, '_>) -> Snapshot {
    let read = |name| wire::text(node, name).unwrap_or_default().to_owned();
    Snapshot {
        id: read("snapshotId"),
        state: read("status"),
        begun: seconds(&read("startTime")),
        size: read("volumeSize").parse().unwrap_or_default(),
        encrypted: read("encrypted") == "true",
        bytes: read("fullSnapshotSizeInBytes").parse().ok(),
        description: read("description"),
        tags: tags(node),
    }
}

pub(super) fn tags(node: Node<'_, '_>) -> BTreeMap<String, String> {
    let pair = |item| {
        let value = wire::text(item, "value").unwrap_or_default();
        Some((wire::text(item, "key")?.to_owned(), value.to_owned()))
    };
    wire::items(node, "tagSet").filter_map(pair).collect()
}

/// Reads a time; what is none is the beginning of all.
pub(in crate::aws) fn seconds(text: &str) -> i64 {
    OffsetDateTime::parse(text, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp)
}
