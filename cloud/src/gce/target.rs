//! What the targets file says about a project of Google's cloud.
//!
//! It refuses secrets, and names that the cloud would refuse after the upload.

use std::collections::{BTreeMap, BTreeSet};

use image_manifest::Digest;
use serde::Deserialize;

use crate::http::private;
use crate::subject::Subject;

/// Longest name of an image, key and value of a label.
pub(super) const LONGEST: usize = 63;
/// Labels with this are ours.
pub(super) const LABEL: &str = "firstboot-";

/// Where an image goes in Google's cloud.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Target {
    /// Its name in the targets file.
    pub name: String,
    /// The project that the image belongs to.
    pub project: String,
    /// The bucket that its bytes pass through.
    pub bucket: String,
    /// What the object's name in the bucket begins with.
    #[serde(default)]
    pub object_prefix: String,
    /// Whether the object stays in the bucket when the image is there.
    #[serde(default)]
    pub keep_object: bool,
    /// The image's name; `{image}`, `{version}` and `{architecture}` are replaced.
    #[serde(default = "default_image_name")]
    pub image_name: String,
    /// The family that points to the newest image; `{image}` and `{architecture}` are replaced.
    #[serde(default)]
    pub family: Option<String>,
    /// What the guest can do; without it what every image of ours can.
    #[serde(default)]
    pub guest_os_features: Option<BTreeSet<String>>,
    /// Labels beside ours.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Where the image is kept: one region or multi-region.
    #[serde(default)]
    pub storage_locations: Vec<String>,
    /// The key that the image is encrypted with, as a resource of Cloud KMS.
    #[serde(default)]
    pub kms_key: Option<String>,
    /// Who may use the image, as IAM names members; they get `roles/compute.imageUser` on it.
    #[serde(default)]
    pub share_with: BTreeSet<String>,
    /// Days after which the image says that it should not be used any more.
    #[serde(default)]
    pub deprecate_after: Option<u32>,
    /// A file of credentials, of any kind that `GOOGLE_APPLICATION_CREDENTIALS` may name, instead of what is found.
    #[serde(default)]
    pub credentials_file: Option<String>,
    /// For GitHub's jobs: `projects/N/locations/global/workloadIdentityPools/P/providers/Q`.
    #[serde(default)]
    pub workload_identity_provider: Option<String>,
    /// The service account that is then asked as.
    #[serde(default)]
    pub service_account: Option<String>,
    /// Where the interfaces are.
    #[serde(default)]
    pub endpoints: Endpoints,
}

