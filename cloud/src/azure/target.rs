//! Microsoft's cloud in the targets file.
//!
//! It refuses what the cloud would refuse later, after an hour of uploading.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Uri;
use serde::{Deserialize, Serialize};

/// Where an image goes in Microsoft's cloud: a managed image, or a version in a compute gallery.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Target {
    /// Its name in the targets file.
    pub name: String,
    /// The subscription's id.
    pub subscription: String,
    /// The resource group of the image or gallery.
    pub resource_group: String,
    /// Where the image is, such as `westeurope`.
    pub location: String,
    /// The storage account that the disk is uploaded to, at the same location.
    pub storage_account: String,
    /// Its resource group, when it is another one.
    #[serde(default)]
    pub storage_resource_group: Option<String>,
    /// The container in it, which exists.
    pub container: String,
    /// Name of a managed image; `{image}`, `{version}` and `{architecture}` are replaced.
    #[serde(default)]
    pub image_name: Option<String>,
    /// The gallery, when the image becomes a version in one.
    #[serde(default)]
    pub gallery: Option<Gallery>,
    /// Which firmware virtual machines get.
    #[serde(default)]
    pub hyper_v_generation: Generation,
    /// Tags beside those that every object carries.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Whether the uploaded disk stays in the container.
    #[serde(default)]
    pub keep_blob: bool,
    /// Longest time that the cloud may take to make and replicate the image.
    #[serde(default = "timeout")]
    pub timeout_minutes: u32,
    /// Other addresses of the cloud: sovereign clouds, fakes.
    #[serde(default)]
    pub endpoints: Endpoints,
}

/// A compute gallery.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gallery {
    /// Its name; it exists.
    pub name: String,
    /// Name of the image definition, which is made when there is none.
    #[serde(default = "definition")]
    pub definition: String,
    /// Publisher of the definition.
    pub publisher: String,
    /// Offer of the definition.
    #[serde(default = "offer")]
    pub offer: String,
    /// SKU of the definition.
    #[serde(default = "sku")]
    pub sku: String,
    /// Where versions are replicated to; the target's location is one of them.
    pub regions: Vec<Region>,
    /// Days after which a version should not be used any more.
    #[serde(default)]
    pub end_of_life_after: Option<u32>,
    /// Whether versions may not be deleted before that.
    #[serde(default)]
    pub protect: bool,
    /// Security of virtual machines, when it is not the standard one.
    #[serde(default)]
    pub security_type: Option<SecurityType>,
    /// Controllers that the image has drivers for.
    #[serde(default = "controllers")]
    pub disk_controllers: Vec<Controller>,
    /// Who may use the whole gallery.
    #[serde(default)]
    pub share: Share,
}

/// Where a version is replicated to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Region {
    /// The region, such as `westeurope`.
    pub name: String,
    /// How many copies there are in it.
    #[serde(default = "one")]
    pub replicas: u32,
    /// What they are stored on.
    #[serde(default)]
    pub storage: Storage,
}

/// What copies are stored on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Storage {
    /// Hard disks in one place.
    #[default]
    #[serde(rename = "Standard_LRS")]
    StandardLrs,
    /// Hard disks in several zones.
    #[serde(rename = "Standard_ZRS")]
    StandardZrs,
    /// Solid state disks.
    #[serde(rename = "Premium_LRS")]
    PremiumLrs,
}

impl Storage {
    /// The cloud's word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::StandardLrs => "Standard_LRS",
            Self::StandardZrs => "Standard_ZRS",
            Self::PremiumLrs => "Premium_LRS",
        }
    }
}

/// Firmware of virtual machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Generation {
    /// BIOS.
    V1,
    /// UEFI.
    #[default]
    V2,
}

impl Generation {
    /// The cloud's word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::V1 => "V1",
            Self::V2 => "V2",
        }
    }
}

/// Security of virtual machines that a definition allows or asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecurityType {
    /// Secure Boot and a TPM, when a virtual machine wants them.
    TrustedLaunchSupported,
    /// Secure Boot and a TPM, always.
    TrustedLaunch,
    /// Encrypted memory, when a virtual machine wants it.
    ConfidentialVmSupported,
    /// Either.
    TrustedLaunchAndConfidentialVmSupported,
}

