//! Microsoft's cloud in the targets file.
//!
//! It refuses what the cloud would refuse later, after an hour of uploading.

mod check;

use std::collections::BTreeMap;

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

impl Share {
    /// Whether it is shared with anybody.
    #[must_use]
    pub fn is_with_anybody(&self) -> bool {
        self.community || !self.subscriptions.is_empty() || !self.tenants.is_empty()
    }
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

#[cfg(test)]
mod tests;
