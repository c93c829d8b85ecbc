//! The plan as a function: from whatever is there, doing what it says ends with what is wanted, and nothing left to do.

use std::collections::{BTreeMap, BTreeSet};

use cloud::aws::{Desired, Grants, Image, Mapping, Region, Snapshot, Step, plan};
use image_manifest::Digest;
use proptest::prelude::*;

const NOW: i64 = 2_000_000_000;
const HOME: &str = "eu-west-1";
const AWAY: &str = "eu-north-1";

type Observed = BTreeMap<String, Region>;

fn desired() -> Desired {
    let tag = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    Desired {
        target: "prod".to_owned(),
        subject: "host".to_owned(),
        manifest: "sha256:00".to_owned(),
        name: "host-1-amd64".to_owned(),
        description: String::new(),
        architecture: "x86_64",
        boot_mode: "uefi",
        tpm: false,
        imdsv2: true,
        ena: true,
        size: 1,
        regions: vec![HOME.to_owned(), AWAY.to_owned()],
        keys: BTreeMap::new(),
        tags: [("firstboot:target", "prod"), ("team", "boot")]
            .map(tag)
            .into(),
        grants: Grants {
            accounts: BTreeSet::from(["444455556666".to_owned()]),
            ..Grants::default()
        },
        parameters: vec!["/newest".to_owned()],
        deprecate_after: Some(86_400),
        protected: true,
        tree: Digest::of(b"tree"),
        launch: toml::from_str("type = 't3.small'").unwrap(),
    }
}

fn snapshot(id: &str, state: &str) -> Snapshot {
    Snapshot {
        id: id.to_owned(),
        state: state.to_owned(),
        begun: NOW,
        size: 1,
        ..Snapshot::default()
    }
}

fn image(id: &str, state: &str, snapshot: &str) -> Image {
    let mapping = Mapping {
        device: "/dev/xvda".to_owned(),
        snapshot: snapshot.to_owned(),
        size: 1,
        encrypted: false,
    };
    Image {
        id: id.to_owned(),
        state: state.to_owned(),
        created: NOW,
        mappings: vec![mapping],
        ..Image::default()
    }
}

/// A cloud that does what it is told, at once.
struct Model {
    observed: Observed,
    made: u32,
}

impl Model {
    fn id(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}-made-{}", self.made)
    }

    /// What is pending is done.
    fn settle(&mut self) {
        for region in self.observed.values_mut() {
            let pending = region
                .images
                .iter_mut()
                .filter(|image| image.state == "pending");
            pending.for_each(|image| "available".clone_into(&mut image.state));
        }
    }

    fn add_image(&mut self, region: &str, snapshot: &str, tags: BTreeMap<String, String>) {
        let id = self.id("ami");
        let region = self.observed.entry(region.to_owned()).or_default();
        region.images.push(Image {
            tags,
            ..image(&id, "pending", snapshot)
        });
        (region.grants, region.snapshot_grants) = (Grants::default(), BTreeSet::new());
    }

    fn add_snapshot(&mut self, region: &str, tags: BTreeMap<String, String>) -> String {
        let id = self.id("snap");
        let region = self.observed.entry(region.to_owned()).or_default();
        region.snapshots.push(Snapshot {
            tags,
            ..snapshot(&id, "completed")
        });
        id
    }

    fn apply(&mut self, desired: &Desired, step: Step) {
        let place = step.region().to_owned();
        let tags: BTreeMap<_, _> = desired.tags.iter().cloned().collect();
        match step {
            Step::Upload { .. } => drop(self.add_snapshot(&place, tags)),
            Step::Register { snapshot, .. } => self.add_image(&place, &snapshot.unwrap(), tags),
            Step::Copy { from, .. } => {
                let home = &self.observed[HOME];
                assert_eq!(from.as_ref(), home.available().map(|image| &image.id));
                let snapshot = self.add_snapshot(&place, tags.clone());
                self.add_image(&place, &snapshot, tags);
            }
            step => self.change(&place, step),
        }
    }

    fn change(&mut self, place: &str, step: Step) {
        let region = self.observed.get_mut(place).unwrap();
        let kept = region.image().map(|image| image.id.clone());
        let kept =
            |id: Option<String>| assert!(id.is_some() && id == kept, "only the image that is kept");
        let of = |region: &mut Region, id: &str| {
            region
                .images
                .iter()
                .position(|image| image.id == id)
                .unwrap()
        };
        match step {
            Step::Deregister { image, .. } => {
                let at = of(region, &image);
                let gone = region.images.remove(at).mappings[0].snapshot.clone();
                if !region
                    .images
                    .iter()
                    .any(|image| image.mappings[0].snapshot == gone)
                {
                    region.snapshots.retain(|snapshot| snapshot.id != gone);
                }
            }
            Step::Discard { snapshot, .. } => {
                let used = region
                    .images
                    .iter()
                    .any(|image| image.mappings[0].snapshot == snapshot);
                assert!(!used, "a snapshot in use is kept");
                region.snapshots.retain(|one| one.id != snapshot);
            }
            Step::Tag { object, tags, .. } => {
                let images = region
                    .images
                    .iter_mut()
                    .map(|image| (&image.id, &mut image.tags));
                let snapshots = region
                    .snapshots
                    .iter_mut()
                    .map(|one| (&one.id, &mut one.tags));
                let mut found = images.chain(snapshots).filter(|(id, _)| **id == object);
                found.next().unwrap().1.extend(tags);
            }
            Step::Launch { image, kind, .. } => {
                assert_eq!(place, HOME, "the others are copies");
                let at = of(region, image.as_ref().unwrap());
                let tag = ("firstboot:launched".to_owned(), kind);
                region.images[at].tags.extend([tag]);
                kept(image);
            }
            Step::Deprecate { image, at, .. } => {
                assert!(at.unwrap() > NOW, "never in the past");
                let at = of(region, image.as_ref().unwrap());
                region.images[at].deprecated = Some("later".to_owned());
                kept(image);
            }
            Step::Protect { image, .. } => {
                let at = of(region, image.as_ref().unwrap());
                region.images[at].protected = true;
                kept(image);
            }
            Step::ShareSnapshot { add, remove, .. } => {
                region.snapshot_grants.extend(add);
                region
                    .snapshot_grants
                    .retain(|account| !remove.contains(account));
            }
            Step::Share {
                image, add, remove, ..
            } => {
                region.grants.accounts.extend(add.accounts);
                region.grants.everybody |= add.everybody;
                region.grants = region.grants.without(&remove);
                kept(image);
            }
            Step::Point {
                parameter, image, ..
            } => {
                region.parameters.insert(parameter, image.clone().unwrap());
                kept(image);
            }
            Step::Upload { .. } | Step::Register { .. } | Step::Copy { .. } => unreachable!(),
        }
    }
}

