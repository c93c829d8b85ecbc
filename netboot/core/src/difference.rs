//! What differs between two sites, in words, and what follows from it.
//!
//! It refuses to look at text: comments, order and the division into files mean nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use image_manifest::Digest;
use serde::{Deserialize, Serialize};

use crate::site::{Host, Site};

mod facts;
#[cfg(test)]
mod tests;

pub use facts::Subject;

/// A site with the digests of the files beside its `*.toml`: authorities and encrypted secrets.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// The site.
    pub site: &'a Site,
    /// Digests of its other files, by path.
    pub files: &'a BTreeMap<Arc<str>, Digest>,
}

/// Everything that one site changes of another; empty when they mean the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What is added, removed or changed, in the order of its kinds and names.
    pub changes: Vec<Change>,
    /// Hosts that boot another image at their next deployment.
    pub images: Vec<ImageChange>,
    /// Hosts that are no longer served; their leases end and their boots are forgotten.
    pub forgotten: Vec<Arc<str>>,
    /// What is served only after the appliance was restarted, in words.
    pub restart: Vec<String>,
}

/// One thing that is added, removed or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it is about.
    pub subject: Subject,
    /// Whether the subject is new, gone or changed.
    pub kind: Kind,
    /// Its facts that differ, in the order of their names.
    pub facts: Vec<FactChange>,
}

/// Whether a subject is new, gone or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Only the new site has it.
    Added,
    /// Only the old site has it.
    Removed,
    /// Both have it, not alike.
    Changed,
}

/// One fact before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactChange {
    /// Its key, as the site's files have it.
    pub key: String,
    /// The value before, if there was one.
    pub old: Option<String>,
    /// The value after, if there is one.
    pub new: Option<String>,
}

/// A host that boots another image at its next deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageChange {
    /// The host.
    pub host: Arc<str>,
    /// The image before.
    pub old: String,
    /// The image after.
    pub new: String,
}

impl Difference {
    /// Tells whether the two sites mean the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Finds everything that a new site changes of an old one.
#[must_use]
pub fn difference(old: Version<'_>, new: Version<'_>) -> Difference {
    let (before, after) = (facts::of(old), facts::of(new));
    let subjects: BTreeSet<&Subject> = before.keys().chain(after.keys()).collect();
    let changes: Vec<Change> = subjects
        .into_iter()
        .filter_map(|subject| change(subject, before.get(subject), after.get(subject)))
        .collect();
    Difference {
        images: images(old.site, new.site),
        forgotten: old
            .site
            .hosts()
            .filter(|host| new.site.host(&host.name).is_none())
            .map(|host| Arc::clone(&host.name))
            .collect(),
        restart: restart(&changes),
        changes,
    }
}

fn change(
    subject: &Subject,
    old: Option<&facts::Facts>,
    new: Option<&facts::Facts>,
) -> Option<Change> {
    let kind = match (old, new) {
        (None, _) => Kind::Added,
        (_, None) => Kind::Removed,
        _ => Kind::Changed,
    };
    let value = |facts: Option<&facts::Facts>, key| facts.and_then(|it| it.get(key)).cloned();
    let keys: BTreeSet<&String> = [old, new]
        .into_iter()
        .flatten()
        .flat_map(BTreeMap::keys)
        .collect();
    let facts: Vec<FactChange> = keys
        .into_iter()
        .map(|key| FactChange {
            key: key.clone(),
            old: value(old, key),
            new: value(new, key),
        })
        .filter(|fact| fact.old != fact.new)
        .collect();
    let changed = kind != Kind::Changed || !facts.is_empty();
    changed.then(|| Change {
        subject: subject.clone(),
        kind,
        facts,
    })
}

/// Finds the hosts of both sites whose image differs.
fn images(old: &Site, new: &Site) -> Vec<ImageChange> {
    let image = |site: &Site, host: &Host| site.image_of(host).map(ToString::to_string);
    let changed = |host: &Arc<Host>| {
        let before = old.host(&host.name)?;
        let (old, new) = (image(old, before)?, image(new, host)?);
        let host = Arc::clone(&host.name);
        (old != new).then_some(ImageChange { host, old, new })
    };
    new.hosts().filter_map(changed).collect()
}

/// Says what is bound to sockets, which are opened once.
fn restart(changes: &[Change]) -> Vec<String> {
    let mut reasons = Vec::new();
    for change in changes {
        let sockets: &[&str] = match change.subject {
            Subject::Appliance => &["http-port", "https-port", "api", "metrics"],
            Subject::Network(_) => &["appliance", "relayed", "mode"],
            _ => continue,
        };
        for fact in &change.facts {
            if sockets.contains(&fact.key.as_str()) {
                reasons.push(format!("{} of {}", fact.key, change.subject));
            }
        }
    }
    reasons
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        if !self.images.is_empty() {
            writeln!(f, "at their next deployment, these boot another image:")?;
        }
        for ImageChange { host, old, new } in &self.images {
            writeln!(f, "  {host}: {old} -> {new}")?;
        }
        if !self.forgotten.is_empty() {
            let hosts = self.forgotten.join(", ");
            writeln!(f, "no longer served, and forgotten: {hosts}")?;
        }
        if !self.restart.is_empty() {
            let what = self.restart.join(", ");
            writeln!(f, "served only after a restart: {what}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            Kind::Added => '+',
            Kind::Removed => '-',
            Kind::Changed => '~',
        };
        write!(f, "{sign} {}", self.subject)?;
        for FactChange { key, old, new } in &self.facts {
            match (self.kind, old, new) {
                // What is gone needs no list of what it was.
                (Kind::Removed, ..) | (_, None, None) => {}
                (_, None, Some(new)) => write!(f, "\n    {key}: {new}")?,
                (_, Some(old), None) => write!(f, "\n    {key}: {old} -> nothing")?,
                (_, Some(old), Some(new)) => write!(f, "\n    {key}: {old} -> {new}")?,
            }
        }
        Ok(())
    }
}
