//! Cases and laws of the plan.

use proptest::prelude::*;

use super::*;

fn desired() -> Desired {
    Desired {
        target: "glance".to_owned(),
        name: "host-1".to_owned(),
        digest: "sha256:00".to_owned(),
        size: 1,
        min_disk: 1,
        properties: [(MANIFEST.to_owned(), "ours".to_owned())].into(),
        tags: BTreeSet::new(),
        protected: true,
        visibility: Visibility::Shared,
        members: ["abc".to_owned()].into(),
        hide_older: true,
    }
}

fn image(id: &str) -> Image {
    Image {
        id: id.to_owned(),
        status: "active".to_owned(),
        visibility: "private".to_owned(),
        properties: desired().properties,
        hash: "12".to_owned(),
        min_disk: 1,
        ..Image::default()
    }
}

/// What the cloud makes of a change.
fn apply(desired: &Desired, observed: &mut Observed, action: &Action) {
    if let Action::Create = action {
        let status = "queued".to_owned();
        observed.image = Some(Image {
            status,
            hash: String::new(),
            ..image("1")
        });
        observed.members.clear();
        return;
    }
    let other = |observed: &mut Observed, id: &str, change: fn(&mut Image)| {
        observed
            .others
            .iter_mut()
            .filter(|image| image.id == id)
            .for_each(change);
    };
    let Some(image) = observed.image.as_mut() else {
        return;
    };
    match action {
        Action::Create | Action::RemoveFailed(_) => observed.image = None,
        Action::Upload => (image.status, image.hash) = ("active".to_owned(), "12".to_owned()),
        Action::Compare => image
            .properties
            .extend([(COMPARED.to_owned(), image.hash.clone())]),
        Action::Describe => {
            image.properties.extend(desired.properties.clone());
            (image.protected, image.min_disk) = (desired.protected, desired.min_disk);
        }
        Action::Show(visibility) => visibility.label().clone_into(&mut image.visibility),
        Action::Share(member) => observed.members.extend([member.clone()]),
        Action::Unhide => image.hidden = false,
        Action::Tag => image.tags.extend([CURRENT.to_owned()]),
        Action::Untag(id) => other(observed, id, |image| {
            image.tags.retain(|tag| tag != CURRENT);
        }),
        Action::Hide(id) => other(observed, id, |image| image.hidden = true),
    }
}

fn any_image(id: &'static str) -> impl Strategy<Value = Image> {
    let status = prop::sample::select(vec!["active", "queued", "killed", "deactivated"]);
    let visibility = prop::sample::select(vec!["private", "shared", "public"]);
    let marks = [CURRENT.to_owned(), "other".to_owned()];
    let tags = prop::collection::btree_set(prop::sample::select(marks.to_vec()), 0..3);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (status, visibility, tags, flags).prop_map(
        move |(status, visibility, tags, (hidden, protected, compared, deprecated))| {
            let mut image = Image {
                status: status.to_owned(),
                visibility: visibility.to_owned(),
                tags,
                hidden,
                protected,
                ..image(id)
            };
            if status == "queued" {
                image.hash = String::new();
            }
            if compared {
                image
                    .properties
                    .insert(COMPARED.to_owned(), image.hash.clone());
            }
            if deprecated {
                image
                    .properties
                    .insert(DEPRECATED.to_owned(), "2026".to_owned());
            }
            image
        },
    )
}

fn any_observed() -> impl Strategy<Value = Observed> {
    let others = (
        prop::option::of(any_image("2")),
        prop::option::of(any_image("3")),
    );
    let members = prop::collection::btree_set(
        prop::sample::select(vec!["abc".to_owned(), "def".to_owned()]),
        0..3,
    );
    (prop::option::of(any_image("1")), members, others).prop_map(
        |(image, members, (two, three))| Observed {
            project: "p".to_owned(),
            image,
            members,
            others: two.into_iter().chain(three).collect(),
        },
    )
}

#[test]
fn only_what_differs_is_changed() {
    let whole = Image {
        visibility: "shared".to_owned(),
        protected: true,
        tags: [CURRENT.to_owned()].into(),
        properties: [
            (MANIFEST.to_owned(), "ours".to_owned()),
            (COMPARED.to_owned(), "12".to_owned()),
        ]
        .into(),
        ..image("1")
    };
    let of = |image: Image| Observed {
        image: Some(image),
        members: desired().members,
        ..Observed::default()
    };
    let cases = [
        ("nothing", of(whole.clone()), vec![]),
        (
            "killed before it was compared",
            of(Image {
                properties: desired().properties,
                ..whole.clone()
            }),
            vec![Action::Compare],
        ),
        (
            "other bytes since it was compared",
            of(Image {
                hash: "34".to_owned(),
                ..whole.clone()
            }),
            vec![Action::Compare],
        ),
        (
            "not protected any more",
            of(Image {
                protected: false,
                ..whole.clone()
            }),
            vec![Action::Describe],
        ),
        (
            "without its tag",
            of(Image {
                tags: BTreeSet::new(),
                ..whole.clone()
            }),
            vec![Action::Tag],
        ),
        (
            "an older one hidden",
            of(Image {
                hidden: true,
                ..whole.clone()
            }),
            vec![Action::Unhide],
        ),
        (
            "another is current",
            Observed {
                others: vec![Image {
                    id: "2".to_owned(),
                    ..whole.clone()
                }],
                ..of(whole)
            },
            vec![Action::Untag("2".to_owned()), Action::Hide("2".to_owned())],
        ),
    ];
    for (name, observed, expected) in cases {
        assert_eq!(plan(&desired(), &observed), expected, "{name}");
    }
}

proptest! {
    #[test]
    fn a_plan_that_is_done_step_by_step_comes_to_its_end(observed in any_observed()) {
        let (desired, mut observed) = (desired(), observed);
        let withdrawn = observed.image.as_ref().is_some_and(Image::is_withdrawn);
        let before = observed.clone();
        for _ in 0..20 {
            let actions = plan(&desired, &observed);
            let stages: Vec<_> = actions.iter().map(Action::stage).collect();
            prop_assert!(stages.is_sorted(), "{actions:?}");
            let Some(action) = actions.first() else { break };
            // Nothing is protected, shown or pointed to whose bytes were not compared.
            if matches!(action, Action::Describe | Action::Show(_) | Action::Tag) {
                let image = observed.image.as_ref().unwrap();
                prop_assert!(image.is_compared() || image.status == "deactivated");
            }
            apply(&desired, &mut observed, action);
        }
        prop_assert_eq!(plan(&desired, &observed), vec![]);
        let failed = before.image.as_ref().is_some_and(|image| image.status == "killed");
        if withdrawn && !failed {
            prop_assert_eq!(before.others, observed.others, "what is withdrawn takes nothing from others");
        } else {
            prop_assert!(observed.others.iter().all(|image| !image.tags.contains(CURRENT)));
        }
    }
}
