//! The lock as TOML text, and back.
//!
//! It refuses texts that it would not write itself, but for comments and white space.

use std::fmt::Write as _;

use image_manifest::Digest;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use toml::Spanned;

use super::{Lock, Malformed, Package, Release, Use};
use crate::date;

/// No file of an archive is larger.
const MAX_PACKAGE: u64 = 8 << 30;

const HEAD: &str = "# Written by `imagebuild lock`; do not edit.\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawLock {
    version: i64,
    request: Digest,
    source_date: i64,
    packages: Option<Digest>,
    #[serde(default)]
    release: Vec<RawRelease>,
    #[serde(default)]
    package: Vec<RawPackage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRelease {
    archive: String,
    suite: String,
    date: Spanned<String>,
    sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPackage {
    name: String,
    version: String,
    architecture: String,
    archive: String,
    path: String,
    size: u64,
    sha256: String,
    #[serde(rename = "use")]
    usage: String,
}

/// The version alone, read first: a newer format must not be reported as unknown keys.
#[derive(Deserialize)]
struct Version {
    version: i64,
}

impl Lock {
    /// Parses the text of a lock.
    ///
    /// # Errors
    /// When it is not one, or not as this program writes it.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let failed = |error: &toml::de::Error| at(text, error.span(), error.message().to_owned());
        let version: Version = toml::from_str(text).map_err(|error| failed(&error))?;
        if version.version != Self::VERSION {
            return Err(Malformed::Version(version.version));
        }
        let raw: RawLock = toml::from_str(text).map_err(|error| failed(&error))?;
        debug_assert_eq!(raw.version, Self::VERSION);
        let expected = raw.packages.ok_or(Malformed::NoDigest)?;
        let releases = raw
            .release
            .into_iter()
            .map(|release| release.check(text))
            .collect::<Result<Vec<_>, _>>()?;
        let packages = raw
            .package
            .into_iter()
            .map(RawPackage::check)
            .collect::<Result<Vec<_>, _>>()?;
        for pair in packages.windows(2) {
            if pair[0] >= pair[1] {
                return Err(Malformed::Unsorted(pair[1].name.clone()));
            }
        }
        for package in &packages {
            if !releases
                .iter()
                .any(|release| release.archive == package.archive)
            {
                return Err(Malformed::UnknownArchive {
                    package: package.name.clone(),
                    archive: package.archive.clone(),
                });
            }
        }
        let found = digest(&packages);
        if found != expected {
            return Err(Malformed::Packages { expected, found });
        }
        Ok(Self {
            request: raw.request,
            source_date: raw.source_date,
            releases,
            packages,
        })
    }

    /// Writes the lock. Equal locks give equal texts.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(512 + self.packages.len() * 400);
        // Writing to a string does not fail.
        self.write_head(&mut text).unwrap_or_default();
        write_packages(&self.packages, &mut text).unwrap_or_default();
        text
    }

    fn write_head(&self, text: &mut String) -> std::fmt::Result {
        text.push_str(HEAD);
        writeln!(text, "version = {}", Self::VERSION)?;
        writeln!(text, "request = \"{}\"", self.request)?;
        writeln!(text, "source-date = {}", self.source_date)?;
        writeln!(text, "packages = \"{}\"", digest(&self.packages))?;
        for release in &self.releases {
            writeln!(text, "\n[[release]]")?;
            writeln!(text, "archive = {}", quote(&release.archive))?;
            writeln!(text, "suite = {}", quote(&release.suite))?;
            writeln!(text, "date = {}", quote(&date::rfc3339(release.date)))?;
            writeln!(text, "sha256 = \"{}\"", release.sha256.hex())?;
        }
        Ok(())
    }
}

fn write_packages(packages: &[Package], text: &mut String) -> std::fmt::Result {
    for package in packages {
        writeln!(text, "\n[[package]]")?;
        writeln!(text, "name = {}", quote(&package.name))?;
        writeln!(text, "version = {}", quote(&package.version))?;
        writeln!(text, "architecture = {}", quote(&package.architecture))?;
        writeln!(text, "use = {}", quote(package.usage.word()))?;
        writeln!(text, "archive = {}", quote(&package.archive))?;
        writeln!(text, "path = {}", quote(&package.path))?;
        writeln!(text, "size = {}", package.size)?;
        writeln!(text, "sha256 = \"{}\"", package.sha256.hex())?;
    }
    Ok(())
}

/// Digest of the list of packages as it is written: it tells a lock that was made from one that was merged.
fn digest(packages: &[Package]) -> Digest {
    let mut text = String::with_capacity(packages.len() * 400);
    // Writing to a string does not fail.
    write_packages(packages, &mut text).unwrap_or_default();
    Digest::of(text.as_bytes())
}

impl RawRelease {
    fn check(self, text: &str) -> Result<Release, Malformed> {
        let place = self.date.span();
        let date = OffsetDateTime::parse(self.date.get_ref(), &Rfc3339)
            .map_err(|_| at(text, Some(place.clone()), "not a date".to_owned()))?;
        let sha256 = Digest::from_hex(&self.sha256)
            .map_err(|error| at(text, Some(place), error.to_string()))?;
        Ok(Release {
            archive: self.archive,
            suite: self.suite,
            date: date.unix_timestamp(),
            sha256,
        })
    }
}

impl RawPackage {
    fn check(self) -> Result<Package, Malformed> {
        let bad = |key, value: &str| Malformed::Value {
            package: self.name.clone(),
            key,
            value: value.to_owned(),
        };
        let plain = |text: &str, also: &[u8]| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
        };
        for (key, value, also) in [
            ("name", &self.name, &b"+-."[..]),
            ("version", &self.version, b".+~:-"),
            ("architecture", &self.architecture, b"-"),
            ("archive", &self.archive, b"._-"),
        ] {
            if !plain(value, also) {
                return Err(bad(key, value));
            }
        }
        if !is_pool_path(&self.path) {
            return Err(bad("path", &self.path));
        }
        if self.size == 0 || self.size > MAX_PACKAGE {
            return Err(bad("size", &self.size.to_string()));
        }
        let sha256 = Digest::from_hex(&self.sha256).map_err(|_| bad("sha256", &self.sha256))?;
        let usage = Use::ALL
            .into_iter()
            .find(|usage| usage.word() == self.usage)
            .ok_or_else(|| bad("use", &self.usage))?;
        Ok(Package {
            name: self.name,
            usage,
            version: self.version,
            architecture: self.architecture,
            archive: self.archive,
            path: self.path,
            size: self.size,
            sha256,
        })
    }
}

/// Whether a path stays below an archive's base and is plain enough to stand in a URL.
pub(crate) fn is_pool_path(path: &str) -> bool {
    path.len() < 1024
        && path.split('/').all(|part| {
            !matches!(part, "" | "." | "..")
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._+~:%-".contains(&byte))
        })
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn at(text: &str, span: Option<std::ops::Range<usize>>, message: String) -> Malformed {
    let start = span.map_or(0, |span| span.start);
    let line = text.get(..start).unwrap_or("").matches('\n').count() + 1;
    Malformed::Text { line, message }
}
