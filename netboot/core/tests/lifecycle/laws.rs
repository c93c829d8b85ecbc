//! What a lifecycle does in the cases that matter, one by one.

use std::time::Duration;

use crate::chance::{Deed, perform};
use crate::world::{Bmc, Fate, World, deploy, order};
use netboot_core::drift::{Drift, findings};
use netboot_core::lifecycle::{
    Control, Event, Judgement, NoteKind, Phase, Policy, Power, Said, When, plan_of,
};

pub(crate) fn policy() -> Policy {
    Policy {
        control: Control::Bmc,
        deadline: Duration::from_mins(5),
        ..Policy::default()
    }
}

/// A host that runs image 0 and was proven on it.
fn proven(fates: Vec<Fate>, policy: Policy) -> World {
    let mut world = World::new(policy, fates);
    world.by_hand(true);
    world.pass(60);
    assert!(world.state.boots().unwrap().is_proven());
    world
}

fn last(world: &World) -> &Judgement {
    &world.state.generations.last().unwrap().outcome
}

#[test]
fn a_good_image_is_deployed_and_a_bad_one_rolls_back() {
    let cases = [
        (Fate::Well, "image1", 0),
        (Fate::NoBoot, "image0", 1),
        (Fate::Mute, "image0", 1),
        (Fate::Ill, "image0", 1),
        (Fate::GivesUp, "image0", 1),
    ];
    for (fate, runs, rolled_back) in cases {
        let mut world = proven(vec![Fate::Well, fate], policy());
        world.deploy(1, When::Needed, "one");
        world.end(Duration::from_hours(1));
        assert_eq!(world.state.phase, Phase::Idle, "{fate:?}");
        assert_eq!(world.state.boots().unwrap().image.name, runs, "{fate:?}");
        let backs = world
            .notes
            .iter()
            .filter(|(kind, _)| *kind == NoteKind::RolledBack);
        assert_eq!(backs.count(), rolled_back, "{fate:?}");
        assert!(world.state.boots().unwrap().is_proven(), "{fate:?}");
    }
}

#[test]
fn without_anything_proven_it_stops_and_says_so() {
    let mut world = World::new(policy(), vec![Fate::Ill, Fate::Ill]);
    world.by_hand(true);
    world.pass(10);
    world.end(Duration::from_hours(1));
    let Phase::Stopped { why, .. } = &world.state.phase else {
        panic!("{:?}", world.state.phase);
    };
    assert!(why.contains("port 22 is closed"), "{why}");
    assert!(why.contains("nothing to go back to"), "{why}");
}

#[test]
fn rollbacks_have_a_limit() {
    let mut world = proven(vec![Fate::Well, Fate::Well, Fate::Mute], policy());
    world.deploy(1, When::Needed, "one");
    world.end(Duration::from_hours(1));
    // What was good is good no more.
    (world.fates[0], world.fates[1]) = (Fate::Mute, Fate::Mute);
    world.deploy(2, When::Needed, "two");
    world.end(Duration::from_hours(1));
    let Phase::Stopped { why, .. } = &world.state.phase else {
        panic!("{:?}", world.state.phase);
    };
    assert!(why.contains("as often as its policy allows"), "{why}");
    assert_eq!(world.state.newest, 4, "{:?}", world.state.generations);
}

#[test]
fn a_host_that_stays_well_for_long_enough_is_proven() {
    let long = Policy {
        health_for: Duration::from_mins(2),
        ..policy()
    };
    let mut world = proven(vec![Fate::Well, Fate::Well, Fate::Fades], policy());
    world.policy = long;
    world.deploy(1, When::Needed, "one");
    world.end(Duration::from_hours(1));
    assert!(matches!(last(&world), Judgement::Healthy { took_ms, .. } if *took_ms >= 120_000));
    world.deploy(2, When::Needed, "two");
    world.end(Duration::from_hours(1));
    assert_eq!(world.state.boots().unwrap().image.name, "image1");
}

