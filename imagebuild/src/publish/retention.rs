//! Which published images may go: a function over what the clouds listed, without a clock.
//!
//! It refuses what anybody keeps, what is young, and the newest ones of each place.

use std::collections::{BTreeMap, BTreeSet};

use cloud::Published;
use serde::Serialize;

/// What is kept in any case.
#[derive(Clone, Debug)]
pub struct Rules {
    /// So many of the newest of each target and place.
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
        let key = |one: &Published| (one.target.clone(), one.place.clone());
        let newest_first = b.created.cmp(&a.created);
        key(a).cmp(&key(b)).then(newest_first).then(a.id.cmp(&b.id))
    });
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    let judged = images.into_iter().map(|published| {
        let place = (published.target.clone(), published.place.clone());
        let rank = seen.entry(place).or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn image(place: &str, id: &str, created: i64, kept_by: &[&str]) -> Published {
        Published {
            target: "prod".to_owned(),
            place: place.to_owned(),
            id: id.to_owned(),
            name: "host".to_owned(),
            manifest: format!("sha256:{id}"),
            created,
            bytes: 1,
            kept_by: kept_by.iter().map(|&by| by.to_owned()).collect(),
            deprecated: None,
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
}