/// Where the interfaces are, for private access.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Endpoints {
    /// Cloud Storage.
    pub storage: String,
    /// Compute Engine.
    pub compute: String,
    /// Resource Manager, which says what the credentials may do.
    pub projects: String,
    /// Where tokens of others are exchanged.
    pub token: String,
    /// Where a service account is asked as.
    pub credentials: String,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            storage: "https://storage.googleapis.com".to_owned(),
            compute: "https://compute.googleapis.com".to_owned(),
            projects: "https://cloudresourcemanager.googleapis.com".to_owned(),
            token: "https://sts.googleapis.com".to_owned(),
            credentials: "https://iamcredentials.googleapis.com".to_owned(),
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
        let mut refuse = |bad: bool, problem: String| {
            if bad {
                problems.push(problem);
            }
        };
        let project = self.project.rsplit(':').next().unwrap_or_default();
        refuse(
            !is_name(project),
            format!("`project` = `{}` is no project's id", self.project),
        );
        refuse(
            !is_bucket(&self.bucket),
            format!("`bucket` = `{}` is no bucket's name", self.bucket),
        );
        refuse(
            self.object_prefix.starts_with('/') || self.object_prefix.len() > 500 || !plain(&self.object_prefix),
            "`object-prefix` begins with `/`, is too long, or has other letters than `A-Za-z0-9-_./`".to_owned(),
        );
        refuse(
            self.image_name.is_empty(),
            "`image-name` is empty".to_owned(),
        );
        if let Some(family) = &self.family {
            let sample = family
                .replace("{image}", "a")
                .replace("{architecture}", "a");
            refuse(
                !is_name(&sample),
                format!(
                    "`family` = `{family}` is not 1 to 63 of `a-z`, `0-9` and `-`, beginning with a letter"
                ),
            );
        }
        for feature in self.guest_os_features.iter().flatten() {
            let letters = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            refuse(
                feature.is_empty() || !feature.chars().all(letters),
                format!("`guest-os-features`: `{feature}` is none, such as `GVNIC`"),
            );
        }
        refuse(
            self.storage_locations.len() > 1,
            "`storage-locations`: an image has one".to_owned(),
        );
        if let Some(key) = &self.kms_key {
            refuse(
                !is_key(key),
                format!(
                    "`kms-key` = `{key}` is not `projects/P/locations/L/keyRings/R/cryptoKeys/K`"
                ),
            );
        }
        if let Some(provider) = &self.workload_identity_provider {
            let whole = provider.starts_with("projects/")
                && provider.contains("/workloadIdentityPools/")
                && provider.contains("/providers/");
            refuse(
                !whole || !plain(provider),
                format!(
                    "`workload-identity-provider` = `{provider}` is not `projects/N/locations/global/workloadIdentityPools/P/providers/Q`"
                ),
            );
        }
        refuse(
            self.service_account.is_some() && self.workload_identity_provider.is_none(),
            "`service-account` is for `workload-identity-provider`; a file of credentials says itself whom it asks as".to_owned(),
        );
        problems.extend(self.check_labels());
        problems.extend(self.check_members());
        problems.extend(self.endpoints.check());
        problems
    }

    fn check_labels(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let letters =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        for (key, value) in &self.labels {
            let begins = key.starts_with(|c: char| c.is_ascii_lowercase());
            if !begins || key.len() > LONGEST || !key.chars().all(letters) {
                problems.push(format!("`labels`: key `{key}` is not 1 to 63 of `a-z`, `0-9`, `-` and `_`, beginning with a letter"));
            }
            if key.starts_with(LABEL) {
                problems.push(format!("`labels`: `{key}` is one of ours"));
            }
            if value.len() > LONGEST || !value.chars().all(letters) {
                problems.push(format!(
                    "`labels`: value `{value}` is not at most 63 of `a-z`, `0-9`, `-` and `_`"
                ));
            }
        }
        if self.labels.len() > 32 {
            problems.push("`labels`: there are more than 32".to_owned());
        }
        problems
    }

    fn check_members(&self) -> Vec<String> {
        let kinds = [
            "user:",
            "group:",
            "domain:",
            "serviceAccount:",
            "principal:",
            "principalSet:",
            "projectEditor:",
            "projectOwner:",
            "projectViewer:",
        ];
        let known = |member: &str| {
            member == "allAuthenticatedUsers"
                || kinds.iter().any(|kind| {
                    member
                        .strip_prefix(kind)
                        .is_some_and(|rest| !rest.is_empty())
                })
        };
        let unknown = self.share_with.iter().filter(|member| !known(member));
        unknown.map(|member| format!("`share-with`: `{member}` is no member, such as `user:`, `group:`, `domain:`, `serviceAccount:` with a name, or `allAuthenticatedUsers`")).collect()
    }

    /// The image's name: letters that the cloud does not take become `-`, and one that is too long ends in digits of the
    /// image's digest instead.
    #[must_use]
    pub fn image_name(&self, subject: &Subject) -> String {
        let name = self.image_name.replace("{image}", &subject.name);
        let name = name.replace("{version}", &subject.version);
        let name = name.replace("{architecture}", &subject.architecture);
        let mut name = slug(&name, "-");
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            name = format!("i-{name}");
        }
        let digits = &subject.manifest.hex()[..10];
        if name.len() > LONGEST {
            name.truncate(LONGEST - 1 - digits.len());
            name = format!("{}-{digits}", name.trim_end_matches('-'));
        }
        name
    }

    /// The family; `{image}` and `{architecture}` are replaced.
    #[must_use]
    pub fn family(&self, subject: &Subject) -> Option<String> {
        let family = self.family.as_ref()?;
        let family = family.replace("{image}", &subject.name);
        Some(slug(
            &family.replace("{architecture}", &subject.architecture),
            "-",
        ))
    }

    /// The object's name: by digest, and apart for every image, since it is removed with one.
    #[must_use]
    pub fn object_name(&self, subject: &Subject, archive: &Digest) -> String {
        let name = self.image_name(subject);
        format!(
            "{}{}/{name}/{}.tar.gz",
            self.object_prefix,
            self.project,
            archive.hex()
        )
    }

    /// What the guest can do on an architecture.
    #[must_use]
    pub fn features(&self, architecture: &str) -> BTreeSet<String> {
        if let Some(features) = &self.guest_os_features {
            return features.clone();
        }
        // As Fedora CoreOS sets them; without the first an image boots as on a PC of 1981.
        let all = ["UEFI_COMPATIBLE", "GVNIC", "IDPF", "VIRTIO_SCSI_MULTIQUEUE"];
        let x86 = [
            "SEV_CAPABLE",
            "SEV_LIVE_MIGRATABLE_V2",
            "SEV_SNP_CAPABLE",
            "TDX_CAPABLE",
        ];
        let x86 = x86.into_iter().filter(|_| architecture == "X86_64");
        all.into_iter().chain(x86).map(str::to_owned).collect()
    }

    /// All labels of the image.
    #[must_use]
    pub fn all_labels(&self, subject: &Subject) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        let ours = [
            ("image", label_value(&subject.name)),
            ("version", label_value(&subject.version)),
            ("architecture", label_value(&subject.architecture)),
            ("manifest", subject.key()),
        ];
        labels.extend(ours.map(|(key, value)| (format!("{LABEL}{key}"), value)));
        labels
    }
}

