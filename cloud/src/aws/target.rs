//! What a target in Amazon's cloud says, and whether it can be.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::http::private;

/// Tags that every object carries beside those of the target: five of the image, its target, its name, where it was launched.
const OWN_TAGS: usize = 8;

/// Where an image goes in Amazon's cloud, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(clippy::struct_excessive_bools, reason = "these are keys of a file")]
pub struct Target {
    /// Its name in the targets file.
    pub name: String,
    /// Regions; bytes go to the first, the others copy.
    pub regions: Vec<String>,
    /// Name of the image; `{image}`, `{version}` and `{architecture}` are replaced.
    #[serde(default = "image_name")]
    pub image_name: String,
    /// Another address of all interfaces: a private endpoint, or a fake.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// ARN of a role that is taken on.
    #[serde(default)]
    pub role: Option<String>,
    /// Accounts that may use the image.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// ARNs of organisations whose accounts may use it.
    #[serde(default)]
    pub organisations: Vec<String>,
    /// ARNs of organisational units whose accounts may use it.
    #[serde(default)]
    pub organisational_units: Vec<String>,
    /// Whether everybody may use it.
    #[serde(default)]
    pub public: bool,
    /// ARN of the key that encrypts it in each region; without any it is not encrypted.
    #[serde(default)]
    pub kms_keys: BTreeMap<String, String>,
    /// How its instances boot.
    #[serde(default)]
    pub boot_mode: BootMode,
    /// Whether its instances have a TPM 2.0.
    #[serde(default)]
    pub tpm: bool,
    /// Whether its instances ask for instance metadata with a token only.
    #[serde(default = "yes")]
    pub imdsv2: bool,
    /// Whether it has the driver of the enhanced network adapter.
    #[serde(default = "yes")]
    pub ena: bool,
    /// Tags of the image and its snapshots beside ours.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// SSM parameters that name the newest image in each region; placeholders as in `image-name`.
    #[serde(default)]
    pub parameters: Vec<String>,
    /// Days after its creation from which on it is deprecated.
    #[serde(default)]
    pub deprecate_after: Option<u32>,
    /// Whether it cannot be deregistered before that is allowed again.
    #[serde(default)]
    pub deregistration_protection: bool,
    /// How one instance is launched before anybody may use the image; without it, none is.
    #[serde(default)]
    pub launch: Option<Launch>,
}

/// How an instance is launched in the first region, to see the image boot there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Launch {
    /// Its type, such as `t3.small`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its subnet; without one, it is in one of the account's default network.
    #[serde(default)]
    pub subnet: Option<String>,
}

/// How instances of an image boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootMode {
    /// By UEFI; the disk that is built has a loader for nothing else.
    #[default]
    Uefi,
    /// By UEFI where the instance type can, else by BIOS.
    UefiPreferred,
    /// By BIOS.
    LegacyBios,
}

impl BootMode {
    /// Its word in the interface.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Uefi => "uefi",
            Self::UefiPreferred => "uefi-preferred",
            Self::LegacyBios => "legacy-bios",
        }
    }
}

fn image_name() -> String {
    "{image}-{version}-{architecture}".to_owned()
}

fn yes() -> bool {
    true
}

