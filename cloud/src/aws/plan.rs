//! What is to be done: a function of what is wanted and what is there.
//!
//! It refuses to call anything, and to know what was done before: only what is there counts.

mod steps;

pub use steps::Step;
pub(super) use steps::minute;

use std::collections::{BTreeMap, BTreeSet};

use super::desired::Desired;
use super::ec2::{Grants, Image, Snapshot};
use crate::subject::TAG_LAUNCHED;

/// What one region has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Images of this build and target.
    pub images: Vec<Image>,
    /// Snapshots of this build and target.
    pub snapshots: Vec<Snapshot>,
    /// An image that has our name and is not ours.
    pub foreign: Option<String>,
    /// Who may use the image that is kept.
    pub grants: Grants,
    /// Accounts that may use its snapshot.
    pub snapshot_grants: BTreeSet<String>,
    /// What the parameters name.
    pub parameters: BTreeMap<String, String>,
    /// Images and snapshots that carry our tags and are left alone, and why: others copy tags, too.
    pub left: BTreeMap<String, String>,
}

impl Region {
    /// The image that is kept: the oldest that did not fail, so that everybody who looks keeps the same.
    #[must_use]
    pub fn image(&self) -> Option<&Image> {
        let good = self.images.iter().filter(|image| !image.has_failed());
        let good = good.filter(|image| !self.left.contains_key(&image.id));
        good.min_by_key(|image| (image.created, &image.id))
    }

    /// The image that is kept, when it can be used.
    #[must_use]
    pub fn available(&self) -> Option<&Image> {
        self.image().filter(|image| image.state == "available")
    }

    /// The snapshot that an image can be made of.
    #[must_use]
    pub fn completed(&self) -> Option<&Snapshot> {
        let completed = self
            .snapshots
            .iter()
            .filter(|snapshot| snapshot.state == "completed");
        let completed = completed.filter(|snapshot| !self.left.contains_key(&snapshot.id));
        completed.min_by_key(|snapshot| (snapshot.begun, &snapshot.id))
    }

    /// Snapshots that the images use.
    pub(super) fn used(&self) -> BTreeSet<&str> {
        let mappings = self.images.iter().flat_map(|image| &image.mappings);
        mappings.map(|mapping| mapping.snapshot.as_str()).collect()
    }
}

impl Image {
    /// Whether nobody can ever use it.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(
            self.state.as_str(),
            "failed" | "error" | "invalid" | "deregistered"
        )
    }

    /// Whether somebody took it back without removing it.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.state == "disabled"
    }
}

/// What is still to be done, in order.
#[must_use]
pub fn plan(desired: &Desired, observed: &BTreeMap<String, Region>, now: i64) -> Vec<Step> {
    let nothing = Region::default();
    let home = observed.get(desired.home()).unwrap_or(&nothing);
    let mut steps = Vec::new();
    for name in &desired.regions {
        let region = observed.get(name).unwrap_or(&nothing);
        steps.extend(clean(name, region));
        steps.extend(make(desired, name, region, home));
        steps.extend(tag(desired, name, region));
    }
    steps.extend(launch(desired, home));
    for name in &desired.regions {
        let region = observed.get(name).unwrap_or(&nothing);
        steps.extend(release(desired, name, region, now));
    }
    for name in &desired.regions {
        let region = observed.get(name).unwrap_or(&nothing);
        steps.extend(point(desired, name, region));
    }
    steps
}

/// What failed, and what is there twice and kept by nobody.
fn clean(name: &str, region: &Region) -> Vec<Step> {
    let kept = region.image();
    if kept.is_some_and(Image::is_disabled) {
        return Vec::new();
    }
    let is_left = |id: &String| region.left.contains_key(id);
    let mut steps = Vec::new();
    for image in region.images.iter().filter(|image| !is_left(&image.id)) {
        if kept.is_none_or(|kept| kept.id != image.id) {
            let why = if image.has_failed() {
                "it failed"
            } else {
                "it is there twice"
            };
            steps.push(Step::Deregister {
                region: name.to_owned(),
                image: image.id.clone(),
                why,
            });
        }
    }
    let used = region.used();
    let completed = region.completed();
    for snapshot in region
        .snapshots
        .iter()
        .filter(|snapshot| !used.contains(snapshot.id.as_str()) && !is_left(&snapshot.id))
    {
        let why = match (&kept, completed) {
            _ if snapshot.state == "error" => "it failed",
            // An image that is being copied may not name its snapshot yet.
            (Some(image), _) if image.state == "available" => "nothing uses it",
            (None, Some(best)) if best.id != snapshot.id => "it is there twice",
            _ => continue,
        };
        steps.push(Step::Discard {
            region: name.to_owned(),
            snapshot: snapshot.id.clone(),
            why,
        });
    }
    steps
}

