use std::collections::BTreeMap;

use image_manifest::Digest;
use proptest::prelude::*;

use super::super::blob::{SEALED, Seen};
use super::super::target::Target;
use super::*;

const IMAGE: &str = "image-name = 'host'";
const VERSION: &str = "gallery = { name = 'g', publisher = 'p', regions = [{ name = 'westeurope' }, { name = 'eastus' }], \
    end-of-life-after = 9, protect = true, share = { tenants = ['AAAAAAAA-2222-3333-4444-555555555555'] } }";

fn desired(lines: &str) -> Desired {
    let text = format!(
        "name = 'azure'\nsubscription = 's'\nresource-group = 'r'\nlocation = 'westeurope'\n\
         storage-account = 'account'\ncontainer = 'disks'\n{lines}"
    );
    let target: Target = toml::from_str(&text).unwrap();
    let kind = match &target.gallery {
        None => Kind::Image {
            name: "host".to_owned(),
        },
        Some(gallery) => Kind::Version {
            gallery: Box::new(gallery.clone()),
            definition: "host".to_owned(),
            offer: "host".to_owned(),
            sku: "amd64".to_owned(),
            architecture: "x64",
            version: "2026.102.7".to_owned(),
        },
    };
    Desired {
        target,
        kind,
        path: "/galleries/g/images/host/versions/2026.102.7".to_owned(),
        blob: "azure-1.vhd".to_owned(),
        vhd: Digest::of(b"vhd"),
        size: 1 << 20,
        tags: BTreeMap::from([("firstboot:manifest".to_owned(), "m".to_owned())]),
        image: "host".to_owned(),
        manifest: "m".to_owned(),
    }
}

/// What there is when everything is done.
fn done(desired: &Desired) -> Observed {
    let version = matches!(desired.kind, Kind::Version { .. });
    let object = Object {
        tags: desired.tags.clone(),
        regions: regions(desired, None),
        end_of_life: Some("2026-01-11T00:00:00Z".to_owned()),
        protected: true,
        ..Object::default()
    };
    let group = "aaaaaaaa-2222-3333-4444-555555555555".to_owned();
    Observed {
        object: Some(object),
        definition: version.then(Object::default),
        groups: [(Group::Tenant, group)].into(),
        ..Observed::default()
    }
}

fn blob(desired: &Desired, sequence: u64) -> Seen {
    let digest = desired.vhd.hex();
    Seen {
        pages: true,
        size: desired.size,
        sequence,
        etag: "1".to_owned(),
        created: None,
        notes: BTreeMap::from([("firstboot_verified".to_owned(), digest)]),
    }
}

fn words(desired: &Desired, observed: &Observed) -> Vec<&'static str> {
    let plan = plan(desired, observed);
    assert!(plan.is_sorted_by_key(|(stage, _)| *stage), "{plan:?}");
    plan.iter()
        .map(|(stage, act)| act.step(desired, *stage).action)
        .collect()
}

type Change = fn(&Desired, &mut Observed);
type Changing = Box<dyn Fn(&Desired, &mut Observed)>;

#[test]
#[expect(clippy::too_many_lines, reason = "it is one table")]
fn only_the_difference_is_done() {
    let gone: Change = |_, observed| *observed = Observed::default();
    let state: fn(State) -> Changing =
        |state| Box::new(move |_, observed| observed.object.as_mut().unwrap().state = state);
    let with = |change: Change| -> Changing { Box::new(change) };
    let create = ["upload-page-blob", "create-image"];
    let cases: Vec<(&str, &str, Changing, Vec<&str>)> = vec![
        ("nothing to do", IMAGE, with(|_, _| {}), vec![]),
        (
            "an image",
            IMAGE,
            with(gone),
            [&create[..], &["remove-page-blob"]].concat(),
        ),
        (
            "a version",
            VERSION,
            with(gone),
            vec![
                "create-image-definition",
                "upload-page-blob",
                "create-image-version",
                "remove-page-blob",
                "share-gallery",
                "include-in-latest",
            ],
        ),
        (
            "an upload that is not verified",
            IMAGE,
            with(|desired, observed| {
                *observed = Observed {
                    blob: Some(blob(desired, 0)),
                    ..Observed::default()
                };
            }),
            [&create[..], &["remove-page-blob"]].concat(),
        ),
        (
            "a verified disk",
            IMAGE,
            with(|desired, observed| {
                *observed = Observed {
                    blob: Some(blob(desired, SEALED)),
                    ..Observed::default()
                };
            }),
            vec!["create-image", "remove-page-blob"],
        ),
        (
            "it is being made",
            IMAGE,
            state(State::Working),
            vec!["wait"],
        ),
        (
            "it failed",
            IMAGE,
            state(State::Failed),
            vec![
                "remove-failed",
                "upload-page-blob",
                "create-image",
                "remove-page-blob",
            ],
        ),
        (
            "it is being removed",
            IMAGE,
            state(State::Leaving),
            vec![
                "wait",
                "upload-page-blob",
                "create-image",
                "remove-page-blob",
            ],
        ),
        (
            "a disk that is left",
            IMAGE,
            with(|desired, observed| observed.blob = Some(blob(desired, SEALED))),
            vec!["remove-page-blob"],
        ),
        (
            "a tag is lost",
            IMAGE,
            with(|_, observed| observed.object.as_mut().unwrap().tags.clear()),
            vec!["update-image"],
        ),
        (
            "a region is new",
            VERSION,
            with(|_, observed| drop(observed.object.as_mut().unwrap().regions.remove("eastus"))),
            vec!["update-image"],
        ),
        (
            "more regions than are wanted",
            VERSION,
            with(|_, observed| {
                let regions = &mut observed.object.as_mut().unwrap().regions;
                regions.insert("japaneast".to_owned(), (1, "Standard_LRS".to_owned()));
            }),
            vec![],
        ),
        (
            "copies are coming",
            VERSION,
            with(|_, observed| observed.object.as_mut().unwrap().copies = Copies::Coming),
            vec!["wait"],
        ),
        (
            "another one is the latest",
            VERSION,
            with(|_, observed| {
                observed.object.as_mut().unwrap().excluded = true;
                observed.latest.push(Object::default());
            }),
            vec!["include-in-latest", "exclude-from-latest"],
        ),
    ];
    for (name, lines, change, expected) in cases {
        let desired = desired(lines);
        let mut observed = done(&desired);
        change(&desired, &mut observed);
        assert_eq!(words(&desired, &observed), expected, "{name}");
    }
}