impl SecurityType {
    /// The cloud's word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TrustedLaunchSupported => "TrustedLaunchSupported",
            Self::TrustedLaunch => "TrustedLaunch",
            Self::ConfidentialVmSupported => "ConfidentialVmSupported",
            Self::TrustedLaunchAndConfidentialVmSupported => {
                "TrustedLaunchAndConfidentialVmSupported"
            }
        }
    }
}

/// A controller of disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Controller {
    /// The one of all older sizes.
    #[serde(rename = "SCSI")]
    Scsi,
    /// The one of newer sizes.
    #[serde(rename = "NVMe")]
    Nvme,
}

impl Controller {
    /// The cloud's word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Scsi => "SCSI",
            Self::Nvme => "NVMe",
        }
    }
}

/// Who may use a gallery. People and groups get it by role assignments, which are not made here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Share {
    /// All of these subscriptions.
    pub subscriptions: Vec<String>,
    /// All of these tenants.
    pub tenants: Vec<String>,
    /// Everybody.
    pub community: bool,
}

/// Addresses of the cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Endpoints {
    /// Blobs of the storage account.
    pub storage: Option<String>,
    /// The resource manager.
    pub arm: Option<String>,
    /// Where tokens are had.
    pub login: Option<String>,
}

impl Target {
    /// Where blobs of the storage account are, without a slash at the end.
    #[must_use]
    pub fn storage(&self) -> String {
        let default = || format!("https://{}.blob.core.windows.net", self.storage_account);
        let endpoint = self.endpoints.storage.clone().unwrap_or_else(default);
        endpoint.trim_end_matches('/').to_owned()
    }

