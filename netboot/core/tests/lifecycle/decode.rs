//! Whatever a stored document holds, the lifecycle copes with it.

use std::time::Duration;

use image_manifest::Digest;
use netboot_core::Timestamp;
use netboot_core::drift::findings;
use netboot_core::lifecycle::{
    Control, Event, HostState, Operation, Outcome, Parameters, Policy, Power, Said, When, plan_of,
    refusal, step,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{deploy, image, order};

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..5, Just(u64::MAX), any::<u64>()]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..5, Just(u32::MAX)]
}

fn maybe(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), inner]
}

fn generation() -> impl Strategy<Value = Value> {
    let reason = prop_oneof![
        Just(json!({"reason": "deploy"})),
        Just(json!({"reason": "adopted"})),
        small().prop_map(|of| json!({"reason": "rollback", "of": of})),
        small().prop_map(|of| json!({"reason": "heal", "of": of})),
    ];
    let outcome = prop_oneof![
        Just(json!({"outcome": "pending"})),
        number().prop_map(|n| json!({"outcome": "healthy", "at": n, "took-ms": n})),
        number().prop_map(|n| json!({"outcome": "failed", "at": n, "why": "\u{202e}so"})),
        number().prop_map(|n| json!({"outcome": "superseded", "at": n})),
    ];
    (small(), 0_u8..3, number(), reason, outcome).prop_map(|(number, of, at, reason, outcome)| {
        json!({"number": number, "image": image(of), "created": at, "by": "alice",
            "reason": reason, "intents": ["one"], "outcome": outcome})
    })
}

fn pending() -> impl Strategy<Value = Value> {
    let intent = prop::sample::select(vec![
        json!({"intent": "observe"}),
        json!({"intent": "ensure-off", "shutdown-ms": u64::MAX}),
        json!({"intent": "boot-once", "by": "http"}),
        json!({"intent": "ensure-on"}),
    ]);
    (number(), intent, number())
        .prop_map(|(operation, intent, since)| json!({"operation": operation, "intent": intent, "since": since}))
}

fn phase() -> impl Strategy<Value = Value> {
    let goal = prop_oneof![
        small().prop_map(|number| json!({"goal": "deploy", "generation": number})),
        (0_u8..5).prop_map(|number| json!({"goal": "power", "order": order(number), "by": "bob"})),
    ];
    let stage = prop::sample::select(vec![
        "powering-off",
        "setting-boot",
        "powering-on",
        "waiting",
        "booting",
        "proving",
    ]);
    let counts = (number(), number(), small(), small(), number());
    let marks = (
        maybe(number().prop_map(Value::from)),
        maybe(number().prop_map(Value::from)),
    );
    let work = (goal, stage, maybe(pending()), counts, marks, prop::collection::vec(small(), 0..4))
        .prop_map(|(goal, stage, pending, (a, b, misses, offs, ticks), (due, heard), failed)| {
            json!({"phase": "active", "goal": goal, "stage": stage, "began": a, "began-watched": b,
                "entered": b, "entered-watched": a, "pending": pending, "due": due, "misses": misses,
                "off-until": ticks, "offs": offs, "boot": "boot1", "awaited": due, "heard": heard,
                "ill": heard, "trouble": "so", "failed": failed})
        });
    prop_oneof![
        1 => Just(json!({"phase": "idle"})),
        1 => number().prop_map(|at| json!({"phase": "stopped", "at": at, "why": "so"})),
        4 => work,
    ]
}

fn any_state() -> impl Strategy<Value = HostState> {
    let seen = (number(), small()).prop_map(|(since, generation)| {
        json!({"power": "off", "power-off-since": since, "tree-off-since": since, "overlay-since": since,
            "tree": Digest::of(b"x"), "overlay": ["/a", "/b"], "overlay-omitted": since,
            "boot": {"boot": "boot1", "generation": generation}})
    });
    let watch = (number(), number(), number())
        .prop_map(|(clock, total, ticks)| json!({"clock": clock, "total": total, "stored": ticks, "ticks": ticks}));
    let desired = maybe(small().prop_map(Value::from));
    let wanted = maybe(prop::sample::select(vec![json!("on"), json!("off")]));
    let heals = prop::collection::vec(number(), 0..5);
    (prop::collection::vec(generation(), 0..40), desired, phase(), wanted, seen, heals, watch, number(), small())
        .prop_map(|(generations, desired, phase, wanted, seen, heals, watch, operation, newest)| {
            let document = json!({"generations": generations, "desired": desired, "phase": phase,
                "wanted": wanted, "seen": seen, "heals": heals, "watch": watch,
                "operation": operation, "newest": newest});
            serde_json::from_value(document).expect("the document has the shape of a state")
        })
}