fn states(all: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(all)
}

fn region() -> impl Strategy<Value = Region> {
    let snapshots = proptest::collection::vec(states(&["pending", "completed", "error"]), 0..4);
    let images = (
        states(&["pending", "available", "failed", "error"]),
        0..4_usize,
    );
    let images = proptest::collection::vec(images, 0..4);
    let parameter = proptest::option::of(states(&["ami-0", "ami-1", "ami-other"]));
    (snapshots, images, parameter, any::<bool>()).prop_map(
        |(snapshots, images, parameter, everybody)| {
            let mut region = Region::default();
            for (index, state) in snapshots.into_iter().enumerate() {
                region
                    .snapshots
                    .push(snapshot(&format!("snap-{index}"), state));
            }
            for (index, (state, of)) in images.into_iter().enumerate() {
                region
                    .images
                    .push(image(&format!("ami-{index}"), state, &format!("snap-{of}")));
            }
            if region.available().is_some() {
                region.grants.everybody = everybody;
                region.snapshot_grants.insert("777788889999".to_owned());
            }
            region
                .parameters
                .extend(parameter.map(|id| ("/newest".to_owned(), id.to_owned())));
            region
        },
    )
}

proptest! {
    #[test]
    fn doing_what_is_planned_ends_with_one_image_everywhere(
        home in region(),
        away in region(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 80),
    ) {
        let desired = desired();
        let observed = [(HOME.to_owned(), home), (AWAY.to_owned(), away)];
        let mut model = Model { observed: observed.into(), made: 0 };
        for chosen in order {
            model.settle();
            let steps = plan(&desired, &model.observed, NOW);
            let first = steps.iter().map(Step::stage).min();
            let ready: Vec<_> = steps.into_iter().filter(|step| step.is_ready() && Some(step.stage()) == first).collect();
            if ready.is_empty() {
                prop_assert!(first.is_none(), "steps that never get ready");
                break;
            }
            model.apply(&desired, ready[chosen.index(ready.len())].clone());
        }
        prop_assert_eq!(plan(&desired, &model.observed, NOW), Vec::<Step>::new());
        for region in model.observed.values() {
            prop_assert_eq!(region.images.len(), 1);
            let image = region.available().unwrap();
            prop_assert_eq!(&region.parameters["/newest"], &image.id);
            prop_assert_eq!(&region.grants, &desired.grants);
            let unused = region.snapshots.iter().filter(|one| one.id != image.mappings[0].snapshot);
            prop_assert_eq!(unused.count(), 0);
        }
    }
}

#[test]
fn what_there_is_decides_what_is_done_first() {
    let with = |images: &[Image], snapshots: &[Snapshot]| Region {
        images: images.to_vec(),
        snapshots: snapshots.to_vec(),
        ..Region::default()
    };
    let ready = snapshot("snap-1", "completed");
    let twice = Image {
        created: NOW + 1,
        ..image("ami-2", "available", "snap-2")
    };
    let cases = [
        ("nothing", with(&[], &[]), "upload-snapshot"),
        (
            "a pending snapshot",
            with(&[], &[snapshot("snap-1", "pending")]),
            "upload-snapshot",
        ),
        (
            "a broken snapshot",
            with(&[], &[snapshot("snap-1", "error")]),
            "delete-snapshot snap-1",
        ),
        (
            "a snapshot",
            with(&[], std::slice::from_ref(&ready)),
            "register-image",
        ),
        (
            "a failed image",
            with(
                &[image("ami-1", "failed", "")],
                std::slice::from_ref(&ready),
            ),
            "deregister-image ami-1",
        ),
        (
            "an image twice",
            with(
                &[image("ami-1", "available", "snap-1"), twice],
                std::slice::from_ref(&ready),
            ),
            "deregister-image ami-2",
        ),
        (
            "a snapshot too many",
            with(
                &[image("ami-1", "available", "snap-1")],
                &[ready.clone(), snapshot("snap-9", "pending")],
            ),
            "delete-snapshot snap-9",
        ),
        (
            "an image without tags",
            with(&[image("ami-1", "available", "snap-1")], &[]),
            "tag ami-1",
        ),
    ];
    for (name, region, expected) in cases {
        let observed = Observed::from([(HOME.to_owned(), region)]);
        let first = plan(&desired(), &observed, NOW).remove(0).told(&desired());
        let found = format!("{} {}", first.action, first.object);
        assert!(found.starts_with(expected), "{name}: {found}");
    }
}