    /// The resource manager, without a slash at the end.
    #[must_use]
    pub fn arm(&self) -> String {
        let endpoint = self.endpoints.arm.as_deref();
        let endpoint = endpoint.unwrap_or("https://management.azure.com");
        endpoint.trim_end_matches('/').to_owned()
    }

    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.check_names(&mut problems);
        match (&self.image_name, &self.gallery) {
            (Some(_), None) => {}
            (None, Some(gallery)) => self.check_gallery(gallery, &mut problems),
            _ => problems.push(
                "either `image-name` (a managed image) or `gallery` (a version in one) is wanted"
                    .to_owned(),
            ),
        }
        for (name, value) in &self.tags {
            let bad = |c: char| "<>%&\\?/".contains(c) || c.is_control();
            if name.is_empty() || name.len() > 512 || name.contains(bad) || value.len() > 256 {
                problems.push(format!(
                    "tag `{name}`: 1 to 512 characters without `<>%&\\?/`, its value at most 256"
                ));
            }
            if name.to_ascii_lowercase().starts_with("firstboot:") {
                problems.push(format!("tag `{name}`: names of `firstboot:` are taken"));
            }
        }
        if self.tags.len() > 40 {
            problems.push("more than 40 tags: the cloud takes 50 with ours".to_owned());
        }
        if self.timeout_minutes == 0 {
            problems.push("`timeout-minutes` is 0".to_owned());
        }
        let endpoints = [
            ("storage", &self.endpoints.storage),
            ("arm", &self.endpoints.arm),
            ("login", &self.endpoints.login),
        ];
        for (name, url) in endpoints {
            if url.as_ref().is_some_and(|url| !is_safe(url)) {
                problems.push(format!(
                    "endpoint `{name}` is no URL of `https`, or of `http` on this computer"
                ));
            }
        }
        problems
    }

    fn check_names(&self, problems: &mut Vec<String>) {
        if !is_guid(&self.subscription) {
            problems.push("`subscription` is no id such as `01234567-89ab-…`".to_owned());
        }
        let groups = [
            Some(&self.resource_group),
            self.storage_resource_group.as_ref(),
        ];
        for group in groups.into_iter().flatten() {
            let letters = |c: char| c.is_alphanumeric() || "-_.()".contains(c);
            if !(1..=90).contains(&group.len()) || !group.chars().all(letters) {
                problems.push(format!("resource group `{group}` is no name of one"));
            }
        }
        if !is_location(&self.location) {
            problems.push("`location` is a name such as `westeurope`".to_owned());
        }
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let account = &self.storage_account;
        if !(3..=24).contains(&account.len()) || !account.chars().all(lower) {
            problems.push("`storage-account` is 3 to 24 of `a-z` and `0-9`".to_owned());
        }
        let container = &self.container;
        let dashed = |c: char| lower(c) || c == '-';
        if !(3..=63).contains(&container.len())
            || !container.chars().all(dashed)
            || container.starts_with('-')
            || container.ends_with('-')
            || container.contains("--")
        {
            problems.push("`container` is 3 to 63 of `a-z`, `0-9` and single `-`".to_owned());
        }
    }

    fn check_gallery(&self, gallery: &Gallery, problems: &mut Vec<String>) {
        let letters = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
        if !(1..=80).contains(&gallery.name.len()) || !gallery.name.chars().all(letters) {
            problems.push("a gallery's name is 1 to 80 letters, digits, `_` and `.`".to_owned());
        }
        for (key, text) in [
            ("publisher", &gallery.publisher),
            ("offer", &gallery.offer),
            ("sku", &gallery.sku),
        ] {
            if text.is_empty() || text.len() > 128 {
                problems.push(format!("`{key}` is 1 to 128 characters"));
            }
        }
        let mut seen = BTreeSet::new();
        for region in &gallery.regions {
            if !is_location(&region.name) || !seen.insert(&region.name) {
                problems.push(format!("region `{}` is no region, or twice", region.name));
            }
            if !(1..=100).contains(&region.replicas) {
                problems.push(format!("region `{}`: 1 to 100 replicas", region.name));
            }
        }
        if !seen.contains(&self.location) {
            problems.push(format!(
                "`regions` lack `{}`, where the image is made",
                self.location
            ));
        }
        if gallery.disk_controllers.is_empty() {
            problems.push("`disk-controllers` is empty".to_owned());
        }
        if gallery.end_of_life_after.is_some_and(|days| days == 0) {
            problems.push("`end-of-life-after` is 0 days".to_owned());
        }
        if gallery.protect && gallery.end_of_life_after.is_none() {
            problems.push(
                "`protect` needs `end-of-life-after`: without an end it has no effect".to_owned(),
            );
        }
        if gallery.security_type.is_some() && self.hyper_v_generation == Generation::V1 {
            problems.push("`security-type` needs `hyper-v-generation = \"V2\"`".to_owned());
        }
        let share = &gallery.share;
        let ids = share.subscriptions.iter().chain(&share.tenants);
        for id in ids.filter(|id| !is_guid(id)) {
            problems.push(format!(
                "`share`: `{id}` is no id such as `01234567-89ab-…`"
            ));
        }
        if share.community && !(share.subscriptions.is_empty() && share.tenants.is_empty()) {
            problems.push("`share`: a gallery is the community's or of some, not both".to_owned());
        }
    }
}

fn is_guid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &&str| part.chars().all(|c| c.is_ascii_hexdigit());
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(hex)
}

fn is_location(text: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !text.is_empty() && text.len() <= 40 && text.chars().all(letters)
}

/// Whether nobody on the way sees what is sent to a URL.
pub(super) fn is_safe(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else {
        return false;
    };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let plain = url.scheme_str() == Some("http") && loopback;
    (plain || url.scheme_str() == Some("https")) && url.query().is_none()
}

fn timeout() -> u32 {
    180
}

fn one() -> u32 {
    1
}

fn definition() -> String {
    "{image}-{architecture}".to_owned()
}

fn offer() -> String {
    "{image}".to_owned()
}

fn sku() -> String {
    "{architecture}".to_owned()
}

fn controllers() -> Vec<Controller> {
    vec![Controller::Scsi, Controller::Nvme]
}