impl Endpoints {
    fn check(&self) -> Vec<String> {
        let all = [
            ("storage", &self.storage),
            ("compute", &self.compute),
            ("projects", &self.projects),
            ("token", &self.token),
            ("credentials", &self.credentials),
        ];
        let problem = |(name, url): (&str, &String)| match private::check(url) {
            Err(problem) => Some(format!("`endpoints.{name}`: {problem}")),
            Ok(()) if url.ends_with('/') => Some(format!(
                "`endpoints.{name}`: `{url}` has a slash at its end"
            )),
            Ok(()) => None,
        };
        all.into_iter().filter_map(problem).collect()
    }
}

/// A label's value made of any text.
pub(super) fn label_value(text: &str) -> String {
    let mut value = slug(text, "-_");
    value.truncate(LONGEST);
    value
}

fn slug(text: &str, others: &str) -> String {
    let text = text.to_lowercase();
    let letters = text.chars().map(|c| {
        if c.is_ascii_lowercase() || c.is_ascii_digit() || others.contains(c) {
            c
        } else {
            '-'
        }
    });
    let text: String = letters.collect();
    text.trim_matches('-').to_owned()
}

/// Names of images, families and projects (RFC 1035 §2.3.1, lower case).
fn is_name(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=LONGEST).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(letters)
}

fn is_bucket(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    (3..=222).contains(&name.len())
        && name.chars().all(letters)
        && ends(name.chars().next())
        && ends(name.chars().last())
}

fn is_key(key: &str) -> bool {
    let parts: Vec<&str> = key.split('/').collect();
    let words = ["projects", "locations", "keyRings", "cryptoKeys"];
    parts.len() == 8
        && parts.iter().step_by(2).eq(words.iter())
        && parts.iter().all(|part| !part.is_empty() && plain(part))
}

fn plain(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_./:".contains(c))
}

#[cfg(test)]
mod tests;
