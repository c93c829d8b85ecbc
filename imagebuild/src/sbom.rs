//! What an image is made of, in the words of SPDX 2.3 and `CycloneDX` 1.6.
//!
//! Both follow from the lock and the packages alone. It refuses to name a mirror, a time other than the image's, and a
//! licence that a package does not state.

mod cyclonedx;
mod spdx;

use std::fmt::Write as _;

use image_manifest::{Digest, Manifest};
use serde::Serialize;

use crate::date;
use crate::facts::Facts;
use crate::lock::Package;

pub use cyclonedx::{Component, components};

/// A document about an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// SPDX 2.3 as JSON.
    Spdx,
    /// `CycloneDX` 1.6 as JSON.
    CycloneDx,
}

impl Format {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Spdx, Self::CycloneDx];

    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Spdx => "application/spdx+json",
            Self::CycloneDx => "application/vnd.cyclonedx+json",
        }
    }

    /// Name of the artifact.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Spdx => "sbom.spdx.json",
            Self::CycloneDx => "sbom.cdx.json",
        }
    }
}

/// What a document is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// One line for people.
    pub description: &'a str,
    /// Debian's name of the architecture.
    pub architecture: &'a str,
    /// Distribution and release, such as `debian/trixie`.
    pub distribution: &'a str,
    /// The tree digest.
    pub tree: Digest,
    /// The only clock, in seconds since 1970.
    pub source_date: i64,
    /// The program that built it.
    pub builder: &'a str,
}

impl<'a> Subject<'a> {
    /// Takes from a manifest what a document says.
    #[must_use]
    pub fn of(manifest: &'a Manifest, description: &'a str) -> Self {
        Self {
            name: &manifest.name,
            description,
            architecture: &manifest.architecture,
            distribution: &manifest.distribution,
            tree: manifest.tree,
            source_date: manifest.source_date,
            builder: &manifest.builder,
        }
    }

    /// The time, as both formats write it.
    fn time(&self) -> String {
        date::rfc3339(self.source_date)
    }

    fn distributor(&self) -> (&'a str, &'a str) {
        self.distribution
            .split_once('/')
            .unwrap_or((self.distribution, ""))
    }
}

/// Writes a document about an image made of these packages.
#[must_use]
pub fn write(format: Format, subject: &Subject<'_>, packages: &[(&Package, &Facts)]) -> Vec<u8> {
    let mut bytes = match format {
        Format::Spdx => pretty(&spdx::document(subject, packages)),
        Format::CycloneDx => pretty(&cyclonedx::document(subject, packages)),
    };
    bytes.push(b'\n');
    bytes
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    // Plain data: it always has a JSON form.
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

/// The package URL of a package: what scanners look it up by.
#[must_use]
pub fn package_url(package: &Package, distribution: &str) -> String {
    let (name, release) = distribution.split_once('/').unwrap_or((distribution, ""));
    format!(
        "pkg:deb/{name}/{}@{}?arch={}&distro={release}",
        escape(&package.name),
        escape(&package.version),
        package.architecture
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").unwrap_or_default();
        }
    }
    escaped
}

/// A name for a package within one document.
fn identifier(package: &Package) -> String {
    let plain = |text: &str| -> String {
        text.chars()
            .map(|c| match c {
                c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') => c.to_string(),
                c => format!("-x{:x}-", u32::from(c)),
            })
            .collect()
    };
    format!(
        "{}-{}-{}",
        package.usage.word(),
        plain(&package.name),
        plain(&package.version)
    )
}

#[cfg(test)]
mod tests;
