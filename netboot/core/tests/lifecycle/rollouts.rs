//! Rollouts over simulated hosts: caps hold, a halt is a halt, and a crash repeats nothing.

use netboot_core::Timestamp;
use netboot_core::lifecycle::{Control, Judgement, Parameters, Phase, When};
use netboot_core::rollout::{BadSpec, Command, Mode, Progress, Size, Spec, Target, start};
use proptest::prelude::*;

use crate::rack::{Fate, Rack, START, spec};
use crate::world::{deploy, image};

#[test]
fn a_good_image_reaches_all_hosts() {
    let mut rack = Rack::new(spec(), &[Fate::Well; 6]);
    rack.run();
    assert_eq!(rack.rollout.mode, Mode::Done);
    assert_eq!(rack.running(1), 6);
}

#[test]
fn the_second_failure_halts_it_and_the_rest_stays_untouched() {
    let mut rack = Rack::new(
        spec(),
        &[
            Fate::Well,
            Fate::Bad,
            Fate::Bad,
            Fate::Well,
            Fate::Well,
            Fate::Well,
        ],
    );
    rack.run();
    let Mode::Halted { why } = &rack.rollout.mode else {
        panic!("{:?}", rack.rollout.mode);
    };
    assert_eq!(why, "2 of at most 2 failures: web1, web2");
    assert_eq!((rack.running(1), rack.running(0)), (1, 5));
    assert_eq!(rack.touched.len(), 3);
    for host in ["web3", "web4", "web5"] {
        assert_eq!(rack.hosts[host].newest, 1);
    }
}

#[test]
fn hosts_that_wait_for_hands_hold_up_nobody_once_their_batch_is_proven() {
    let mut rack = Rack::new(spec(), &[Fate::Well; 6]);
    rack.run_canary();
    // The rest has no BMC, and nobody is there.
    rack.policy.control = Control::Hands;
    let wait = |rack: &mut Rack| {
        for _ in 0..9 {
            rack.turn(usize::MAX);
        }
        let waits = |member: &netboot_core::rollout::Member| {
            let state = &rack.hosts[&member.host];
            rack.rollout.waits_for_hands(member, state)
        };
        let members = rack.rollout.members.iter();
        members.map(waits).collect::<Vec<bool>>()
    };
    // Nothing is known of a batch of which nobody is started, so the rest is left alone.
    assert_eq!(wait(&mut rack), [false, true, true, false, false, false]);
    assert_eq!(rack.touched.len(), 3, "{:?}", rack.rollout);
    rack.start_by_hand("web2");
    rack.advance("web2");
    assert_eq!(wait(&mut rack), [false, true, false, true, true, false]);
    assert_eq!(rack.touched.len(), 5, "{:?}", rack.rollout);
    assert_eq!(rack.rollout.mode, Mode::Running);
    // They are started one after the other, and that is its end.
    for host in ["web3", "web5", "web4", "web1"] {
        rack.start_by_hand(host);
        rack.advance(host);
        wait(&mut rack);
    }
    rack.run();
    assert_eq!(
        (rack.rollout.mode.clone(), rack.running(1)),
        (Mode::Done, 6)
    );
}

#[test]
fn a_canary_that_waits_for_hands_is_waited_for() {
    let mut rack = Rack::new(spec(), &[Fate::Well; 3]);
    rack.policy.control = Control::Hands;
    for _ in 0..9 {
        rack.turn(usize::MAX);
    }
    assert_eq!(rack.touched.len(), 1, "{:?}", rack.rollout);
    let canary = &rack.rollout.members[0];
    assert!(rack.rollout.waits_for_hands(canary, &rack.hosts["web0"]));
}

#[test]
fn a_host_that_stopped_meanwhile_is_left_alone_whatever_the_clock_says() {
    for jump in [-100_000_000_i64, 100_000_000] {
        let mut rack = Rack::new(spec(), &[Fate::Well; 2]);
        rack.now = rack.now.saturating_add_signed(jump);
        let now = Timestamp(rack.now);
        let why = "its power did not obey".to_owned();
        rack.hosts.get_mut("web1").unwrap().phase = Phase::Stopped { at: now, why };
        rack.run();
        assert_eq!(rack.touched.len(), 1, "{jump}: {:?}", rack.rollout);
    }
    // A person who saw it stopped and rolls out all the same means it.
    let mut rack = Rack::new(spec(), &[Fate::Well; 2]);
    let (at, why) = (Timestamp(START), "so".to_owned());
    rack.hosts.get_mut("web1").unwrap().phase = Phase::Stopped { at, why };
    let targets = ["web0", "web1"].map(|host| Target {
        host: host.to_owned(),
        rack: None,
        parameters: Parameters::new(),
    });
    let state = |host: &str| rack.hosts.get(host);
    rack.rollout = start(
        "r2",
        spec(),
        targets.into(),
        "alice",
        state,
        Timestamp(START),
    )
    .unwrap();
    rack.run();
    assert_eq!(rack.touched.len(), 2, "{:?}", rack.rollout);
}

#[test]
fn a_failed_canary_halts_it() {
    let mut rack = Rack::new(spec(), &[Fate::Bad, Fate::Well, Fate::Well]);
    rack.run();
    assert!(matches!(&rack.rollout.mode, Mode::Halted { why } if why == "the canary web0 failed"));
    assert_eq!(rack.touched.len(), 1);
}

#[test]
fn what_was_touched_is_undone() {
    let mut rack = Rack::new(spec(), &[Fate::Well, Fate::Well, Fate::Bad, Fate::Bad]);
    rack.run();
    rack.command(Command::Undo);
    rack.run();
    assert_eq!(rack.rollout.mode, Mode::Undone);
    assert_eq!(rack.running(0), 4, "{:?}", rack.rollout);
    let undone = |member: &&netboot_core::rollout::Member| member.progress == Progress::Undone;
    assert_eq!(rack.rollout.members.iter().filter(undone).count(), 2);
}

