//! Which targets a verb is about, and how they are reached: the same for all verbs that publish.
//!
//! It refuses a secret in the targets file: credentials come from where each cloud's own tools look for them.

use std::path::{Path, PathBuf};

use clap::Args;
use cloud::http::Http;
use cloud::{Options, Publication, Targets};
use image_manifest::layout::Layout;
use imagebuild::cache::Cache;
use imagebuild::publish::{self, Image};
use imagebuild::registry;

use super::failure::{Exit, Failure};
use super::push::plain;

/// Where the targets are, when nothing else is said.
const FILE: &str = "images/targets.toml";

/// Which targets, and how they are reached.
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// The targets file.
    #[arg(long, value_name = "FILE", default_value = FILE)]
    targets: PathBuf,
    /// Only this target; may be given several times [default: all of the file].
    #[arg(long = "target", value_name = "NAME")]
    only: Vec<String>,
    /// Version of the image, in names and tags [default: its day and the first digits of its digest].
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Speak plain HTTP with registries; without this, only registries on this computer are spoken to so.
    #[arg(long)]
    plain_http: bool,
    /// Where is kept what was begun and cut [default: the user's cache directory].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// Why a targets file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetsError {
    #[error("failed to read `{}`", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("`{}` is refused", path.display())]
    Refused {
        path: PathBuf,
        source: cloud::targets::Error,
    },
    #[error("`{}` has no target {}", path.display(), names.join(", "))]
    Unknown { path: PathBuf, names: Vec<String> },
}

/// A failure of publishing, with the exit code that says whose it is.
pub(super) fn failed(error: impl Into<publish::Error>) -> Failure {
    Failure::Publish(Box::new(error.into()))
}

impl TargetArgs {
    /// Reads the targets.
    pub(super) fn read(&self) -> Result<Targets, Failure> {
        let bad = |error| Failure::told(error, Exit::Configuration);
        let path = || self.targets.clone();
        let text = std::fs::read_to_string(&self.targets);
        let text = text.map_err(|source| {
            bad(TargetsError::Read {
                path: path(),
                source,
            })
        })?;
        let targets = Targets::parse(&text);
        let mut targets = targets.map_err(|source| {
            bad(TargetsError::Refused {
                path: path(),
                source,
            })
        })?;
        if !self.only.is_empty() {
            let names = targets.select(&self.only);
            if !names.is_empty() {
                return Err(bad(TargetsError::Unknown {
                    path: path(),
                    names,
                }));
            }
        }
        Ok(targets)
    }

    /// Finds the image.
    pub(super) fn image(&self, store: &Path, reference: &str) -> Result<Image, Failure> {
        let store = Layout::open(store).map_err(Failure::Store)?;
        Image::find(store, reference, self.version.as_deref()).map_err(failed)
    }

    /// Everybody whom it goes to.
    pub(super) fn publication(
        &self,
        image: &Image,
        targets: &Targets,
    ) -> Result<Publication, Failure> {
        let cache = Cache::open(self.cache.as_deref()).map_err(Failure::Cache)?;
        let options = Options {
            journal: publish::journal(&cache),
            http: Http::new(),
        };
        let registry = registry::Options::usual(&cache, plain(self.plain_http));
        let providers = image.providers(targets, &options, &registry);
        providers.map(Publication::new).map_err(failed)
    }
}
