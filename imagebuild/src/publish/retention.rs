//! Which published images may go: a function over what the clouds listed, without a clock.
//!
//! It refuses what anybody keeps, what is young, and the newest ones of each place.

use std::collections::{BTreeMap, BTreeSet};

use cloud::{Kind, Published};
use serde::Serialize;

/// What is kept in any case.
#[derive(Clone, Debug)]
pub struct Rules {
    /// So many of the newest of each target, place and architecture.
    pub keep: usize,
    /// Everything that was made after this time, in seconds since 1970.
    pub before: i64,
    /// Manifests that are kept, such as those of the images of the store.
    pub manifests: BTreeSet<String>,
}

/// One image, and why it stays if it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Judged {
    /// The image.
    #[serde(flatten)]
    pub published: Published,
    /// Why it stays; it may go when there is nothing here.
    pub stays: Vec<String>,
}

/// Judges every image; the newest of each place come first.
#[must_use]
pub fn judge(mut images: Vec<Published>, rules: &Rules) -> Vec<Judged> {
    images.sort_by(|a, b| {
        let newest_first = b.created.cmp(&a.created);
        line(a)
            .cmp(&line(b))
            .then(newest_first)
            .then(a.id.cmp(&b.id))
    });
    let mut seen: BTreeMap<Line, usize> = BTreeMap::new();
    let judged = images.into_iter().map(|published| {
        let rank = seen.entry(line(&published)).or_default();
        *rank += 1;
        let mut stays = published.kept_by.clone();
        if *rank <= rules.keep {
            stays.push(format!("one of the newest {}", rules.keep));
        }
        if published.created <= 0 {
            stays.push("its age is not known".to_owned());
        } else if published.created >= rules.before {
            stays.push("young".to_owned());
        }
        if rules.manifests.contains(&published.manifest) {
            stays.push("an image of the store".to_owned());
        }
        Judged { published, stays }
    });
    judged.collect()
}

/// Images that follow each other: of a target, a place and an architecture.
type Line = (String, String, String);

fn line(one: &Published) -> Line {
    (
        one.target.clone(),
        one.place.clone(),
        one.architecture.clone(),
    )
}

/// Which images should not be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those of the build itself.
    Itself,
    /// Those that it came after, wherever it is there to be used instead.
    Older,
}

/// Clouds keep whole minutes, and take none that is over: so much later is as good.
const SOON: i64 = 120;

/// Chooses what is to be deprecated from a time on: what is not deprecated by then.
#[must_use]
pub fn outdated(images: Vec<Published>, manifest: &str, which: Which, from: i64) -> Vec<Published> {
    let mut own: BTreeMap<Line, i64> = BTreeMap::new();
    let is_own = |one: &&Published| one.kind == Kind::Image && one.manifest == manifest;
    for one in images.iter().filter(is_own) {
        let created = own.entry(line(one)).or_insert(one.created);
        *created = one.created.min(*created);
    }
    let chosen = images.into_iter().filter(|one| {
        let wanted = match which {
            Which::Itself => one.manifest == manifest,
            Which::Older => {
                let newer = own.get(&line(one));
                one.manifest != manifest && newer.is_some_and(|own| one.created < *own)
            }
        };
        let done = one.deprecated_from;
        one.kind == Kind::Image && wanted && done.is_none_or(|done| done > from + SOON)
    });
    chosen.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(place: &str, id: &str, created: i64, kept_by: &[&str]) -> Published {
        Published {
            target: "prod".to_owned(),
            place: place.to_owned(),
            id: id.to_owned(),
            name: "host".to_owned(),
            kind: Kind::Image,
            architecture: "amd64".to_owned(),
            manifest: format!("sha256:{id}"),
            created,
            bytes: 1,
            kept_by: kept_by.iter().map(|&by| by.to_owned()).collect(),
            deprecated: None,
            deprecated_from: None,
        }
    }

    #[test]
    fn what_is_new_young_used_or_in_the_store_stays() {
        let images = vec![
            image("a", "oldest", 1, &[]),
            image("a", "used", 2, &["an instance"]),
            image("a", "stored", 3, &[]),
            image("a", "newest", 4, &[]),
            image("b", "only", 1, &[]),
            image("a", "young", 100, &[]),
            image("a", "ageless", 0, &[]),
        ];
        let rules = Rules {
            keep: 2,
            before: 50,
            manifests: ["sha256:stored".to_owned()].into(),
        };
        let judged = judge(images, &rules);
        let stays = |id: &str| {
            let mut judged = judged.iter();
            judged
                .find(|one| one.published.id == id)
                .unwrap()
                .stays
                .join(", ")
        };
        let cases = [
            ("oldest", ""),
            ("used", "an instance"),
            ("stored", "an image of the store"),
            ("newest", "one of the newest 2"),
            ("young", "one of the newest 2, young"),
            ("only", "one of the newest 2"),
            ("ageless", "its age is not known"),
        ];
        for (id, expected) in cases {
            assert_eq!(stays(id), expected, "{id}");
        }
    }

    fn arm(mut image: Published) -> Published {
        image.architecture = "arm64".to_owned();
        image
    }

    #[test]
    fn each_architecture_has_its_own_newest() {
        let rules = Rules {
            keep: 1,
            before: 50,
            manifests: BTreeSet::new(),
        };
        let images = vec![
            image("a", "new", 4, &[]),
            arm(image("a", "other", 3, &[])),
            image("a", "old", 2, &[]),
        ];
        let judged = judge(images, &rules).into_iter();
        let gone = judged.filter(|one| one.stays.is_empty());
        let gone: Vec<_> = gone.map(|one| one.published.id).collect();
        assert_eq!(gone, ["old"]);
    }

    #[test]
    fn only_what_something_newer_replaces_is_outdated() {
        let dated = |id: &str, from: i64| {
            let mut image = image("a", id, 1, &[]);
            image.deprecated_from = Some(from);
            image
        };
        let mut disk = image("a", "disk", 1, &[]);
        disk.kind = Kind::Disk;
        let images = vec![
            image("a", "this", 3, &[]),
            image("a", "older", 2, &[]),
            image("a", "newer", 4, &[]),
            image("b", "elsewhere", 1, &[]),
            arm(image("a", "of-arm", 1, &[])),
            dated("soon", 90),
            dated("in-time", 1000),
            disk,
        ];
        let chosen = |which| {
            let chosen = outdated(images.clone(), "sha256:this", which, 100);
            let ids: Vec<_> = chosen.into_iter().map(|one| one.id).collect();
            ids
        };
        assert_eq!(chosen(Which::Older), ["older", "in-time"]);
        assert_eq!(chosen(Which::Itself), ["this"]);
    }
}