#[test]
fn a_clock_that_jumps_neither_fails_a_boot_nor_stretches_it() {
    for skew in [3_600_000 * 24, -3_600_000 * 24] {
        let mut world = proven(vec![Fate::Well, Fate::Well, Fate::Mute], policy());
        world.deploy(1, When::Needed, "one");
        world.pass(15);
        world.skew += skew;
        world.end(Duration::from_mins(5));
        assert!(matches!(last(&world), Judgement::Healthy { .. }), "{skew}");
        world.deploy(2, When::Needed, "two");
        world.pass(15);
        world.skew += skew;
        let began = world.now;
        world.end(Duration::from_hours(1));
        let took = Duration::from_millis(world.now - began);
        assert!(took < Duration::from_mins(8), "{skew}: {took:?}");
        assert!(took > Duration::from_mins(4), "{skew}: {took:?}");
    }
}

#[test]
fn a_bmc_that_cannot_be_used_stops_the_host_with_its_reason() {
    let cases = [
        (Bmc::Dead, "does not answer"),
        (
            Bmc::Wrong,
            "belongs to another machine: expected A, found B",
        ),
        (Bmc::Refuses, "bad password"),
        (Bmc::Lags(3_600), "did not obey"),
    ];
    for (bmc, text) in cases {
        let mut world = proven(vec![Fate::Well, Fate::Well], policy());
        world.bmc = bmc;
        world.deploy(1, When::Needed, "one");
        world.end(Duration::from_mins(15));
        let Phase::Stopped { why, .. } = &world.state.phase else {
            panic!("{bmc:?}: {:?}", world.state.phase);
        };
        assert!(why.contains(text), "{bmc:?}: {why}");
        // Whoever boots it by hand gets what was proven.
        assert_eq!(world.state.boots().unwrap().image.name, "image0", "{bmc:?}");
    }
}

#[test]
fn a_bmc_that_lags_or_loses_is_coped_with() {
    for bmc in [Bmc::Lags(60), Bmc::Lossy] {
        let mut world = proven(vec![Fate::Well, Fate::Well], policy());
        world.bmc = bmc;
        world.deploy(1, When::Needed, "one");
        world.end(Duration::from_mins(15));
        assert!(
            matches!(last(&world), Judgement::Healthy { .. }),
            "{bmc:?}: {:?}",
            world.notes
        );
    }
}

#[test]
fn a_crash_at_any_second_of_a_deployment_changes_nothing_but_the_time() {
    for bmc in [Bmc::Good, Bmc::Lags(60)] {
        for second in 0..120 {
            let mut world = proven(vec![Fate::Well, Fate::Well], policy());
            world.bmc = bmc;
            world.deploy(1, When::Needed, "one");
            world.pass(second);
            world.crash();
            world.end(Duration::from_mins(15));
            assert!(
                matches!(last(&world), Judgement::Healthy { .. }),
                "{bmc:?}, second {second}: {:?}",
                world.notes
            );
            assert_eq!(world.state.newest, 2);
        }
    }
}

#[test]
fn a_crash_between_commit_and_action_loses_nothing() {
    let mut world = proven(vec![Fate::Well, Fate::Well], policy());
    world.tell_and(&deploy(1, When::Needed, "one"), true);
    world.end(Duration::from_mins(15));
    assert!(
        matches!(last(&world), Judgement::Healthy { .. }),
        "{:?}",
        world.notes
    );
}

