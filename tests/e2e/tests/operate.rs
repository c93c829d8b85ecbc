//! What operators do with hosts: deployed, rolled back, rolled out, and what goes wrong in between.
//!
//! It refuses to trust the appliance about power: the host's own memory of it is the witness.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use e2e::ghost::{Event, Manner};
use e2e::haunted::{Haunted, IMAGES};
use e2e::need;
use e2e::rig::{check, printed};
use ipmi::sim::{Fault, Moment};
use ipmi::{Identity, ResetKind};

/// The walk is cut into this many parts, which run side by side.
const PARTS: usize = 4;

/// What a deploy certainly comes by. Packets are counted a little differently each time, so a step
/// that the walk happened to miss is killed at by its name.
const MILESTONES: [&str; 6] = [
    ": off",
    ": on",
    "set boot",
    "script",
    "credential",
    "report",
];

/// Deploys again and again, and kills the appliance at one more step each time, beginning with the
/// step of this number; returns what was cut.
fn walk(part: usize) -> Vec<String> {
    let mut haunted = Haunted::new();
    haunted.settle();
    let mut steps = Vec::new();
    for kill_at in (part..).step_by(PARTS) {
        let image = IMAGES[(steps.len() + 1) % 2];
        // There was no such step any more: all of them were walked.
        let Some(step) = cut(&mut haunted, image, |seen, _| seen == kill_at) else {
            break;
        };
        steps.push(step);
    }
    steps
}

/// Deploys and kills the appliance once, at the first event that is meant; returns which that was.
fn cut(
    haunted: &mut Haunted,
    image: &str,
    meant: impl Fn(usize, &Event) -> bool,
) -> Option<String> {
    let before = haunted.ghost.acts().len();
    haunted.deploy(image);
    let mut seen = 0;
    let mut killed = None;
    let begun = Instant::now();
    // An off that may be lost is sent again only after 75 s without an effect.
    let history = haunted.play(Duration::from_mins(4), |rig, event| {
        if killed.is_none() && meant(seen, &event) {
            killed = Some(format!("{:?} {}", event.moment, event.what));
            rig.kill();
            // What was on its way to the dead is lost, what was done stays done.
            match event.moment {
                Moment::Before => event.silence(),
                Moment::After => event.proceed(),
            }
            rig.serve().expect("it starts again");
        } else {
            event.proceed();
        }
        seen += 1;
    });
    let acts = haunted.ghost.acts().split_off(before);
    let story = format!("killed at {killed:?}: {acts:?}, {history:#?}");
    assert_eq!(acts, [ResetKind::ForceOff, ResetKind::On], "{story}");
    assert_eq!(history[0].outcome, "healthy", "{story}");
    assert_eq!(history[0].image, image, "{story}");
    if let Some(step) = &killed {
        let took = begun.elapsed().as_secs();
        eprintln!("killed at {step}: well after {took} s");
    }
    killed
}

#[test]
fn a_killed_appliance_ends_its_deploy_and_switches_nothing_twice() {
    if !need::has(&["udhcpc", "curl"]) {
        return;
    }
    let parts: Vec<_> = (0..PARTS)
        .map(|part| thread::spawn(move || walk(part)))
        .collect();
    let walked = parts
        .into_iter()
        .map(|part| part.join().expect("a part ends well"));
    let mut steps: Vec<String> = walked.flatten().collect();
    let missed = |name: &&str| !steps.iter().any(|seen| seen.contains(name));
    let missed: Vec<&str> = MILESTONES.into_iter().filter(missed).collect();
    if !missed.is_empty() {
        let mut haunted = Haunted::new();
        haunted.settle();
        for (name, number) in missed.into_iter().zip(1..) {
            let step = cut(&mut haunted, IMAGES[number % 2], |_, event| {
                event.what.contains(name)
            });
            steps.push(step.unwrap_or_else(|| panic!("a deploy has no `{name}`")));
        }
    }
    eprintln!(
        "the appliance was killed at {} steps of a deploy",
        steps.len()
    );
}

#[test]
fn a_bmc_of_another_machine_is_not_obeyed() {
    let mut haunted = Haunted::new();
    haunted.settle();
    let before = haunted.ghost.acts().len();
    haunted.ghost.faults.set(Fault::OtherIdentity(Identity {
        guid: Some([9; 16]),
        serial: Some("OTHER".to_owned()),
        ..Identity::default()
    }));
    haunted.deploy("next");
    let history = haunted.play(Duration::from_mins(1), |_, event| event.proceed());
    assert_eq!(haunted.ghost.acts().len(), before, "nothing was switched");
    assert_eq!(history[0].outcome, "failed", "{history:#?}");
    assert!(history[0].why.contains("another"), "{history:#?}");
}

