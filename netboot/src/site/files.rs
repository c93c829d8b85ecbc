//! The files of a site as one value: what is read from a directory, sent, checked and kept.
//!
//! It refuses secrets in the clear: only `*.toml`, authorities (PEM) and encrypted secrets travel.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image_manifest::{Digest, Hasher};
use netboot_core::site::{Location, Problem, ProblemKind, SecretSource, Site, SourceFile};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FILES_MAX, SiteError};

/// Largest authority or encrypted secret.
const BESIDE_MAX: u64 = 128 * 1024;

/// Most bytes of all files of a site that is sent: 10,000 hosts take about 4 MiB.
pub const TOTAL_MAX: usize = 32 << 20;

/// The files of a site, by path; the paths are relative, and none leaves the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    files: BTreeMap<Arc<str>, Arc<[u8]>>,
}

/// A site as it is sent to the appliance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upload {
    /// Its files.
    pub files: Vec<UploadedFile>,
}

/// One file of a site that is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadedFile {
    /// Its path in the site directory.
    pub path: String,
    /// What it holds, when that is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What it holds in base64, when it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// Why files that were sent are no site's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// A path leads out of the directory, or to a file that is not sent.
    #[error(
        "`{path}` is no file of a site: `NAME.toml`, or `….pem`, `….crt` or `….age` without `..`"
    )]
    Path {
        /// The path.
        path: String,
    },
    /// A path is given twice.
    #[error("`{path}` is sent twice")]
    Twice {
        /// The path.
        path: String,
    },
    /// There is no content, or two, or it is no base64.
    #[error("`{path}` needs `text`, or else `base64`")]
    Content {
        /// The path.
        path: String,
    },
    /// A `*.toml` is not text.
    #[error("`{path}` is not UTF-8")]
    NotText {
        /// The path.
        path: String,
    },
    /// It is too much.
    #[error("a site has at most {FILES_MAX} files of {TOTAL_MAX} bytes together")]
    Large,
    /// Nothing is sent.
    #[error("no `*.toml` is sent")]
    Empty,
}

/// What a file of a site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Toml,
    Authority,
    Sealed,
}

fn kind(path: &str) -> Option<Kind> {
    let part =
        |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(char::is_control);
    if path.len() > 255 || path.contains('\\') || !path.split('/').all(part) {
        return None;
    }
    match path.rsplit_once('.')?.1 {
        "toml" => (!path.contains('/')).then_some(Kind::Toml),
        "pem" | "crt" => Some(Kind::Authority),
        "age" => Some(Kind::Sealed),
        _ => None,
    }
}

impl Files {
    /// Reads a site directory: its `*.toml` files, and those that they name and that may travel.
    ///
    /// # Errors
    /// When a file cannot be read, or with everything that is wrong with the site.
    pub fn read(directory: &Path) -> Result<(Self, Site), SiteError> {
        let sources = super::sources(directory)?;
        let site = super::check(&sources)?;
        let mut files = Self::default();
        for source in &sources {
            let name = Path::new(&*source.path).file_name().unwrap_or_default();
            let content = Arc::from(source.text.as_bytes());
            files
                .files
                .insert(name.to_string_lossy().as_ref().into(), content);
        }
        let mut problems = Vec::new();
        for (path, location) in named(&site) {
            let content = super::read_at_most(&directory.join(&*path), BESIDE_MAX);
            let wrong = match content {
                Ok(content) => {
                    let wrong = wrong_content(&path, &content);
                    files.files.insert(path, content.into());
                    wrong
                }
                Err(error) => Some(missing(&site, directory, &path, &error)),
            };
            problems.extend(wrong.map(|text| problem(location, text)));
        }
        if problems.is_empty() {
            Ok((files, site))
        } else {
            let files = sources;
            Err(SiteError::Wrong { files, problems })
        }
    }

    /// Takes files that were sent.
    ///
    /// # Errors
    /// When one of them does not belong to a site, or they are too many.
    pub fn receive(upload: &Upload) -> Result<Self, UploadError> {
        let mut files = Self::default();
        let mut total = 0;
        if upload.files.len() > FILES_MAX {
            return Err(UploadError::Large);
        }
        for file in &upload.files {
            let path = || file.path.clone();
            let Some(kind) = kind(&file.path) else {
                return Err(UploadError::Path { path: path() });
            };
            let content = match (&file.text, &file.base64) {
                (Some(text), None) => Ok(text.as_bytes().to_vec()),
                (None, Some(digits)) => STANDARD.decode(digits).map_err(|_| ()),
                _ => Err(()),
            };
            let content = content.map_err(|()| UploadError::Content { path: path() })?;
            if kind == Kind::Toml && std::str::from_utf8(&content).is_err() {
                return Err(UploadError::NotText { path: path() });
            }
            total += content.len();
            if total > TOTAL_MAX {
                return Err(UploadError::Large);
            }
            let before = files
                .files
                .insert(file.path.as_str().into(), content.into());
            if before.is_some() {
                return Err(UploadError::Twice { path: path() });
            }
        }
        if files.sources().next().is_none() {
            return Err(UploadError::Empty);
        }
        Ok(files)
    }

