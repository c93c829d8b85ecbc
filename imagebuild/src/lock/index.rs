//! What the archives offer today: verified releases, and their package indexes.
//!
//! It refuses releases that no key of the keyring signed, that are of another suite or out of time, and indexes whose
//! bytes the release does not name. Of several mirrors, one good one is enough.

use std::io::Read;
use std::path::{Path, PathBuf};

use deb_archive::openpgp::Keyring;
use deb_archive::release::{Index, Release};
use image_manifest::Digest;

use super::Request;
use crate::cache::{Cache, Shelf};
use crate::definition::Suite;
use cloud::http::chain;

use crate::fetch::client::Client;
use crate::fetch::download::{Failed, Wanted, download};
use crate::fetch::progress::Progress;
use crate::fetch::{Answer, Attempt};
use crate::mirror::{Base, Mirrors};

/// Largest signed release that is read.
const MAX_RELEASE: u64 = 16 << 20;
/// Largest index, unpacked; Debian's largest is 60 MB.
const MAX_INDEX: u64 = 1 << 30;
/// `xz -9` asks for 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// Why the archives' offer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The keyring cannot be read.
    #[error("failed to read the keyring `{path}`")]
    KeyringRead {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The keyring is none.
    #[error("failed to understand the keyring `{path}`")]
    Keyring {
        /// The file.
        path: PathBuf,
        /// Why.
        source: deb_archive::openpgp::Error,
    },
    /// No mirror is known.
    #[error(transparent)]
    Mirror(#[from] crate::mirror::Error),
    /// No mirror has a good release of a suite.
    #[error("no mirror has a good release of suite `{suite}` of archive `{archive}`:{}", crate::fetch::list(.attempts))]
    Release {
        /// The archive.
        archive: String,
        /// The suite.
        suite: String,
        /// What each mirror answered.
        attempts: Vec<Attempt>,
    },
    /// The suite has no such component, or not for this architecture.
    #[error("suite `{suite}` has no component `{component}` for `{architecture}`")]
    Component {
        /// The suite.
        suite: String,
        /// The component.
        component: String,
        /// The architecture.
        architecture: String,
    },
    /// No mirror has an index that the release names.
    #[error("no mirror has the index `{path}` of suite `{suite}`:{}", crate::fetch::list(.attempts))]
    Index {
        /// The suite.
        suite: String,
        /// Path of the index in the suite.
        path: String,
        /// What each mirror answered.
        attempts: Vec<Attempt>,
    },
    /// An index cannot be unpacked.
    #[error("failed to unpack the index `{path}`")]
    Unpack {
        /// The file in the cache.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The cache does not work.
    #[error(transparent)]
    Cache(#[from] crate::cache::Error),
}

/// The offer of one suite.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) suite: Suite,
    pub(super) date: i64,
    /// Digest of the signed text.
    pub(super) sha256: Digest,
    /// Texts of the indexes, one a component.
    pub(super) indexes: Vec<String>,
}

/// Reads the offer of all suites of a request.
pub(super) async fn read(
    request: &Request,
    keyring: &Path,
    mirrors: &Mirrors,
    cache: &Cache,
    now: i64,
) -> Result<Vec<Offer>, Error> {
    let bytes = std::fs::read(keyring).map_err(|source| Error::KeyringRead {
        path: keyring.to_path_buf(),
        source,
    })?;
    let keyring = Keyring::parse(&bytes).map_err(|source| Error::Keyring {
        path: keyring.to_path_buf(),
        source,
    })?;
    let client = Client::new();
    let mut signed = Vec::new();
    let mut places = Vec::new();
    for suite in &request.suites {
        let bases = mirrors.bases(&suite.archive)?;
        let (release, base) = signed_release(&client, &keyring, suite, bases, now).await?;
        for component in &request.components {
            let (path, index) = locate(&release.release, suite, component, &request.architecture)?;
            let urls = urls(&release.release, suite, &path, index, base, bases);
            places.push(Place {
                suite,
                path,
                wanted: Wanted {
                    shelf: Shelf::Indexes,
                    digest: index.sha256,
                    size: index.size,
                    urls,
                },
            });
        }
        signed.push(release);
    }
    let mut files = fetch(&client, cache, &places).await?.into_iter();
    let mut offers = Vec::new();
    for (suite, signed) in request.suites.iter().zip(signed) {
        let mut indexes = Vec::new();
        for file in files.by_ref().take(request.components.len()) {
            indexes.push(unpack(file).await?);
        }
        offers.push(Offer {
            suite: suite.clone(),
            date: signed.release.date,
            sha256: signed.sha256,
            indexes,
        });
    }
    Ok(offers)
}

/// One index, and where it may be.
struct Place<'r> {
    suite: &'r Suite,
    path: String,
    wanted: Wanted,
}

struct Signed {
    release: Release,
    sha256: Digest,
}

/// Takes the first good release, and the mirror that had it.
async fn signed_release<'m>(
    client: &Client,
    keyring: &Keyring,
    suite: &Suite,
    bases: &'m [Base],
    now: i64,
) -> Result<(Signed, &'m Base), Error> {
    let mut attempts = Vec::new();
    for base in bases {
        let url = base.join(&format!("dists/{}/InRelease", suite.suite));
        let outcome = match client.text(&url, MAX_RELEASE).await {
            Ok(bytes) => check(keyring, &suite.suite, &bytes, now)
                .map_err(|outcome| (Answer::Differs, outcome)),
            Err(error) => Err((error.answer(), error.to_string())),
        };
        match outcome {
            Ok(signed) => return Ok((signed, base)),
            Err((answer, outcome)) => attempts.push(Attempt {
                source: url,
                outcome,
                answer,
            }),
        }
    }
    Err(Error::Release {
        archive: suite.archive.clone(),
        suite: suite.suite.clone(),
        attempts,
    })
}

