//! What `imagebuild publish` and its fellows do with a stored image: what is published, to whom, and the record of it.
//!
//! It refuses to publish what the store does not have in full, and to say of an image that it was booted when it was not.

pub mod disk;
pub mod oci;
pub mod proof;
pub mod record;
pub mod retention;

use std::path::PathBuf;
use std::sync::Arc;

use cloud::provider::Provider;
use cloud::{Options, Subject, Targets, aws, azure, gce, glance};
use image_manifest::layout::{self, Found, Layout};

use crate::forms::{self, Disk};
use crate::{gather, registry};

/// Why an image could not be published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] layout::Error),
    /// The disk could not be composed.
    #[error(transparent)]
    Forms(#[from] forms::Error),
    /// What is attached could not be gathered.
    #[error(transparent)]
    Gather(#[from] gather::Error),
    /// A registry cannot be used.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A cloud could not be used.
    #[error(transparent)]
    Cloud(#[from] cloud::Error),
    /// A version that no cloud would take.
    #[error(
        "version `{0}` is refused: it has 1 to 63 of `a-z`, `0-9`, `.` and `-`, and begins with a letter or digit"
    )]
    Version(String),
}

impl Error {
    /// Whether a remote, or the way to it, is what failed: a retry may help.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Cloud(error) => error.is_remote(),
            Self::Registry(error) => error.is_remote(),
            _ => false,
        }
    }

    /// Whether what was asked for cannot be: a retry gives the same.
    #[must_use]
    pub fn is_of_the_targets(&self) -> bool {
        matches!(
            self,
            Self::Version(_)
                | Self::Registry(registry::Error::Reference(_))
                | Self::Cloud(cloud::Error::Unfit { .. })
        )
    }

    /// What a person may do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Cloud(error) => error.help(),
            Self::Registry(error) => error.help(),
            _ => None,
        }
    }
}

/// An image of a store, as it is published.
#[derive(Debug)]
pub struct Image {
    /// The store that has it.
    pub store: Layout,
    /// Its manifest.
    pub found: Found,
    /// What the clouds get.
    pub subject: Subject,
}

impl Image {
    /// Finds an image, and composes its disk if it has one.
    ///
    /// # Errors
    /// When the store does not have it in full, or the version cannot be one.
    pub fn find(store: Layout, reference: &str, version: Option<&str>) -> Result<Self, Error> {
        let found = store.resolve(reference)?;
        let manifest = &found.manifest;
        for artifact in &manifest.artifacts {
            store.check_size(artifact)?;
        }
        let disk = match &manifest.disk {
            Some(_) => Some(disk::Composed::new(Disk::of(&store, manifest)?, manifest)),
            None => None,
        };
        let version = match version {
            Some(version) if is_version(version) => version.to_owned(),
            Some(version) => return Err(Error::Version(version.to_owned())),
            None => Subject::default_version(manifest.source_date, &found.digest),
        };
        let subject = Subject {
            name: manifest.name.clone(),
            architecture: manifest.architecture.clone(),
            distribution: manifest.distribution.clone(),
            version,
            manifest: found.digest,
            tree: manifest.tree,
            source_date: manifest.source_date,
            disk: disk.map(|disk| Arc::new(disk) as Arc<dyn cloud::Disk>),
        };
        Ok(Self {
            store,
            found,
            subject,
        })
    }

    /// Everybody whom it goes to, in the order of the targets.
    ///
    /// # Errors
    /// When it cannot go to one of them.
    pub fn providers(
        &self,
        targets: &Targets,
        options: &Options,
        registry: &registry::Options,
    ) -> Result<Vec<Box<dyn Provider>>, Error> {
        let mut providers: Vec<Box<dyn Provider>> = Vec::new();
        for target in &targets.aws {
            providers.push(Box::new(aws::Publisher::new(
                target,
                &self.subject,
                options,
            )?));
        }
        for target in &targets.gce {
            providers.push(Box::new(gce::Publisher::new(
                target,
                &self.subject,
                options,
            )?));
        }
        for target in &targets.azure {
            providers.push(Box::new(azure::Publisher::new(
                target,
                &self.subject,
                options,
            )?));
        }
        for target in &targets.glance {
            providers.push(Box::new(glance::Publisher::new(
                target,
                &self.subject,
                options,
            )?));
        }
        for target in &targets.oci {
            providers.push(Box::new(oci::Publisher::new(target, self, registry)?));
        }
        Ok(providers)
    }
}

/// Where is kept what was begun, below the user's cache.
#[must_use]
pub fn journal(cache: &crate::cache::Cache) -> PathBuf {
    cache.root().join("publish")
}

fn is_version(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain)
        && text.len() <= 63
        && text.chars().all(|c| plain(c) || matches!(c, '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_what_every_cloud_takes() {
        for good in ["1", "20260102-0123abcd", "1.2.3"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "-1", "V1", "a b", "a/b", &"x".repeat(64)] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