#[test]
fn a_bmc_that_lies_is_found_out() {
    let mut haunted = Haunted::new();
    haunted.settle();
    haunted.ghost.faults.set(Fault::LiesAboutPower);
    haunted.deploy("next");
    let mut offs = 0;
    let history = haunted.play(Duration::from_mins(10), |_, event| {
        let off = event.moment == Moment::Before && event.what.contains("off");
        offs += u32::from(off);
        event.proceed();
    });
    eprintln!(
        "{offs} times off was sent to a BMC that lies: {}",
        history[0].why
    );
    assert_ne!(history[0].outcome, "healthy", "{history:#?}");
    assert!(!history[0].why.is_empty(), "{history:#?}");
    assert!(offs <= 3, "it was told to switch off {offs} times");
}

/// Deploys with a BMC that is not as it should be: one off, one on, and the host is well.
fn deploys_in_spite_of(name: &str, fault: Fault) {
    let mut haunted = Haunted::new();
    haunted.settle();
    let before = haunted.ghost.acts().len();
    haunted.ghost.faults.set(fault);
    haunted.deploy("next");
    let begun = Instant::now();
    let history = haunted.play(Duration::from_mins(8), |_, event| event.proceed());
    let acts = haunted.ghost.acts().split_off(before);
    eprintln!("{name}: {} s", begun.elapsed().as_secs());
    assert_eq!(acts, [ResetKind::ForceOff, ResetKind::On], "{history:#?}");
    assert_eq!(history[0].outcome, "healthy", "{history:#?}");
    assert_eq!(history[0].image, "next", "{history:#?}");
}

#[test]
fn a_bmc_that_loses_half_of_all_packets_is_borne() {
    deploys_in_spite_of("drops half", Fault::Drop(50));
}

#[test]
fn a_bmc_that_answers_late_is_borne() {
    let late = Fault::Late(Duration::from_millis(1500));
    deploys_in_spite_of("answers late", late);
}

#[test]
fn a_bmc_that_says_all_twice_is_borne() {
    deploys_in_spite_of("says all twice", Fault::Duplicate);
}

#[test]
fn a_bmc_that_lags_a_minute_is_borne() {
    let lag = Fault::Lag(Duration::from_mins(1));
    deploys_in_spite_of("lags a minute", lag);
}

#[test]
fn a_host_that_is_never_heard_of_is_rolled_back_at_most_once() {
    let mut haunted = Haunted::new();
    haunted.settle();
    let before = haunted.ghost.acts().len();
    haunted.ghost.behave(Manner::Dead);
    haunted.deploy("next");
    let history = haunted.play(Duration::from_mins(5), |_, event| event.proceed());
    let acts = haunted.ghost.acts().split_off(before);
    let twice = [ResetKind::ForceOff, ResetKind::On];
    assert_eq!(acts, [twice, twice].concat(), "{history:#?}");
    assert_eq!(history[1].outcome, "failed", "{history:#?}");
    assert_eq!(history[0].outcome, "failed", "{history:#?}");
    let host = printed(&haunted.rig.netboot(&["host", "bios1"]));
    assert!(host.contains("stopped"), "{host}");
    // A person has looked: the next deployment begins anew.
    haunted.ghost.behave(Manner::Well);
    haunted.settle();
}

#[test]
fn a_full_disk_refuses_a_deploy_and_harms_nothing() {
    let mut haunted = Haunted::new();
    haunted.settle();
    let before = haunted.ghost.acts().len();
    haunted.rig.kill();
    let data = haunted.rig.place.data.clone();
    let disk = SmallDisk::below(&data);
    haunted.rig.serve().expect("it starts on the small disk");
    disk.fill();
    let refused = haunted.rig.netboot(&["deploy", "bios1", "--image", "next"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("store"), "{said}");
    assert_eq!(haunted.ghost.acts().len(), before, "nothing was switched");
    disk.empty();
    haunted.deploy("next");
    let history = haunted.play(Duration::from_secs(90), |_, event| event.proceed());
    assert_eq!(history[0].outcome, "healthy", "{history:#?}");
    haunted.rig.kill();
}

/// A disk of a few megabytes in the place of a directory, with the same files.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn below(data: &Path) -> Self {
        let aside = data.with_extension("aside");
        fs::rename(data, &aside).expect("the data directory moves");
        fs::create_dir(data).expect("a directory");
        let mount = ["-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs"];
        run(
            "mount",
            &[&mount[..], &[&data.display().to_string()]].concat(),
        );
        let from = format!("{}/.", aside.display());
        run("cp", &["-a", &from, &data.display().to_string()]);
        Self(data.to_owned())
    }

    fn fill(&self) {
        let dd = format!(
            "dd if=/dev/zero of={}/filler bs=4k 2>/dev/null; true",
            self.0.display()
        );
        run("sh", &["-c", &dd]);
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).expect("the filler goes");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let path = self.0.display().to_string();
        Command::new("umount").args(["--lazy", &path]).status().ok();
    }
}

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output();
    check(&output.expect("the program starts"));
}