#[test]
fn a_crash_before_off_was_sent_costs_no_time_and_one_after_waits() {
    let cases = [
        ("before it is on disk", false, 20),
        ("when it is on disk", true, 120),
    ];
    for (name, on_disk, most) in cases {
        let at_once = Policy {
            shutdown: Duration::ZERO,
            ..policy()
        };
        let mut world = proven(vec![Fate::Well, Fate::Well], at_once);
        let asked = world.now;
        world.dies_sending = on_disk;
        world.deploy(1, When::Needed, "one");
        if !on_disk {
            world.crash();
        }
        while world.state.label() == "powering-off" {
            world.pass(1);
        }
        let took = Duration::from_millis(world.now - asked).as_secs();
        assert!(took < most, "{name}: {took} s");
        let settle = world.policy.settle.as_secs();
        assert_eq!(took >= settle, on_disk, "{name}: {took} s");
        world.end(Duration::from_mins(10));
        assert!(matches!(last(&world), Judgement::Healthy { .. }), "{name}");
    }
}

#[test]
fn what_was_called_off_before_it_was_sent_is_not_sent() {
    let mut world = proven(vec![Fate::Well, Fate::Well], policy());
    world.deploy(1, When::Needed, "one");
    world.tell(&Event::Cancel {
        by: "alice".to_owned(),
    });
    assert_eq!(world.state.phase, Phase::Idle, "it was not touched");
    world.pass(300);
    assert!(world.power, "{:?}", world.notes);
}

#[test]
fn a_repeated_request_is_answered_once() {
    let mut world = proven(vec![Fate::Well, Fate::Well, Fate::Well], policy());
    world.deploy(1, When::Always, "one");
    world.pass(5);
    world.deploy(1, When::Always, "one");
    world.end(Duration::from_mins(15));
    world.deploy(1, When::Always, "one");
    // Another request for what runs already finds it done.
    world.deploy(1, When::Needed, "two");
    assert_eq!(world.state.phase, Phase::Idle);
    assert_eq!(world.state.newest, 2);
    assert!(world.state.answers("two").unwrap().is_proven());
}

#[test]
fn a_dry_run_tells_the_plan_that_is_followed() {
    let mut world = proven(vec![Fate::Well, Fate::Well], policy());
    let now = world.clock();
    let request = deploy(1, When::Needed, "one");
    let plan = plan_of(&world.state, &world.policy, &request, now).unwrap();
    let plan: Vec<String> = plan.iter().map(ToString::to_string).collect();
    world.notes.clear();
    world.tell(&request);
    world.end(Duration::from_mins(15));
    let steps = world
        .notes
        .iter()
        .filter(|(kind, text)| *kind == NoteKind::Step && !text.starts_with("it boots"));
    let steps: Vec<&String> = steps.map(|(_, text)| text).collect();
    assert!(
        plan[0].starts_with("make generation 2: image1@"),
        "{plan:?}"
    );
    assert_eq!(plan[1..plan.len() - 1].iter().collect::<Vec<_>>(), steps);
    assert!(
        plan.last().unwrap().contains("roll back to generation 1"),
        "{plan:?}"
    );
    let again = plan_of(
        &world.state,
        &world.policy,
        &deploy(1, When::Needed, "two"),
        now,
    )
    .unwrap();
    assert_eq!(
        again.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["nothing: it is so already"]
    );
}

#[test]
fn what_is_called_off_stays_as_it_is_and_boots_what_was_proven() {
    let mut world = proven(vec![Fate::Well, Fate::Well], policy());
    let cancel = Event::Cancel {
        by: "bob".to_owned(),
    };
    let now = world.clock();
    assert!(plan_of(&world.state, &world.policy, &cancel, now).is_err());
    world.deploy(1, When::Needed, "one");
    world.pass(10);
    let plan = plan_of(&world.state, &world.policy, &cancel, world.clock()).unwrap();
    let text = plan[0].to_string();
    assert!(
        text.starts_with("bob called it off while it was "),
        "{text}"
    );
    let asked = world.actions;
    world.tell(&cancel);
    assert!(matches!(&world.state.phase, Phase::Stopped { why, .. } if why.starts_with(&text)));
    assert_eq!(world.state.boots().unwrap().image.name, "image0");
    // Nothing more is asked of it; it comes up by itself, on what was proven, and that is that.
    world.pass(600);
    assert_eq!(world.actions, asked);
    assert!(world.power);
    assert_eq!(world.state.phase, Phase::Idle);
    let now = world.clock();
    assert!(plan_of(&world.state, &world.policy, &cancel, now).is_err());
}

