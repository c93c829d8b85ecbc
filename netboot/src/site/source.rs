//! Which site is served: what was applied, or else the site directory; and how it is replaced.
//!
//! It refuses to replace a site that somebody else replaced in the meantime, and to keep one that
//! has problems: whether a secret can be read is asked before, not at the first power cycle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image_manifest::Digest;
use netboot_core::difference::{Difference, Version, difference};
use netboot_core::site::{Problem, ProblemKind, Site};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Applied, AppliedError, Files, SiteError, Upload};
use crate::cli::report::chain;
use crate::secrets::Secrets;

/// The site that is served, and where it came from.
#[derive(Debug)]
pub struct Source {
    directory: PathBuf,
    applied: Applied,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    site: Arc<Site>,
    version: Digest,
    beside: BTreeMap<Arc<str>, Digest>,
    origin: Origin,
}

/// Where the site that is served came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The site directory; nothing was applied yet.
    Directory,
    /// It was applied.
    Applied,
}

/// How the site directory differs from the applied copy that is served instead of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Both hold the same files.
    Same,
    /// It holds another site.
    Other,
}

/// A site that was checked and could be served.
#[derive(Clone, Debug)]
pub struct Candidate {
    files: Files,
    site: Arc<Site>,
}

/// What applying a site would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The version that is served: `sha256:…`.
    #[schema(value_type = String)]
    pub from: Digest,
    /// The version that would be served.
    #[schema(value_type = String)]
    pub to: Digest,
    /// Where the site that is served came from.
    pub origin: Origin,
    /// Whether both mean the same.
    pub empty: bool,
    /// What differs, and what follows from it.
    #[schema(value_type = Object)]
    pub difference: Difference,
    /// What is allowed and an operator should know, each with its line.
    pub advice: Vec<String>,
}

/// A site to be applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApplyRequest {
    /// The site.
    #[serde(flatten)]
    pub site: Upload,
    /// The version that it was compared with; another one that is served then is not replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub expect: Option<Digest>,
}

/// What is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Served {
    /// Name of the site.
    pub name: String,
    /// Its version: `sha256:…`.
    #[schema(value_type = String)]
    pub version: Digest,
    /// Where it came from.
    pub origin: Origin,
    /// Whom secrets of the site are encrypted for: `age1…`.
    pub recipient: Option<String>,
    /// How many hosts it has.
    pub hosts: usize,
    /// What is allowed and an operator should know, each with its line.
    pub advice: Vec<String>,
}

/// Why a site was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else applied another one since the plan was made.
    #[error("the site changed to {found} since this was planned against {expected}; plan it again")]
    Moved {
        /// The version that was planned against.
        expected: Digest,
        /// The version that is served.
        found: Digest,
    },
    /// It could not be kept.
    #[error(transparent)]
    Keep(#[from] AppliedError),
}

