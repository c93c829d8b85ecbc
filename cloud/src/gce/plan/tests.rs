//! Cases and laws of the plan.

use proptest::prelude::*;

use super::*;

fn desired() -> Desired {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Desired {
        target: "gce".to_owned(),
        project: "acme".to_owned(),
        bucket: "images".to_owned(),
        object: "acme/host-1/00.tar.gz".to_owned(),
        keep_object: false,
        digest: "sha256:00".to_owned(),
        size: 1,
        tags: Vec::new(),
        name: "host-1".to_owned(),
        description: String::new(),
        architecture: "X86_64".to_owned(),
        features: BTreeSet::new(),
        labels: [label(LABEL_MANIFEST, "ours"), label(LABEL_IMAGE, "host")].into(),
        disk_gib: 1,
        location: None,
        kms_key: None,
        members: ["group:a".to_owned()].into(),
        family: Some("host".to_owned()),
        deprecate_after: Some(90),
    }
}

fn object() -> Object {
    Object {
        generation: "1".to_owned(),
        size: 1,
        crc32c: 0,
        digest: None,
    }
}

fn image(name: &str, created: i64) -> Image {
    Image {
        name: name.to_owned(),
        status: "READY".to_owned(),
        labels: desired().labels,
        created,
        ..Image::default()
    }
}

fn deprecated(state: &str, replacement: Option<&str>, from: Option<i64>) -> Deprecated {
    Deprecated {
        state: state.to_owned(),
        replacement: replacement.map(str::to_owned),
        from,
    }
}

/// What the cloud makes of a change.
fn apply(desired: &Desired, observed: &mut Observed, action: &Action) {
    let created = observed.family.iter().map(|image| image.created).max();
    match action {
        Action::RemoveFailed => observed.image = None,
        Action::Upload => observed.object = Some(object()),
        Action::Insert => {
            observed.image = Some(image(&desired.name, created.unwrap_or_default() + 1));
            observed.members.clear();
        }
        Action::RemoveObject => observed.object = None,
        Action::Share(members) => observed.members.extend(members.clone()),
        Action::Supersede(name) => {
            let other = observed.family.iter_mut().find(|image| image.name == *name);
            other.unwrap().deprecated = Some(deprecated("DEPRECATED", Some("ours"), None));
        }
        Action::SetLabels | Action::Activate(_) | Action::SetFamily(_) => {
            let image = observed.image.as_mut().unwrap();
            match action {
                Action::Activate(from) => {
                    image.deprecated = Some(deprecated("ACTIVE", None, *from));
                }
                Action::SetFamily(family) => image.family = Some(family.clone()),
                _ => image.labels.extend(desired.labels.clone()),
            }
        }
    }
}

#[test]
fn what_is_done_depends_on_what_is_there() {
    let ours = || image("host-1", 5000);
    let done = || Image {
        family: Some("host".to_owned()),
        deprecated: Some(deprecated("ACTIVE", None, Some(5000 + 90 * DAY))),
        ..ours()
    };
    let members: BTreeSet<String> = desired().members;
    let of = |image: Image| Observed {
        image: Some(image),
        members: members.clone(),
        ..Observed::default()
    };
    let date = Some(5000 + 90 * DAY);
    let cases = [
        ("nothing is missing", of(done()), vec![]),
        (
            "a run was killed before it removed the object",
            Observed {
                object: Some(object()),
                ..of(done())
            },
            vec![Action::RemoveObject],
        ),
        (
            "a name of somebody else",
            of(Image {
                labels: BTreeMap::new(),
                ..done()
            }),
            vec![],
        ),
        (
            "it is private",
            Observed {
                members: BTreeSet::new(),
                ..of(ours())
            },
            vec![
                Action::Share(members.clone()),
                Action::Activate(date),
                Action::SetFamily("host".to_owned()),
            ],
        ),
        (
            "it was withdrawn",
            of(Image {
                deprecated: Some(deprecated("OBSOLETE", None, None)),
                ..ours()
            }),
            vec![],
        ),
        (
            "another replaced it",
            of(Image {
                deprecated: Some(deprecated("DEPRECATED", Some("host-2"), None)),
                ..done()
            }),
            vec![Action::Activate(date)],
        ),
        (
            "a newer one of ours is in the family",
            Observed {
                family: vec![image("host-2", 6000), image("host-0", 1000)],
                ..of(done())
            },
            vec![Action::Supersede("host-2".to_owned())],
        ),
        (
            "a newer one of somebody else is in the family",
            Observed {
                family: vec![Image {
                    labels: BTreeMap::new(),
                    ..image("other", 6000)
                }],
                ..of(done())
            },
            vec![],
        ),
    ];
    for (name, observed, expected) in cases {
        assert_eq!(plan(&desired(), &observed), expected, "{name}");
    }
}

fn any_deprecated() -> impl Strategy<Value = Option<Deprecated>> {
    prop_oneof![
        Just(None),
        Just(Some(deprecated("ACTIVE", None, Some(7000)))),
        Just(Some(deprecated("DEPRECATED", Some("other"), None))),
        Just(Some(deprecated("DEPRECATED", None, None))),
    ]
}

fn any_image(name: &'static str) -> impl Strategy<Value = Image> {
    let status = prop::sample::select(vec!["READY", "FAILED", "DELETING"]);
    let family = prop::option::of(Just("host".to_owned()));
    let labels = prop_oneof![3 => Just(desired().labels), 1 => Just(BTreeMap::new())];
    (status, family, labels, 0..9_i64, any_deprecated()).prop_map(
        move |(status, family, labels, created, deprecated)| Image {
            status: status.to_owned(),
            family,
            labels,
            deprecated,
            ..image(name, created * 1000)
        },
    )
}

fn any_observed() -> impl Strategy<Value = Observed> {
    let others = (
        prop::option::of(any_image("host-0")),
        prop::option::of(any_image("host-2")),
    );
    let object = prop::option::of(Just(object()));
    let members = prop::collection::btree_set(
        prop::sample::select(vec!["group:a".to_owned(), "user:b".to_owned()]),
        0..3,
    );
    (
        object,
        prop::option::of(any_image("host-1")),
        members,
        others,
    )
        .prop_map(|(object, image, members, (one, two))| Observed {
            object,
            image,
            members,
            family: one.into_iter().chain(two).collect(),
        })
}

proptest! {
    #[test]
    fn a_plan_that_is_done_step_by_step_comes_to_its_end(observed in any_observed()) {
        let (desired, mut observed) = (desired(), observed);
        let before = observed.clone();
        for _ in 0..20 {
            let actions = plan(&desired, &observed);
            let stages: Vec<_> = actions.iter().map(Action::stage).collect();
            prop_assert!(stages.is_sorted(), "{actions:?}");
            let Some(action) = actions.first() else { break };
            // The bytes are there until the image is, and the family moves when it is shared.
            prop_assert!(*action != Action::RemoveObject || observed.image.is_some());
            if matches!(action, Action::SetFamily(_)) {
                prop_assert!(desired.members.is_subset(&observed.members));
            }
            apply(&desired, &mut observed, action);
        }
        prop_assert_eq!(plan(&desired, &observed), vec![]);
        for (was, is) in before.family.iter().zip(&observed.family) {
            let ours = was.labels.contains_key(LABEL_IMAGE);
            prop_assert!(was == is || ours, "somebody else's image is left alone");
        }
        let foreign = before.image.as_ref().is_some_and(|image| !image.is_of(&desired));
        prop_assert!(!foreign || before == observed);
    }
}