    /// Returns the files as they are sent.
    #[must_use]
    pub fn upload(&self) -> Upload {
        let file = |(path, content): (&Arc<str>, &Arc<[u8]>)| {
            let text = std::str::from_utf8(content).ok().map(str::to_owned);
            let base64 = text.is_none().then(|| STANDARD.encode(content));
            UploadedFile {
                path: path.to_string(),
                text,
                base64,
            }
        };
        let files = self.files.iter().map(file).collect();
        Upload { files }
    }

    /// Checks the site that the files are, and that what it names is among them.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn check(&self) -> Result<Site, SiteError> {
        let sources: Vec<SourceFile> = self.sources().collect();
        let site = super::check(&sources)?;
        let wrong = named(&site).into_iter().filter_map(|(path, location)| {
            let text = match self.files.get(&path) {
                Some(content) => wrong_content(&path, content)?,
                None => format!("`{path}` is not among the site's files"),
            };
            Some(problem(location, text))
        });
        let problems: Vec<Problem> = wrong.collect();
        if problems.is_empty() {
            Ok(site)
        } else {
            let files = sources;
            Err(SiteError::Wrong { files, problems })
        }
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = SourceFile> {
        let toml = |(path, _): &(&Arc<str>, &Arc<[u8]>)| kind(path) == Some(Kind::Toml);
        self.files
            .iter()
            .filter(toml)
            .map(|(path, content)| SourceFile {
                path: Arc::clone(path),
                text: String::from_utf8_lossy(content).into(),
            })
    }

    /// Returns the files with what they hold, in the order of their paths.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files
            .iter()
            .map(|(path, content)| (&**path, &**content))
    }

    /// Returns what a file holds.
    #[must_use]
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(|content| &**content)
    }

    /// Adds a file, as it was kept.
    pub(super) fn insert(&mut self, path: &str, content: Vec<u8>) {
        self.files.insert(path.into(), content.into());
    }

    /// Returns the digests of the files beside the `*.toml`.
    #[must_use]
    pub fn beside(&self) -> BTreeMap<Arc<str>, Digest> {
        let beside = self.files.iter();
        beside
            .filter(|(path, _)| kind(path) != Some(Kind::Toml))
            .map(|(path, content)| (Arc::clone(path), Digest::of(content)))
            .collect()
    }

    /// Returns the digest of all files: the name of this version of the site.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        for (path, content) in &self.files {
            // Lengths first, so that no two sites are the same bytes.
            hasher.update(&(path.len() as u64).to_be_bytes());
            hasher.update(path.as_bytes());
            hasher.update(&(content.len() as u64).to_be_bytes());
            hasher.update(content);
        }
        hasher.finish()
    }
}

/// Lists the files of the directory that a site names and that may travel, each once.
fn named(site: &Site) -> BTreeMap<Arc<str>, Location> {
    let authorities = site.places.authorities.iter();
    let mut named: BTreeMap<Arc<str>, Location> = authorities
        .map(|(path, location)| (Arc::clone(path), location.clone()))
        .collect();
    for (name, source) in &site.secrets {
        if let (Some(path), Some(location)) = (source.site_file(), site.places.secrets.get(name))
            && source.is_sealed()
        {
            named
                .entry(Arc::clone(path))
                .or_insert_with(|| location.clone());
        }
    }
    named
}

/// Says why a file that a site names cannot be read, and how a secret that was never sealed is.
fn missing(site: &Site, directory: &Path, path: &str, error: &io::Error) -> String {
    let of = |source: &SecretSource| {
        source.is_sealed() && source.site_file().is_some_and(|file| **file == *path)
    };
    let secret = site.secrets.iter().find(|(_, source)| of(source));
    match secret {
        Some((name, _)) if error.kind() == io::ErrorKind::NotFound => format!(
            "`{path}` is not there yet; seal it on the appliance: `netboot enroll secret {name} --site {} --data DIR`, \
             which reads it from standard input",
            directory.display()
        ),
        _ => format!("failed to read `{path}`: {error}"),
    }
}

/// Says what is wrong with a file that a site names.
fn wrong_content(path: &str, content: &[u8]) -> Option<String> {
    match kind(path) {
        Some(Kind::Authority) => {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
            match certificates {
                Ok(found) if !found.is_empty() && !holds_key(content) => None,
                Ok(found) if !found.is_empty() => Some(format!(
                    "`{path}` holds a private key beside its certificates"
                )),
                _ => Some(format!("`{path}` holds no certificate in PEM")),
            }
        }
        Some(Kind::Sealed) => {
            let sealed = content.starts_with(b"age-encryption.org/v1\n")
                || content.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----");
            (!sealed).then(|| format!("`{path}` is not encrypted with age"))
        }
        _ => Some(format!(
            "`{path}` cannot travel with the site: it must end in `.pem`, `.crt` or `.age`, and no part of it may begin with a dot"
        )),
    }
}

fn holds_key(content: &[u8]) -> bool {
    let marker = b"PRIVATE KEY-----";
    content.windows(marker.len()).any(|window| window == marker)
}

fn problem(location: Location, text: String) -> Problem {
    Problem {
        location,
        kind: ProblemKind::Contradiction(text),
        first: None,
    }
}