#[test]
fn hosts_that_others_changed_are_left_alone() {
    let mut rack = Rack::new(spec(), &[Fate::Well; 4]);
    rack.turn(usize::MAX);
    rack.tell("web3", &deploy(2, When::Needed, "other"));
    rack.hosts.remove("web2");
    rack.run();
    let progress = |index: usize| rack.rollout.members[index].progress.clone();
    assert!(
        matches!(progress(3), Progress::Skipped { why } if why.starts_with("alice deployed image2@"))
    );
    assert!(matches!(progress(2), Progress::Skipped { .. }));
    assert_eq!(rack.rollout.mode, Mode::Done);
    assert_eq!((rack.running(1), rack.running(2)), (2, 1));
}

#[test]
fn a_pause_is_resumed_and_a_halt_is_not() {
    let mut rack = Rack::new(spec(), &[Fate::Well; 4]);
    rack.command(Command::Pause);
    rack.turn(usize::MAX);
    assert!(rack.touched.is_empty());
    rack.command(Command::Resume);
    rack.turn(usize::MAX);
    assert_eq!(rack.touched.len(), 1);
    rack.command(Command::Halt);
    assert!(rack.rollout.command(Command::Resume, "bob").is_err());
    rack.run();
    assert_eq!((rack.touched.len(), rack.running(1)), (1, 1));
}

#[test]
fn a_selection_that_has_no_sense_is_refused() {
    let target = || Target {
        host: "web1".to_owned(),
        rack: None,
        parameters: Parameters::new(),
    };
    let cases = [
        (spec(), vec![], BadSpec::Empty),
        (
            Spec {
                at_once: 0,
                ..spec()
            },
            vec![target()],
            BadSpec::Zero("at-once"),
        ),
        (
            Spec {
                max_failures: 0,
                ..spec()
            },
            vec![target()],
            BadSpec::Zero("max-failures"),
        ),
        (
            Spec {
                batch: Size::Count(0),
                ..spec()
            },
            vec![target()],
            BadSpec::Zero("batch"),
        ),
        (
            Spec {
                batch: Size::Percent(101),
                ..spec()
            },
            vec![target()],
            BadSpec::Percent,
        ),
    ];
    for (spec, targets, error) in cases {
        let made = start("r", spec, targets, "alice", |_| None, Timestamp(START));
        assert_eq!(made, Err(error));
    }
    let twice = vec![target(), target()];
    let made = start("r", spec(), twice, "alice", |_| None, Timestamp(START)).unwrap();
    assert_eq!(made.members.len(), 1);
    assert_eq!(made.outline()[1], "canary: web1");
}

#[derive(Clone, Debug)]
enum Deed {
    Turn(usize),
    Advance(u8),
    Command(Command),
    Other(u8),
    Gone(u8),
}

fn any_deed() -> impl Strategy<Value = Deed> {
    let commands = vec![
        Command::Pause,
        Command::Resume,
        Command::Resume,
        Command::Halt,
        Command::Undo,
    ];
    prop_oneof![
        6 => (0_usize..4).prop_map(Deed::Turn),
        16 => (0_u8..9).prop_map(Deed::Advance),
        2 => prop::sample::select(commands).prop_map(Deed::Command),
        1 => (0_u8..9).prop_map(Deed::Other),
        1 => (0_u8..9).prop_map(Deed::Gone),
    ]
}

prop_compose! {
    fn any_spec()(
        canary in 0_u32..4,
        batch in prop_oneof![(1_u32..5).prop_map(Size::Count), (1_u8..=100).prop_map(Size::Percent)],
        at_once in 1_u32..5,
        at_once_per_rack in prop::option::of(1_u32..3),
        max_failures in 1_u32..4,
        soak_ms in prop::sample::select(vec![0_u64, 30_000]),
    ) -> Spec {
        Spec { image: image(1), canary, batch, at_once, at_once_per_rack, max_failures, soak_ms }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn caps_hold_and_every_rollout_ends(
        spec in any_spec(),
        fates in prop::collection::vec(prop::sample::select(vec![Fate::Well, Fate::Well, Fate::Bad]), 1..9),
        deeds in prop::collection::vec(any_deed(), 0..120),
    ) {
        let mut rack = Rack::new(spec, &fates);
        for deed in deeds {
            match deed {
                Deed::Turn(most) => rack.turn(most),
                Deed::Advance(host) => rack.advance(&format!("web{host}")),
                Deed::Command(command) => rack.command(command),
                Deed::Other(host) => {
                    let name = format!("web{host}");
                    rack.tell(&name, &deploy(2, When::Needed, "other"));
                }
                Deed::Gone(host) => {
                    rack.hosts.remove(&format!("web{host}"));
                }
            }
        }
        rack.command(Command::Resume);
        rack.run();
        for (name, state) in &rack.hosts {
            prop_assert!(!matches!(state.phase, Phase::Active(_)));
            let ours = state.answers(&rack.rollout.intent(name));
            prop_assert_eq!(ours.is_some(), rack.touched.contains(name));
            if let Some(Judgement::Failed { .. }) = ours.map(|ours| &ours.outcome) {
                let boots = state.boots().unwrap();
                prop_assert!(boots.is_proven() && boots.image != image(1), "{}", name);
            }
        }
        // Asked again, it has nothing to add.
        let again = rack.plan();
        prop_assert!(again.actions.is_empty() && again.notes.is_empty() && !again.changed);
    }
}