impl Source {
    /// Finds the site to serve: what was applied last, or else the site directory.
    ///
    /// # Errors
    /// When there is none, or with everything that is wrong with it.
    pub fn open(directory: &Path, data: &Path) -> Result<(Self, Arc<Site>), SiteError> {
        let applied = Applied::open(data)?;
        let (files, site, origin) = if let Some(files) = applied.load()? {
            let site = files.check()?;
            if Files::read(directory).is_ok_and(|(there, _)| there != files) {
                tracing::warn!(
                    directory = %directory.display(),
                    "the applied site is served; the site directory differs from it"
                );
            }
            (files, site, Origin::Applied)
        } else {
            let (files, site) = Files::read(directory)?;
            (files, site, Origin::Directory)
        };
        let site = Arc::new(site);
        let current = Mutex::new(Current {
            site: Arc::clone(&site),
            version: files.digest(),
            beside: files.beside(),
            origin,
        });
        let directory = directory.to_owned();
        let source = Self {
            directory,
            applied,
            current,
        };
        Ok((source, site))
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // What is in it is replaced whole, so a panic elsewhere leaves it right.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks a site that was sent.
    ///
    /// # Errors
    /// With everything that is wrong with it, secrets that cannot be read here included.
    pub fn candidate(&self, upload: &Upload, secrets: &Secrets) -> Result<Candidate, SiteError> {
        let files = Files::receive(upload)?;
        let site = files.check()?;
        checked(files, site, secrets)
    }

    /// Reads the site directory again.
    ///
    /// # Errors
    /// With everything that is wrong with it, secrets that cannot be read here included.
    pub fn reread(&self, secrets: &Secrets) -> Result<Candidate, SiteError> {
        let (files, site) = Files::read(&self.directory)?;
        checked(files, site, secrets)
    }

    /// Tells what is served.
    #[must_use]
    pub fn served(&self, secrets: &Secrets) -> Served {
        let current = self.current();
        Served {
            name: current.site.name.to_string(),
            version: current.version,
            origin: current.origin,
            recipient: secrets.recipient().map(|recipient| recipient.to_string()),
            hosts: current.site.hosts().len(),
            advice: texts(&current.site.advice),
        }
    }

    /// Tells what a site would change.
    #[must_use]
    pub fn plan(&self, candidate: &Candidate) -> Plan {
        plan(&self.current(), candidate)
    }

    /// Keeps a site on disk, then lets `swap` serve it; when this returns, it is done.
    ///
    /// # Errors
    /// When the site that is served is not the expected one, or the new one cannot be kept.
    /// The old one is then still served.
    pub fn apply(
        &self,
        candidate: Candidate,
        expect: Option<Digest>,
        swap: impl FnOnce(Arc<Site>),
    ) -> Result<Plan, ApplyError> {
        let mut current = self.current();
        let plan = plan(&current, &candidate);
        if let Some(expected) = expect.filter(|expected| *expected != current.version) {
            let found = current.version;
            return Err(ApplyError::Moved { expected, found });
        }
        if !plan.changes_nothing() {
            self.applied.keep(&candidate.files)?;
            current.replace(candidate, Origin::Applied, swap);
        }
        Ok(plan)
    }

    /// Lets `swap` serve the site directory as it was read again; it is not kept, since it is the truth also at the
    /// next start.
    ///
    /// # Errors
    /// When a site was applied: then no directory is served.
    pub fn reload(
        &self,
        candidate: Candidate,
        swap: impl FnOnce(Arc<Site>),
    ) -> Result<Plan, ApplyError> {
        let mut current = self.current();
        let plan = plan(&current, &candidate);
        if current.origin == Origin::Applied {
            let (expected, found) = (plan.to, current.version);
            return Err(ApplyError::Moved { expected, found });
        }
        current.replace(candidate, Origin::Directory, swap);
        Ok(plan)
    }

    /// Lets `serve` serve the same site again, with whatever changed around it.
    ///
    /// # Errors
    /// Those of `serve`.
    pub fn again<E>(&self, serve: impl FnOnce(&Arc<Site>) -> Result<(), E>) -> Result<(), E> {
        serve(&self.current().site)
    }

    /// Compares the site directory with what is served.
    ///
    /// # Errors
    /// When the directory holds no good site.
    pub fn beside(&self) -> Result<Beside, SiteError> {
        let (files, _) = Files::read(&self.directory)?;
        Ok(if files.digest() == self.current().version {
            Beside::Same
        } else {
            Beside::Other
        })
    }

    /// Returns the site directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Tells where the site that is served came from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.current().origin
    }
}

impl Plan {
    /// Tells whether the same files were applied already.
    #[must_use]
    pub fn changes_nothing(&self) -> bool {
        self.from == self.to && self.origin == Origin::Applied
    }
}

impl Current {
    fn replace(&mut self, candidate: Candidate, origin: Origin, swap: impl FnOnce(Arc<Site>)) {
        let Candidate { files, site } = candidate;
        swap(Arc::clone(&site));
        *self = Self {
            site,
            version: files.digest(),
            beside: files.beside(),
            origin,
        };
    }
}

impl Candidate {
    /// Returns the site.
    #[must_use]
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }
}

fn plan(current: &Current, candidate: &Candidate) -> Plan {
    let beside = candidate.files.beside();
    let old = Version {
        site: &current.site,
        files: &current.beside,
    };
    let new = Version {
        site: &candidate.site,
        files: &beside,
    };
    let difference = difference(old, new);
    Plan {
        from: current.version,
        to: candidate.files.digest(),
        origin: current.origin,
        empty: difference.is_empty(),
        difference,
        advice: texts(&candidate.site.advice),
    }
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Refuses a site whose secrets cannot be read here or do not fit where they go.
fn checked(files: Files, site: Site, secrets: &Secrets) -> Result<Candidate, SiteError> {
    let mut problems: Vec<Problem> = secrets
        .check(&site, &files)
        .into_iter()
        .filter_map(|(name, error)| {
            let location = site.places.secrets.get(&*name)?.clone();
            Some(Problem {
                location,
                kind: ProblemKind::Contradiction(chain(&*error)),
                first: None,
            })
        })
        .collect();
    if problems.is_empty() {
        let site = Arc::new(site);
        return Ok(Candidate { files, site });
    }
    problems.sort_by(|a, b| {
        let place = |problem: &Problem| (problem.location.path.clone(), problem.location.line);
        place(a).cmp(&place(b))
    });
    Err(SiteError::Wrong {
        files: files.sources().collect(),
        problems,
    })
}
