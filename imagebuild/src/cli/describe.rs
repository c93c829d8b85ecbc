//! What the verbs about images and locks share: references, stores, and the packages of a definition.
//!
//! It refuses to build and to lock.

use std::path::PathBuf;

use clap::Args;
use imagebuild::definition::{self, Definition};
use imagebuild::facts::{self, Facts};
use imagebuild::fetch::{self, FetchedPackage, Network, Sources};
use imagebuild::lock::{Lock, Locked, Package};

use super::SourceArgs;
use super::failure::{Exit, Failure};

/// A definition with its lock, and where its packages are.
#[derive(Debug, Args)]
pub(super) struct LockedArgs {
    /// Directory of the definition.
    #[arg(value_name = "DIR")]
    definition: PathBuf,
    /// The lock [default: `image.lock` beside the definition].
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// A store that may have the packages too.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(flatten)]
    sources: SourceArgs,
    /// Use no network: every package must be in the cache or the store.
    #[arg(long)]
    offline: bool,
}

/// The packages of a definition, and what they say about themselves.
pub(super) struct Known {
    pub(super) locked: Locked,
    pub(super) packages: Vec<FetchedPackage>,
    pub(super) facts: Vec<Facts>,
}

impl LockedArgs {
    /// Reads the definition and its lock, and brings the packages into the cache.
    pub(super) fn load(&self) -> Result<Known, Failure> {
        let definition = definition::load(&self.definition).map_err(Failure::Problems)?;
        let path = self.lock.clone().unwrap_or_else(|| definition.lock_path());
        let lock = Lock::load(&path).map_err(Failure::Lock)?;
        let locked = definition.lock(lock).map_err(Failure::Stale)?;
        let cache = self.sources.cache()?;
        let kept = facts::directory(cache.root());
        let sources = Sources {
            cache,
            files: self.store.as_ref().map(|store| store.join("blobs/sha256")),
            mirrors: self.sources.mirrors()?,
            network: if self.offline {
                Network::Offline
            } else {
                Network::Online
            },
        };
        let runtime = tokio::runtime::Runtime::new().map_err(Failure::Start)?;
        let fetched = runtime.block_on(fetch::fetch(&locked, &sources));
        let packages = fetched.map_err(Failure::Fetch)?.packages;
        let facts = facts::read_all(&packages, &kept);
        let facts = facts.map_err(|error| Failure::told(error, Exit::Failed))?;
        Ok(Known {
            locked,
            packages,
            facts,
        })
    }
}

impl Known {
    pub(super) fn definition(&self) -> &Definition {
        self.locked.definition()
    }

    pub(super) fn pairs(&self) -> Vec<(&Package, &Facts)> {
        let packages = self.packages.iter().map(|package| &package.entry);
        packages.zip(&self.facts).collect()
    }
}
