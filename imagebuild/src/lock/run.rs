//! The verb `lock`: resolves a definition and writes its lock.
//!
//! It refuses to write anything with `--dry-run`, to touch a lock whose packages are the same already, and to go
//! back to an older release unless it is told to.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use image_manifest::Digest;
use serde::Serialize;
use time::OffsetDateTime;

use super::{Difference, Lock, make};
use crate::cache::{self, Cache};
use crate::definition::{self, Definition, Problem};
use crate::fetch::{Answer, Fault};
use crate::mirror::{self, Mirrors};

/// What the verb takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Directory of the definition
    pub directory: PathBuf,
    /// Which of the definition's architectures; all of them without it and without `--output`
    #[arg(long, value_name = "NAME")]
    pub architecture: Option<String>,
    /// Mirror to use, `[ARCHIVE=]URL`; may be given several times
    #[arg(long = "mirror", value_name = "[ARCHIVE=]URL")]
    pub mirrors: Vec<String>,
    /// Where to keep what is fetched
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Write the lock here, not beside the definition
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Accept releases that are older than those of the lock that is there
    #[arg(long)]
    pub allow_older: bool,
    /// Show the difference and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl Arguments {
    /// Loads the definition for the architecture that is asked for.
    pub(super) fn definition(&self) -> Result<Definition, Error> {
        definition::load_for(&self.directory, self.architecture.as_deref())
            .map_err(Error::Definition)
    }

    /// Says the same once for each lock that is asked for.
    ///
    /// # Errors
    /// When the definition has problems.
    pub fn each(&self) -> Result<Vec<Self>, Error> {
        if self.architecture.is_some() || self.output.is_some() {
            return Ok(vec![self.clone()]);
        }
        let all = self.definition()?.architectures.into_iter();
        let each = all.map(|architecture| Self {
            architecture: Some(architecture),
            ..self.clone()
        });
        Ok(each.collect())
    }
}

/// What came of it; `--json` prints this.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// Name of the image.
    pub name: String,
    /// The file, written or not.
    pub lock: PathBuf,
    /// Digest of the lock.
    pub digest: Digest,
    /// Whether the file was written.
    pub written: bool,
    /// How many packages it holds.
    pub packages: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The only clock of a build.
    pub source_date: i64,
    /// What is different from the lock that was there.
    pub difference: Difference,
}

/// Why no lock was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The definition has problems.
    #[error("the definition has {} problems", .0.len())]
    Definition(Vec<Problem>),
    /// The mirrors are not well named.
    #[error(transparent)]
    Mirror(#[from] mirror::Error),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The lock could not be made.
    #[error("failed to lock `{name}`")]
    Make {
        /// The image.
        name: String,
        /// Why.
        source: make::Error,
    },
    /// A release is older than the one that was locked, as when someone replays it.
    #[error(
        "the release of suite `{suite}` of archive `{archive}` is older than the one that was locked: use another mirror, or say `--allow-older`"
    )]
    Older {
        /// The archive.
        archive: String,
        /// The suite.
        suite: String,
    },
    /// The lock could not be written.
    #[error("failed to write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// Who has to change something.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Definition(_) | Self::Mirror(_) => Fault::Configuration,
            Self::Cache(_) | Self::Write { .. } => Fault::Machine,
            Self::Older { .. } => Fault::Untrusted,
            Self::Make { source, .. } => source.fault(),
        }
    }
}

impl make::Error {
    fn fault(&self) -> Fault {
        use super::index::Error as Index;
        match self {
            Self::Index(
                Index::KeyringRead { .. }
                | Index::Keyring { .. }
                | Index::Mirror(_)
                | Index::Component { .. },
            )
            | Self::Resolve(_) => Fault::Configuration,
            // Asking again turns no bad signature into a good one.
            Self::Index(Index::Release { attempts, .. } | Index::Index { attempts, .. })
                if attempts
                    .iter()
                    .any(|attempt| attempt.answer == Answer::Differs) =>
            {
                Fault::Untrusted
            }
            Self::Index(Index::Release { .. } | Index::Index { .. }) => Fault::Remote,
            Self::Malformed { .. } | Self::Path { .. } => Fault::Untrusted,
            Self::Index(Index::Unpack { .. } | Index::Cache(_)) | Self::Stopped(_) => {
                Fault::Machine
            }
        }
    }
}

