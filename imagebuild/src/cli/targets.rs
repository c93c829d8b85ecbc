//! Which targets a verb is about, and how they are reached: the same for all verbs that publish.
//!
//! It refuses a secret in the targets file: credentials come from where each cloud's own tools look for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use cloud::http::Http;
use cloud::{Options, Publication, Targets, targets};
use image_manifest::layout::Layout;
use imagebuild::cache::Cache;
use imagebuild::definition::Problem;
use imagebuild::publish::{self, Image};
use imagebuild::registry;

use super::failure::{Exit, Failure};
use super::push::plain;

/// Where the targets are, when nothing else is said.
const FILE: &str = "images/targets.toml";
/// What helps whoever has none.
const HELP: &str =
    "`--targets FILE` names another; `cloud/examples/targets.toml` shows what stands in one";

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

/// A target that is asked for and not there.
#[derive(Debug, thiserror::Error)]
#[error("`{}` has no target `{}`: its targets are `{}`", path.display(), asked.join("`, `"), names.join("`, `"))]
struct Unknown {
    path: PathBuf,
    asked: Vec<String>,
    names: Vec<String>,
}

/// A failure of publishing, with the exit code that says whose it is.
pub(super) fn failed(error: impl Into<publish::Error>) -> Failure {
    Failure::Publish(Box::new(error.into()))
}

/// Reads a file of settings that people keep; what may help is said when it cannot be read.
pub(super) fn read_text(path: &Path, help: &str) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        let mut problem = Problem::about_file(path, format!("failed to read it: {error}"));
        problem.help = Some(help.to_owned());
        Failure::Problems(vec![problem])
    })
}

/// Says what is wrong with a file of settings, and where.
pub(super) fn refused(
    path: &Path,
    text: &str,
    problems: impl IntoIterator<Item = targets::Problem>,
) -> Failure {
    let text: Arc<str> = text.into();
    let problems = problems.into_iter().map(|problem| Problem {
        file: path.to_owned(),
        text: Arc::clone(&text),
        span: problem.span,
        message: problem.message,
        help: None,
    });
    Failure::Problems(problems.collect())
}

impl TargetArgs {
    /// Reads the targets.
    pub(super) fn read(&self) -> Result<Targets, Failure> {
        let path = &self.targets;
        let text = read_text(path, HELP)?;
        let targets = Targets::parse(&text);
        let mut targets = targets.map_err(|problems| refused(path, &text, problems))?;
        let names: Vec<_> = targets.names().into_iter().map(str::to_owned).collect();
        if !self.only.is_empty() {
            let asked = targets.select(&self.only);
            if !asked.is_empty() {
                let path = path.clone();
                let unknown = Unknown { path, asked, names };
                return Err(Failure::told(unknown, Exit::Configuration));
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