impl Target {
    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.check_places(&mut problems);
        self.check_names(&mut problems);
        self.check_shares(&mut problems);
        self.check_tags(&mut problems);
        if self.tpm && self.boot_mode == BootMode::LegacyBios {
            problems.push("`tpm` needs a `boot-mode` of `uefi` or `uefi-preferred`".to_owned());
        }
        if let Some(launch) = &self.launch {
            launch.check(&mut problems);
        }
        let longest = if self.public { 730 } else { 3650 };
        if let Some(days) = self.deprecate_after
            && (days == 0 || days > longest)
        {
            problems.push(format!("`deprecate-after` is 1 to {longest} days"));
        }
        problems
    }

    fn check_places(&self, problems: &mut Vec<String>) {
        if self.regions.is_empty() {
            problems.push("`regions` is empty".to_owned());
        }
        let mut seen = BTreeSet::new();
        for region in &self.regions {
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if region.split('-').count() < 3 || !region.chars().all(letters) {
                problems.push(format!("`{region}` is no region"));
            }
            if !seen.insert(region) {
                problems.push(format!("region `{region}` is there twice"));
            }
        }
        let partitions: BTreeSet<_> = self.regions.iter().map(|name| partition(name)).collect();
        if partitions.len() > 1 {
            problems.push("`regions` are of several partitions: make a target of each".to_owned());
        }
        if let Some(endpoint) = &self.endpoint
            && let Err(problem) = private::check(endpoint)
        {
            problems.push(format!("`endpoint`: {problem}"));
        }
        if let Some(role) = &self.role
            && !(role.starts_with("arn:aws") && role.contains(":iam::") && role.contains(":role/"))
        {
            problems.push(format!("`role`: `{role}` is no ARN of a role"));
        }
    }

    fn check_names(&self, problems: &mut Vec<String>) {
        let letters = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
        match fill(&self.image_name, "x", "x", "x") {
            None => problems.push(unknown_placeholder("image-name")),
            Some(name) if name.len() < 3 || name.len() > 128 || !name.chars().all(letters) => {
                problems.push(
                    "`image-name` is 3 to 128 of letters, digits and `()[] ./-'@_`".to_owned(),
                );
            }
            Some(_) => {}
        }
        let mut seen = BTreeSet::new();
        let letters = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
        for parameter in &self.parameters {
            let filled = fill(parameter, "x", "x", "x");
            let bare = parameter.trim_start_matches('/');
            if filled.is_none() {
                problems.push(unknown_placeholder("parameters"));
            } else if filled.is_some_and(|name| !name.chars().all(letters) || name.len() > 1011)
                || bare.is_empty()
                || bare.starts_with("aws")
                || bare.starts_with("ssm")
                || (parameter.contains('/') && !parameter.starts_with('/'))
            {
                problems.push(format!("`{parameter}` cannot be a parameter's name"));
            }
            if !seen.insert(parameter) {
                problems.push(format!("parameter `{parameter}` is there twice"));
            }
        }
    }

    fn check_shares(&self, problems: &mut Vec<String>) {
        for account in &self.accounts {
            if account.len() != 12 || !account.chars().all(|c| c.is_ascii_digit()) {
                problems.push(format!("account `{account}` is not of 12 digits"));
            }
        }
        let organisations = self
            .organisations
            .iter()
            .map(|arn| (arn, ":organization/o-"));
        let units = self.organisational_units.iter().map(|arn| (arn, ":ou/o-"));
        for (arn, part) in organisations.chain(units) {
            if !arn.starts_with("arn:aws")
                || !arn.contains(":organizations::")
                || !arn.contains(part)
            {
                problems.push(format!("`{arn}` is no ARN with `{part}…`"));
            }
        }
        if self.kms_keys.is_empty() {
            return;
        }
        if self.public {
            problems.push("an encrypted image cannot be `public`".to_owned());
        }
        for region in self
            .regions
            .iter()
            .filter(|region| !self.kms_keys.contains_key(*region))
        {
            problems.push(format!("`kms-keys` has no key for `{region}`"));
        }
        for (region, key) in &self.kms_keys {
            if !self.regions.contains(region) {
                problems.push(format!(
                    "`kms-keys` names `{region}`, which is not in `regions`"
                ));
            }
            if !key.starts_with("arn:aws") || !key.contains(&format!(":kms:{region}:")) {
                problems.push(format!("`{key}` is no ARN of a key in `{region}`"));
            }
        }
    }

    fn check_tags(&self, problems: &mut Vec<String>) {
        if self.tags.len() + OWN_TAGS > 50 {
            problems.push(format!("more than {} tags", 50 - OWN_TAGS));
        }
        for (key, value) in &self.tags {
            let reserved = key.starts_with("aws:") || key.starts_with("firstboot:");
            if key.is_empty()
                || reserved
                || key.chars().count() > 128
                || value.chars().count() > 256
            {
                problems.push(format!(
                    "tag `{key}`: a key is 1 to 128 characters, not of `aws:` or `firstboot:`; a value up to 256"
                ));
            }
        }
    }
}

impl Launch {
    fn check(&self, problems: &mut Vec<String>) {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
        let kind = &self.kind;
        if !kind.contains('.') || !kind.chars().all(letters) {
            problems.push(format!(
                "`launch`: `{kind}` is no type of instances such as `t3.small`"
            ));
        }
        if let Some(subnet) = &self.subnet
            && !subnet.starts_with("subnet-")
        {
            problems.push(format!("`launch`: `{subnet}` is no subnet's id"));
        }
    }
}

fn unknown_placeholder(key: &str) -> String {
    format!(
        "`{key}` has a placeholder that is none of `{{image}}`, `{{version}}`, `{{architecture}}`"
    )
}

/// Replaces the placeholders; `None` when one is left that is not known.
pub(super) fn fill(text: &str, image: &str, version: &str, architecture: &str) -> Option<String> {
    let filled = text.replace("{image}", image);
    let filled = filled.replace("{version}", version);
    let filled = filled.replace("{architecture}", architecture);
    (!filled.contains(['{', '}'])).then_some(filled)
}

/// The part of the cloud that a region is in, as ARNs name it, and the end of its host names.
pub(super) fn partition(region: &str) -> (&'static str, &'static str) {
    if region.starts_with("cn-") {
        ("aws-cn", "amazonaws.com.cn")
    } else if region.starts_with("us-gov-") {
        ("aws-us-gov", "amazonaws.com")
    } else if region.starts_with("eusc-") {
        ("aws-eusc", "amazonaws.eu")
    } else {
        ("aws", "amazonaws.com")
    }
}

#[cfg(test)]
mod tests;