/// The image itself.
fn make(desired: &Desired, name: &str, region: &Region, home: &Region) -> Vec<Step> {
    if region.image().is_some() {
        return Vec::new();
    }
    let place = || name.to_owned();
    if name != desired.home() {
        let from = home.available().map(|image| image.id.clone());
        return vec![Step::Copy {
            region: place(),
            from,
        }];
    }
    let snapshot = region.completed().map(|snapshot| snapshot.id.clone());
    let upload = snapshot.is_none().then(|| Step::Upload { region: place() });
    let register = Step::Register {
        region: place(),
        snapshot,
    };
    upload.into_iter().chain([register]).collect()
}

/// Tags that are missing or say something else.
fn tag(desired: &Desired, name: &str, region: &Region) -> Vec<Step> {
    let Some(image) = region.image() else {
        return Vec::new();
    };
    let is_its = |id: &str| image.mappings.iter().any(|mapping| mapping.snapshot == id);
    let snapshots = region
        .snapshots
        .iter()
        .filter(|snapshot| is_its(&snapshot.id));
    let objects = snapshots.map(|snapshot| (&snapshot.id, &snapshot.tags));
    let objects = [(&image.id, &image.tags)].into_iter().chain(objects);
    let missing = |has: &BTreeMap<String, String>| -> Vec<_> {
        let wanted = desired.tags.iter();
        wanted
            .filter(|(key, value)| has.get(key) != Some(value))
            .cloned()
            .collect()
    };
    let steps = objects.map(|(object, has)| (object, missing(has)));
    let steps = steps.filter(|(_, tags)| !tags.is_empty());
    steps
        .map(|(object, tags)| Step::Tag {
            region: name.to_owned(),
            object: object.clone(),
            tags,
        })
        .collect()
}

/// One instance, where bytes went first: the copies are of the same snapshot.
pub(super) fn launch(desired: &Desired, home: &Region) -> Option<Step> {
    let kind = desired.launch.as_ref()?.kind.clone();
    let image = home.image();
    let launched = image.and_then(|image| image.tags.get(TAG_LAUNCHED));
    (launched != Some(&kind)).then(|| Step::Launch {
        region: desired.home().to_owned(),
        image: image.map(|image| image.id.clone()),
        kind,
    })
}

/// Who may use it, and how long.
fn release(desired: &Desired, name: &str, region: &Region, now: i64) -> Vec<Step> {
    let image = region.image();
    let id = image.map(|image| image.id.clone());
    let place = || name.to_owned();
    let mut steps = Vec::new();
    // Before it is public: a public image gets a date of Amazon's choice.
    if let Some(after) = desired.deprecate_after
        && image.is_none_or(|image| image.deprecated.is_none())
    {
        // Whole minutes, as the cloud keeps it. A date that is over cannot be set.
        let at = image.map(|image| (image.created + after) / 60 * 60);
        if at.is_none_or(|at| at > now) {
            steps.push(Step::Deprecate {
                region: place(),
                image: id.clone(),
                at,
            });
        }
    }
    if desired.protected && image.is_none_or(|image| !image.protected) {
        steps.push(Step::Protect {
            region: place(),
            image: id.clone(),
        });
    }
    let add = desired
        .grants
        .accounts
        .difference(&region.snapshot_grants)
        .cloned()
        .collect::<BTreeSet<_>>();
    let remove = region
        .snapshot_grants
        .difference(&desired.grants.accounts)
        .cloned()
        .collect::<BTreeSet<_>>();
    if !add.is_empty() || !remove.is_empty() {
        let snapshot = image.and_then(|image| image.mappings.first());
        let snapshot = snapshot.map(|mapping| mapping.snapshot.clone());
        steps.push(Step::ShareSnapshot {
            region: place(),
            snapshot,
            add,
            remove,
        });
    }
    let (add, remove) = (
        desired.grants.without(&region.grants),
        region.grants.without(&desired.grants),
    );
    if !add.is_empty() || !remove.is_empty() {
        steps.push(Step::Share {
            region: place(),
            image: id,
            add,
            remove,
        });
    }
    steps
}

/// What names the newest.
fn point(desired: &Desired, name: &str, region: &Region) -> Vec<Step> {
    let image = region.image().map(|image| image.id.clone());
    let wrong = desired.parameters.iter().filter(|parameter| {
        let names = region.parameters.get(*parameter);
        names.is_none() || names != image.as_ref()
    });
    let step = |parameter: &String| Step::Point {
        region: name.to_owned(),
        parameter: parameter.clone(),
        image: image.clone(),
        from: region.parameters.get(parameter).cloned(),
    };
    wrong.map(step).collect()
}