#[test]
fn a_host_that_left_goes_on_with_nothing_when_it_returns() {
    for second in [0, 3, 10, 14, 40] {
        let mut world = proven(vec![Fate::Well, Fate::Well], policy());
        world.deploy(1, When::Needed, "one");
        world.pass(second);
        let worked = world.state.work().is_some();
        world.tell(&Event::Left);
        assert!(world.state.work().is_none(), "{second}");
        assert!(world.state.boots().unwrap().is_proven(), "{second}");
        let asked = world.actions;
        world.crash();
        world.pass(600);
        assert_eq!(world.actions, asked, "{second}: {:?}", world.notes);
        let told = world
            .notes
            .iter()
            .any(|(_, text)| text.contains("left the site"));
        assert_eq!(told, worked, "{second}");
    }
}

#[test]
fn drift_is_healed_with_a_bound() {
    let healing = Policy {
        heal: Drift::ALL.into(),
        ..policy()
    };
    let mut world = proven(vec![Fate::Well], healing);
    for _ in 0..8 {
        let boot = world.state.seen.boot.clone().unwrap().boot;
        let paths = vec!["/etc/passwd".to_owned()];
        let said = Said::Overlay { paths, omitted: 0 };
        world.tell(&Event::Reported { boot, said });
        world.pass(3_600);
    }
    assert_eq!(world.heals, 3);
    let told = world
        .notes
        .iter()
        .any(|(kind, text)| *kind == NoteKind::Drift && text.contains("left to a person"));
    assert!(told, "{:?}", world.notes);
    // Power is healed too, and off is never healed.
    let mut world = proven(vec![Fate::Well], world.policy);
    world.by_hand(false);
    world.pass(200);
    assert!(world.power, "{:?}", world.notes);
    world.tell(&Event::Power {
        order: order(1),
        by: "alice".to_owned(),
    });
    world.end(Duration::from_mins(5));
    world.by_hand(true);
    world.pass(3_600);
    assert!(world.power);
}

#[test]
fn a_host_that_somebody_switched_off_is_not_started_to_heal_it() {
    let healing = Policy {
        heal: Drift::ALL.into(),
        ..policy()
    };
    // By an order, and by its button.
    for ordered in [true, false] {
        let mut world = proven(vec![Fate::Well], healing.clone());
        let boot = world.state.seen.boot.clone().unwrap().boot;
        let paths = vec!["/etc/passwd".to_owned()];
        let said = Said::Overlay { paths, omitted: 0 };
        world.tell(&Event::Reported { boot, said });
        if ordered {
            world.tell(&Event::Power {
                order: order(2),
                by: "alice".to_owned(),
            });
        } else {
            world.state.wanted = None;
            world.by_hand(false);
        }
        world.pass(7_200);
        assert!(!world.power, "ordered {ordered}: {:?}", world.notes);
        assert_eq!(world.heals, 0, "ordered {ordered}");
    }
}

#[test]
fn a_power_that_is_not_known_is_no_drift() {
    let mut world = proven(vec![Fate::Well], policy());
    world.state.wanted = Some(Power::On);
    world.tell(&Event::PowerSeen { power: Power::Off });
    assert_eq!(findings(&world.state, &world.policy).len(), 1);
    let power = Power::Unknown;
    world.tell(&Event::PowerSeen { power });
    assert_eq!(findings(&world.state, &world.policy), []);
}

