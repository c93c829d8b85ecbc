//! What the targets file says about a project of an OpenStack cloud.
//!
//! It refuses secrets: credentials are in the environment, or in a file beside.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::subject::Subject;

/// Properties with this are ours.
pub(super) const OURS: &str = "firstboot_";
/// The tag that moves to the newest image.
pub(super) const CURRENT: &str = "current";
/// Most characters of a name, of a property and of a tag.
const LONGEST: usize = 255;

/// Where an image goes in an OpenStack cloud.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Target {
    /// Its name in the targets file.
    pub name: String,
    /// The image's name; `{image}`, `{version}` and `{architecture}` are replaced.
    #[serde(default = "default_image_name")]
    pub image_name: String,
    /// Who sees it.
    #[serde(default)]
    pub visibility: Visibility,
    /// Projects that may use it; it is `shared` then.
    #[serde(default)]
    pub members: BTreeSet<String>,
    /// Properties beside ours; an empty one takes one of ours away.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Tags beside `current`.
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// Whether it cannot be removed before somebody takes the protection away.
    #[serde(default)]
    pub protected: bool,
    /// Whether older images are left out of lists, once this one is current.
    #[serde(default)]
    pub hide_older: bool,
    /// A file with lines `export OS_…=…`, as OpenStack's dashboard gives it, instead of the environment.
    #[serde(default)]
    pub openrc: Option<String>,
}

/// Who sees an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Visibility {
    /// The project.
    #[default]
    Private,
    /// The project, and those that it is shared with.
    Shared,
    /// Everybody who knows its id.
    Community,
    /// Everybody.
    Public,
}

impl Visibility {
    /// Its word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Community => "community",
            Self::Public => "public",
        }
    }
}

fn default_image_name() -> String {
    "{image}-{version}-{architecture}".to_owned()
}

impl Target {
    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let long = |text: &str| text.is_empty() || text.chars().count() > LONGEST;
        if long(&self.image_name) {
            problems.push("`image-name` is empty or too long".to_owned());
        }
        if !self.members.is_empty() && self.visibility != Visibility::Shared {
            problems.push("`members` are for `visibility = \"shared\"`".to_owned());
        }
        for member in &self.members {
            let letters = |c: char| c.is_ascii_alphanumeric() || c == '-';
            if long(member) || !member.chars().all(letters) {
                problems.push(format!("`members`: `{member}` is no project's id"));
            }
        }
        for (name, value) in &self.properties {
            let letters = |c: char| c.is_ascii_alphanumeric() || "_-:.".contains(c);
            if long(name) || !name.chars().all(letters) || RESERVED.contains(&name.as_str()) {
                problems.push(format!("`properties`: `{name}` is no name of a property"));
            }
            if name.starts_with(OURS) {
                problems.push(format!("`properties`: `{name}` is one of ours"));
            }
            if value.chars().any(char::is_control) {
                problems.push(format!(
                    "`properties`: the value of `{name}` has control characters"
                ));
            }
        }
        for tag in &self.tags {
            let plain = |c: char| c.is_ascii_graphic() && !"/?#%".contains(c);
            if long(tag) || !tag.chars().all(plain) || tag == CURRENT {
                problems.push(format!("`tags`: `{tag}` cannot be one"));
            }
        }
        problems
    }

    /// The image's name.
    #[must_use]
    pub fn image_name(&self, subject: &Subject) -> String {
        let name = self.image_name.replace("{image}", &subject.name);
        let name = name.replace("{version}", &subject.version);
        let name = name.replace("{architecture}", &subject.architecture);
        name.chars().take(LONGEST).collect()
    }

    /// All properties of the image.
    #[must_use]
    pub fn all_properties(&self, subject: &Subject) -> BTreeMap<String, String> {
        let (distribution, release) = subject
            .distribution
            .split_once('/')
            .unwrap_or((&subject.distribution, ""));
        let mut all = BTreeMap::new();
        let architecture = match subject.architecture.as_str() {
            "amd64" => {
                // OVMF is for this machine.
                all.insert("hw_machine_type", "q35");
                "x86_64"
            }
            "arm64" => "aarch64",
            other => other,
        };
        all.extend([
            ("architecture", architecture),
            ("hw_firmware_type", "uefi"),
            ("os_type", "linux"),
            ("os_distro", distribution),
            ("os_version", release),
        ]);
        let all = all
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut all: BTreeMap<String, String> = all.collect();
        all.extend(self.properties.clone());
        all.retain(|_, value| !value.is_empty());
        all.extend(
            subject
                .tags()
                .into_iter()
                .map(|(name, value)| (name.replace(':', "_"), value)),
        );
        all
    }
}

/// What every image has and what is no property.
const RESERVED: [&str; 24] = [
    "id",
    "name",
    "status",
    "visibility",
    "protected",
    "os_hidden",
    "owner",
    "size",
    "virtual_size",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "disk_format",
    "container_format",
    "min_disk",
    "min_ram",
    "tags",
    "file",
    "self",
    "schema",
    "created_at",
    "updated_at",
    "stores",
    "locations",
];