fn any_event() -> impl Strategy<Value = Event> {
    let by = || "alice".to_owned();
    let outcome = prop::sample::select(vec![
        Outcome::Done { power: Power::On },
        Outcome::Done { power: Power::Off },
        Outcome::Done {
            power: Power::Changing,
        },
        Outcome::NotSent { why: by() },
        Outcome::Unknown {
            why: "\u{7}".repeat(5_000),
        },
        Outcome::Refused { why: by() },
    ]);
    let said = prop::sample::select(vec![
        Said::Healthy {
            tree: image(0).tree,
        },
        Said::Healthy {
            tree: image(1).tree,
        },
        Said::Unhealthy {
            tree: image(1).tree,
            why: by(),
        },
        Said::Failed { why: by() },
        Said::Overlay {
            paths: vec!["/etc".repeat(1_000); 100],
            omitted: u64::MAX,
        },
    ]);
    prop_oneof![
        4 => Just(Event::Tick),
        1 => Just(Event::Restarted),
        1 => Just(Event::PolicyChanged),
        1 => Just(Event::Left),
        1 => Just(Event::Cancel { by: by() }),
        1 => (0_u8..3, any::<bool>()).prop_map(|(of, again)| {
            deploy(of, if again { When::Always } else { When::Needed }, "two")
        }),
        1 => Just(Event::Rollback { intent: "three".to_owned(), by: by() }),
        1 => (0_u8..5).prop_map(move |of| Event::Power { order: order(of), by: "bob".to_owned() }),
        1 => Just(Event::Adopt { image: image(2), parameters: Parameters::new(), by: by() }),
        4 => (number(), outcome).prop_map(|(operation, outcome)| Event::PowerDone { operation: Operation(operation), outcome }),
        1 => prop::sample::select(vec![Power::On, Power::Off]).prop_map(|power| Event::PowerSeen { power }),
        2 => small().prop_map(|generation| Event::BootBegan { boot: "boot1".to_owned(), generation }),
        4 => said.prop_map(|said| Event::Reported { boot: "boot1".to_owned(), said }),
        1 => Just(Event::Silent { boot: "boot1".to_owned() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn no_document_and_no_event_makes_it_panic_or_grow(
        state in any_state(),
        events in prop::collection::vec((any_event(), number()), 1..20),
        hands in any::<bool>(),
        forever in any::<bool>(),
    ) {
        let mut policy = Policy {
            control: if hands { Control::Hands } else { Control::Bmc },
            heal: netboot_core::drift::Drift::ALL.into(),
            ..Policy::default()
        };
        if forever {
            policy.deadline = Duration::MAX;
            policy.shutdown = Duration::MAX;
            policy.settle = Duration::MAX;
            policy.power = Duration::MAX;
            policy.max_rollbacks = u32::MAX;
            policy.max_heals = u32::MAX;
        }
        let mut state = state;
        for (event, at) in events {
            let now = Timestamp(at);
            let planned = plan_of(&state, &policy, &event, now);
            prop_assert_eq!(planned.err(), refusal(&state, &policy, &event));
            prop_assert!(findings(&state, &policy).len() <= 3);
            let next = step(&state, &policy, &event, now);
            let text = serde_json::to_string(&next.state).unwrap();
            prop_assert_eq!(&serde_json::from_str::<HostState>(&text).unwrap(), &next.state);
            for note in &next.notes {
                prop_assert!(note.text.chars().count() < 4_000, "{}", note.text);
                prop_assert!(!note.text.chars().any(char::is_control), "{}", note.text);
            }
            state = next.state;
        }
        prop_assert!(serde_json::to_string(&state).unwrap().len() < 100_000);
    }
}