#[test]
fn a_disk_that_is_kept_is_not_removed() {
    let desired = desired(&format!("{IMAGE}\nkeep-blob = true"));
    let mut observed = done(&desired);
    observed.blob = Some(blob(&desired, SEALED));
    assert!(words(&desired, &observed).is_empty());
    assert_eq!(
        words(&desired, &Observed::default()),
        ["upload-page-blob", "create-image"]
    );
}

fn any_observed(desired: &Desired) -> impl Strategy<Value = Observed> + use<> {
    let whole = done(desired);
    let seen = (blob(desired, 0), blob(desired, SEALED));
    let states = [State::Ready, State::Working, State::Leaving, State::Failed];
    (
        0..3usize,
        0..5usize,
        any::<(bool, bool, bool, bool, bool)>(),
        0..3usize,
    )
        .prop_map(
            move |(disk, state, (defined, tagged, placed, excluded, shared), others)| {
                let mut observed = whole.clone();
                observed.blob = [None, Some(seen.0.clone()), Some(seen.1.clone())][disk].clone();
                if !defined {
                    observed.definition = None;
                }
                if !shared {
                    observed.groups.clear();
                }
                observed.latest = vec![Object::default(); others];
                let Some(state) = states.get(state) else {
                    observed.object = None;
                    return observed;
                };
                if let Some(object) = &mut observed.object {
                    object.state = *state;
                    object.excluded = excluded;
                    if !tagged {
                        object.tags.clear();
                    }
                    if !placed {
                        object.regions.clear();
                    }
                }
                observed
            },
        )
}

/// What there is after an act, as the cloud's documentation has it.
fn after(desired: &Desired, observed: &mut Observed, act: &Act) {
    let made = done(desired);
    match act {
        Act::Await => {
            let leaving = |object: &Object| object.state == State::Leaving;
            if observed.object.as_ref().is_some_and(leaving) {
                observed.object = None;
            } else if let Some(object) = &mut observed.object {
                object.state = State::Ready;
                object.copies = Copies::Whole;
            }
        }
        Act::RemoveFailed => observed.object = None,
        Act::Upload => observed.blob = Some(blob(desired, SEALED)),
        Act::CreateDefinition => observed.definition = Some(Object::default()),
        Act::Create => {
            assert!(
                observed
                    .blob
                    .as_ref()
                    .is_some_and(|seen| seen.sequence == SEALED)
            );
            observed.object = made.object.map(|object| Object {
                excluded: true,
                ..object
            });
        }
        Act::Update(_) => {
            let excluded = observed
                .object
                .as_ref()
                .is_some_and(|object| object.excluded);
            observed.object = made.object.map(|object| Object { excluded, ..object });
        }
        Act::RemoveBlob => observed.blob = None,
        Act::Share(group, id) => drop(observed.groups.insert((*group, id.clone()))),
        Act::ShareWithAll => observed.community = true,
        Act::Include => observed.object.as_mut().unwrap().excluded = false,
        Act::Exclude(_) => drop(observed.latest.pop()),
    }
}

proptest! {
    #[test]
    fn whatever_there_is_two_rounds_finish_it(
        (desired, observed) in prop::sample::select(vec![IMAGE, VERSION])
            .prop_map(desired)
            .prop_flat_map(|desired| (Just(desired.clone()), any_observed(&desired)))
    ) {
        let mut observed = observed;
        for _ in 0..2 {
            for (_, act) in plan(&desired, &observed) {
                after(&desired, &mut observed, &act);
            }
        }
        prop_assert_eq!(plan(&desired, &observed), vec![]);
        prop_assert!(observed.blob.is_none());
    }
}