/// Resolves a definition, says what is different on standard error, and writes the lock.
///
/// # Errors
/// When the definition has problems, no mirror answers well, the request has no answer, or the file cannot be written.
pub async fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let definition = arguments.definition()?;
    let mirrors = Mirrors::find(&arguments.mirrors, None)?;
    let cache = Cache::open(arguments.cache.as_deref())?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let lock = make::make(&definition, &mirrors, &cache, now)
        .await
        .map_err(|source| Error::Make {
            name: definition.name.clone(),
            source,
        })?;
    let path = arguments
        .output
        .clone()
        .unwrap_or_else(|| definition.lock_path());
    // What is there and is no lock of ours is replaced like none.
    let old = Lock::load(&path).ok();
    if let Some(old) = &old
        && !arguments.allow_older
    {
        check_age(old, &lock)?;
    }
    let difference = Difference::between(old.as_ref(), &lock);
    narrate(&definition.name, old.as_ref(), &difference);
    // New releases of the same packages would only change dates: the image stays what it is.
    let same = old
        .as_ref()
        .is_some_and(|old| difference.is_empty() && old.request == lock.request);
    let lock = old.filter(|_| same).unwrap_or(lock);
    let written = !same && !arguments.dry_run;
    if written {
        write(&path, &lock.render())?;
    }
    Ok(Outcome {
        name: definition.name,
        lock: path,
        digest: lock.digest(),
        written,
        packages: lock.packages.len(),
        bytes: lock.bytes(),
        source_date: lock.source_date,
        difference,
    })
}

fn narrate(name: &str, old: Option<&Lock>, difference: &Difference) {
    match old {
        None => eprintln!("`{name}` has no lock yet"),
        Some(_) if difference.is_empty() => eprintln!("`{name}` keeps its packages"),
        Some(_) => eprintln!("`{name}` changes:\n{difference}"),
    }
}

/// Refuses to go back: main suites do not expire, so that a mirror may replay an old one for ever.
pub(super) fn check_age(old: &Lock, new: &Lock) -> Result<(), Error> {
    for release in &new.releases {
        let older = old.releases.iter().any(|before| {
            (&before.archive, &before.suite) == (&release.archive, &release.suite)
                && before.date > release.date
        });
        if older {
            return Err(Error::Older {
                archive: release.archive.clone(),
                suite: release.suite.clone(),
            });
        }
    }
    Ok(())
}

/// Writes beside the file and renames, so that a reader sees the old lock or the new one.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.to_path_buf(),
        source,
    };
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let mut file = tempfile::Builder::new()
        .prefix(".image.lock-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().sync_all())
        .map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Release;

    fn lock(dates: &[(&str, i64)]) -> Lock {
        let release = |(suite, date): &(&str, i64)| Release {
            archive: "debian".to_owned(),
            suite: (*suite).to_owned(),
            date: *date,
            sha256: Digest::of(b""),
        };
        Lock {
            request: Digest::of(b""),
            source_date: 0,
            releases: dates.iter().map(release).collect(),
            packages: Vec::new(),
        }
    }

    #[test]
    fn no_release_goes_back() {
        let old = lock(&[("trixie", 5), ("trixie-updates", 9)]);
        let cases = [
            (
                "the same",
                lock(&[("trixie", 5), ("trixie-updates", 9)]),
                true,
            ),
            ("newer", lock(&[("trixie", 6), ("trixie-updates", 9)]), true),
            ("of another suite", lock(&[("forky", 1)]), true),
            (
                "one older",
                lock(&[("trixie", 6), ("trixie-updates", 8)]),
                false,
            ),
        ];
        for (name, new, expected) in cases {
            let outcome = check_age(&old, &new);
            assert_eq!(outcome.is_ok(), expected, "{name}");
            if let Err(error) = outcome {
                assert_eq!(error.fault(), Fault::Untrusted);
                assert!(error.to_string().contains("--allow-older"), "{error}");
            }
        }
    }
}
