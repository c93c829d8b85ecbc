//! What the verbs about a definition and its lock share: where both are, where packages are, and what these say.
//!
//! It refuses to build and to lock.

use std::path::{Path, PathBuf};

use clap::Args;
use imagebuild::definition::{self, Definition};
use imagebuild::facts::{self, Facts};
use imagebuild::fetch::{self, Fetched, FetchedPackage, Network, Sources};
use imagebuild::lock::{Lock, Locked, Package};
use tokio::runtime::Runtime;

use super::SourceArgs;
use super::failure::{Exit, Failure};

/// A definition with its lock, and where its packages are.
#[derive(Debug, Args)]
pub(super) struct LockedArgs {
    /// Directory of the definition.
    #[arg(value_name = "DIR")]
    definition: PathBuf,
    /// Which of the definition's architectures [default: the first].
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// The lock [default: the one beside the definition].
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    #[command(flatten)]
    pub(super) sources: SourceArgs,
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
    /// Reads the definition and its lock, and refuses one that was made for something else.
    pub(super) fn locked(&self) -> Result<Locked, Failure> {
        let architecture = self.architecture.as_deref();
        let definition = definition::load_for(&self.definition, architecture);
        let definition = definition.map_err(Failure::Problems)?;
        let path = self.lock.clone().unwrap_or_else(|| definition.lock_path());
        let lock = Lock::load(&path).map_err(Failure::Lock)?;
        definition.lock(lock).map_err(Failure::Stale)
    }

    /// Says where packages come from, with a store that may have them.
    pub(super) fn sources(&self, store: Option<&Path>) -> Result<Sources, Failure> {
        Ok(Sources {
            cache: self.sources.cache()?,
            files: store.map(|store| store.join("blobs/sha256")),
            mirrors: self.sources.mirrors()?,
            network: if self.offline {
                Network::Offline
            } else {
                Network::Online
            },
        })
    }

    /// Brings the packages into the cache, and reads what they say.
    pub(super) fn load(&self, store: Option<&Path>) -> Result<Known, Failure> {
        let locked = self.locked()?;
        let sources = self.sources(store)?;
        let kept = facts::directory(sources.cache.root());
        let runtime = Runtime::new().map_err(Failure::Start)?;
        let packages = bring(&runtime, &locked, &sources)?.packages;
        let facts = facts::read_all(&packages, &kept, |package| package.path.clone());
        let facts = facts.map_err(|error| Failure::told(error, Exit::Failed))?;
        Ok(Known {
            locked,
            packages,
            facts,
        })
    }
}

/// Brings the packages of a lock into the cache, and checks that they are what it calls them.
pub(super) fn bring(
    runtime: &Runtime,
    locked: &Locked,
    sources: &Sources,
) -> Result<Fetched, Failure> {
    let fetched = runtime.block_on(fetch::fetch(locked, sources));
    let fetched = fetched.map_err(Failure::Fetch)?;
    fetch::identify(&fetched.packages).map_err(Failure::Fetch)?;
    Ok(fetched)
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