fn check(keyring: &Keyring, suite: &str, bytes: &[u8], now: i64) -> Result<Signed, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the release is not text".to_owned())?;
    let verified = keyring.verify(text, now).map_err(|error| chain(&error))?;
    let release = Release::parse(&verified.text).map_err(|error| error.to_string())?;
    release
        .check(suite, now)
        .map_err(|error| error.to_string())?;
    tracing::debug!(suite, signers = ?verified.signers, "verified release");
    Ok(Signed {
        release,
        sha256: Digest::of(verified.text.as_bytes()),
    })
}

fn locate(
    release: &Release,
    suite: &Suite,
    component: &str,
    architecture: &str,
) -> Result<(String, Index), Error> {
    let path = format!("{component}/binary-{architecture}/Packages.xz");
    match release.index(&path) {
        Some(index) => Ok((path, index)),
        None => Err(Error::Component {
            suite: suite.suite.clone(),
            component: component.to_owned(),
            architecture: architecture.to_owned(),
        }),
    }
}

/// Where an index may be: the mirror that had the release first; by digest first, as a mirror may be in the middle of
/// an update.
fn urls(
    release: &Release,
    suite: &Suite,
    path: &str,
    index: Index,
    first: &Base,
    bases: &[Base],
) -> Vec<String> {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let suite = &suite.suite;
    let by_hash = format!(
        "dists/{suite}/{directory}/by-hash/SHA256/{}",
        index.sha256.hex()
    );
    let plain = format!("dists/{suite}/{path}");
    let others = bases.iter().filter(|base| *base != first);
    let mut urls = Vec::new();
    for base in std::iter::once(first).chain(others) {
        if release.by_hash {
            urls.push(base.join(&by_hash));
        }
        urls.push(base.join(&plain));
    }
    urls
}

/// Brings all indexes into the cache, in order.
async fn fetch(
    client: &Client,
    cache: &Cache,
    places: &[Place<'_>],
) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for place in places {
        found.push(cache.find(place.wanted.shelf, &place.wanted.digest)?);
    }
    let missing = || places.iter().zip(&found).filter(|(_, file)| file.is_none());
    let count = missing().count();
    let bytes = missing().map(|(place, _)| place.wanted.size).sum();
    let progress = Progress::begin("indexes", count, bytes);
    let mut files = Vec::new();
    for (place, file) in places.iter().zip(found) {
        let file = match file {
            Some(file) => file,
            None => download(client, cache, &place.wanted, &progress)
                .await
                .map_err(|failed| place.nowhere(failed))?,
        };
        files.push(file);
    }
    progress.finish(count, bytes);
    Ok(files)
}

impl Place<'_> {
    fn nowhere(&self, failed: Failed) -> Error {
        match failed {
            Failed::Cache(error) => Error::Cache(error),
            Failed::Everywhere(attempts) => Error::Index {
                suite: self.suite.suite.clone(),
                path: self.path.clone(),
                attempts,
            },
        }
    }
}

async fn unpack(path: PathBuf) -> Result<String, Error> {
    let failed = |source: std::io::Error| Error::Unpack {
        path: path.clone(),
        source,
    };
    let file = path.clone();
    let unpacked = tokio::task::spawn_blocking(move || unpack_file(&file)).await;
    unpacked
        .map_err(|error| failed(error.into()))?
        .map_err(failed)
}

fn unpack_file(path: &Path) -> std::io::Result<String> {
    let file = std::io::BufReader::new(std::fs::File::open(path)?);
    let stream =
        liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
    let decoder = liblzma::bufread::XzDecoder::new_stream(file, stream);
    let mut text = String::new();
    if decoder.take(MAX_INDEX + 1).read_to_string(&mut text)? as u64 > MAX_INDEX {
        return Err(std::io::Error::other("it is larger than 1 GiB"));
    }
    Ok(text)
}