#[test]
fn a_host_without_a_bmc_waits_for_a_person() {
    let mut world = proven(vec![Fate::Well, Fate::Well, Fate::Well], policy());
    world.policy.control = Control::Hands;
    world.deploy(1, When::Needed, "one");
    world.pass(3_600);
    assert_eq!(world.state.label(), "waiting");
    assert!(world.power);
    world.by_hand(false);
    world.by_hand(true);
    world.end(Duration::from_mins(10));
    assert!(matches!(last(&world), Judgement::Healthy { .. }));
    world.deploy(2, When::Needed, "two");
    world.end(Duration::from_hours(25));
    assert!(matches!(&world.state.phase, Phase::Stopped { why, .. } if why.contains("by hand")));
    assert_eq!(world.state.boots().unwrap().image.name, "image1");
}

#[test]
fn an_off_that_was_superseded_by_on_leaves_the_host_on() {
    let told = |world: &mut World, number| {
        world.tell(&Event::Power {
            order: order(number),
            by: "alice".to_owned(),
        });
    };
    for lag in [2, 20, 60] {
        for second in 0..70 {
            let mut world = proven(vec![Fate::Well; 2], policy());
            world.bmc = Bmc::Lags(lag);
            told(&mut world, 2);
            world.pass(second);
            told(&mut world, 0);
            world.crash();
            world.pass(300);
            assert!(world.power, "lag {lag}, second {second}: {:?}", world.notes);
            assert_eq!(world.state.phase, Phase::Idle, "lag {lag}, second {second}");
        }
    }
    // Who is asked right after an off that was seen is not kept waiting.
    let mut world = proven(vec![Fate::Well; 2], policy());
    told(&mut world, 2);
    world.end(Duration::from_mins(2));
    told(&mut world, 0);
    world.end(Duration::from_secs(20));
    assert!(world.power);
}

#[test]
fn a_slow_power_off_is_not_taken_for_a_lost_one() {
    // The clock jumps ahead while the first one is on its way.
    let jump = [
        Deed::Deploy(0, false, 0),
        Deed::Pass(7),
        Deed::Bmc(Bmc::Lossy),
        Deed::Jump(25_000),
        Deed::Crash,
    ];
    // It had to queue behind an operation that took long itself.
    let queue = [
        Deed::DyingDeploy(0),
        Deed::Pass(76),
        Deed::Deploy(1, false, 0),
        Deed::Pass(74),
        Deed::Deploy(0, false, 1),
        Deed::Pass(74),
        Deed::Crash,
    ];
    // Somebody asks for something else after a crash, while it is on its way.
    let other = [
        Deed::Deploy(0, false, 0),
        Deed::Pass(7),
        Deed::Crash,
        Deed::Pass(2),
        Deed::Deploy(1, false, 1),
        Deed::Pass(20),
        Deed::Bmc(Bmc::Good),
    ];
    for deeds in [jump.as_slice(), queue.as_slice(), other.as_slice()] {
        let at_once = Policy {
            shutdown: Duration::ZERO,
            ..policy()
        };
        let mut world = World::new(at_once, vec![Fate::Well; 4]);
        world.by_hand(true);
        world.bmc = Bmc::Lags(60);
        for deed in deeds {
            perform(&mut world, deed);
        }
        world.end(Duration::from_hours(3));
    }
}

#[test]
fn the_end_of_one_power_off_is_not_the_end_of_one_before() {
    let at_once = Policy {
        shutdown: Duration::ZERO,
        ..policy()
    };
    let mut world = proven(vec![Fate::Well; 4], at_once);
    world.bmc = Bmc::Lags(60);
    perform(&mut world, &Deed::Order(1));
    world.pass(3);
    perform(&mut world, &Deed::Order(0));
    world.bmc = Bmc::Good;
    world.crash();
    // Nobody waits for the first any more, and the next is obeyed at once.
    world.deploy(1, When::Always, "one");
    world.end(Duration::from_hours(1));
    perform(&mut world, &Deed::Order(0));
    world.end(Duration::from_hours(1));
    world.pass(100);
    assert!(world.power, "it stays off: {:?}", world.notes);
}
