//! Whatever happens, in any order: the laws hold, and it ends.

use std::time::Duration;

use netboot_core::drift::Drift;
use netboot_core::lifecycle::{BootBy, Event, Phase, Policy, Said, When};
use proptest::prelude::*;

use crate::laws::policy;
use crate::world::{Bmc, Fate, World, deploy, order};

/// Something that somebody, or nature, does.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Pass(u64),
    Deploy(u8, bool, u8),
    Rollback(u8),
    Order(u8),
    Cancel,
    Crash,
    DyingDeploy(u8),
    DieSending,
    Jump(i64),
    Bmc(Bmc),
    ByHand(bool),
    Forge(u8),
    Fate(u8, Fate),
    Silent,
    Overlay,
    Policy(Policy),
}

pub(crate) fn any_fate() -> impl Strategy<Value = Fate> {
    prop::sample::select(vec![
        Fate::Well,
        Fate::Well,
        Fate::Well,
        Fate::NoBoot,
        Fate::Mute,
        Fate::Ill,
        Fate::GivesUp,
        Fate::Fades,
    ])
}

pub(crate) fn any_bmc() -> impl Strategy<Value = Bmc> {
    prop::sample::select(vec![
        Bmc::Good,
        Bmc::Good,
        Bmc::Lags(20),
        Bmc::Lags(60),
        Bmc::Lossy,
        Bmc::Dead,
        Bmc::Wrong,
        Bmc::Refuses,
    ])
}

prop_compose! {
    fn any_policy()(
        health_for in prop::sample::select(vec![0_u64, 30, 120]),
        max_rollbacks in 0_u32..4,
        shutdown in prop::sample::select(vec![0_u64, 30]),
        boot in prop::sample::select(vec![BootBy::Pxe, BootBy::Http, BootBy::Keep]),
        heal in prop::collection::btree_set(prop::sample::select(Drift::ALL.to_vec()), 0..3),
    ) -> Policy {
        Policy {
            health_for: Duration::from_secs(health_for),
            max_rollbacks,
            shutdown: Duration::from_secs(shutdown),
            boot,
            heal,
            ..policy()
        }
    }
}

pub(crate) fn any_deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => (1_u64..120).prop_map(Deed::Pass),
        4 => (1_u64..1200).prop_map(Deed::Pass),
        6 => (0_u8..4, any::<bool>(), 0_u8..20).prop_map(|(image, again, id)| Deed::Deploy(image, again, id)),
        2 => (0_u8..20).prop_map(Deed::Rollback),
        2 => (0_u8..5).prop_map(Deed::Order),
        1 => Just(Deed::Cancel),
        4 => Just(Deed::Crash),
        2 => (0_u8..4).prop_map(Deed::DyingDeploy),
        2 => Just(Deed::DieSending),
        2 => (-100_000_000_i64..100_000_000).prop_map(Deed::Jump),
        3 => any_bmc().prop_map(Deed::Bmc),
        1 => any::<bool>().prop_map(Deed::ByHand),
        2 => (0_u8..3).prop_map(Deed::Forge),
        2 => (0_u8..4, any_fate()).prop_map(|(image, fate)| Deed::Fate(image, fate)),
        1 => Just(Deed::Silent),
        1 => Just(Deed::Overlay),
        1 => any_policy().prop_map(Deed::Policy),
    ]
}

pub(crate) fn perform(world: &mut World, deed: &Deed) {
    let alice = "alice".to_owned();
    let boot = world
        .state
        .seen
        .boot
        .clone()
        .map(|seen| seen.boot)
        .unwrap_or_default();
    match deed {
        Deed::Pass(seconds) => world.pass(*seconds),
        Deed::Deploy(image, again, id) => {
            let when = if *again { When::Always } else { When::Needed };
            world.deploy(*image, when, &format!("deploy{id}"));
        }
        Deed::Rollback(id) => world.tell(&Event::Rollback {
            intent: format!("rollback{id}"),
            by: alice,
        }),
        Deed::Order(number) => world.tell(&Event::Power {
            order: order(*number),
            by: alice,
        }),
        Deed::Cancel => world.tell(&Event::Cancel { by: alice }),
        Deed::Crash => world.crash(),
        Deed::DieSending => world.dies_sending = true,
        Deed::DyingDeploy(image) => {
            world.tell_and(&deploy(*image, When::Needed, "dying"), true);
        }
        Deed::Jump(by) => world.skew += by,
        Deed::Bmc(bmc) => world.bmc = *bmc,
        Deed::ByHand(on) => world.by_hand(*on),
        Deed::Forge(kind) => world.forge(*kind),
        Deed::Fate(image, fate) => world.fates[usize::from(*image)] = *fate,
        Deed::Silent => world.tell(&Event::Silent { boot }),
        Deed::Overlay => {
            let said = Said::Overlay {
                paths: vec!["/etc/motd".to_owned()],
                omitted: 3,
            };
            world.tell(&Event::Reported { boot, said });
        }
        Deed::Policy(policy) => {
            world.policy = policy.clone();
            world.tell(&Event::PolicyChanged);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_laws_hold_and_it_ends(
        first in any_policy(),
        fates in prop::collection::vec(any_fate(), 4),
        deeds in prop::collection::vec(any_deed(), 1..30),
        last in 0_u64..20,
    ) {
        let mut world = World::new(first, fates);
        world.by_hand(true);
        for deed in &deeds {
            // A policy that allows less applies to what is tried next.
            if let (Deed::Policy(_), Phase::Active(_)) = (deed, &world.state.phase) {
                continue;
            }
            perform(&mut world, deed);
        }
        // Nobody heals any more, so that work that is begun ends.
        world.policy.heal.clear();
        world.end(Duration::from_hours(3));
        prop_assert!(world.heals <= 3 * u32::try_from(deeds.len()).unwrap());
        // Whatever is still on its way, the last order is what it ends with.
        world.bmc = Bmc::Good;
        world.dies_sending = false;
        world.tell(&Event::Power { order: order(0), by: "alice".to_owned() });
        world.pass(last);
        world.crash();
        world.end(Duration::from_hours(1));
        world.pass(100);
        prop_assert!(world.power, "it was ordered on, and is off: {:?}", world.notes);
    }
}
