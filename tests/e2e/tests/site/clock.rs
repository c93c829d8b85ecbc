//! Clocks that jump: a deployment goes on, and nothing is switched twice.
//!
//! It refuses to touch the machine's clock: libfaketime gives the appliance one of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::ghost;
use e2e::haunted::{Haunted, IMAGES};
use e2e::need;
use e2e::rig::printed;
use ipmi::ResetKind;
use ipmi::sim::Moment;

/// Finds libfaketime, where Debian puts it for this machine.
fn library() -> PathBuf {
    let multiarch = fs::read_dir("/usr/lib").expect("libraries");
    let found = multiarch
        .flatten()
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"))
        .find(|path| path.is_file());
    found.expect("faketime's package has the library")
}

/// Sets the appliance's clock so far from the true one.
fn set(clock: &Path, offset: &str) {
    // Beside it and renamed: half a line would be another time.
    let unfinished = clock.with_extension("new");
    fs::write(&unfinished, format!("{offset}\n")).expect("a clock");
    fs::rename(unfinished, clock).expect("a clock");
}

/// Reads the time that the appliance has, in milliseconds: that of its newest event.
fn newest_event(haunted: &Haunted) -> u64 {
    let events = printed(&haunted.rig.netboot(&["events", "--json"]));
    let last = events.lines().last().expect("something happened");
    let event: serde_json::Value = serde_json::from_str(last).expect("an event");
    event["at-ms"].as_u64().expect("a time")
}

#[test]
fn a_clock_that_jumps_harms_no_deployment() {
    if !need::has(&["udhcpc", "curl", "faketime"]) {
        return;
    }
    // Each jump ahead may use up 30 s of a deadline; those of sites are minutes.
    let site = ghost::SITE.replace("deadline = \"30s\"", "deadline = \"5m\"");
    let mut haunted = Haunted::with_site(&site, &[]);
    let clock = haunted.rig.path("clock");
    set(&clock, "+0");
    let no = Path::new("1");
    haunted.restart_with(&[
        ("LD_PRELOAD", &library()),
        ("FAKETIME_TIMESTAMP_FILE", &clock),
        ("FAKETIME_NO_CACHE", no),
        // What a jump of the true clock does not move either.
        ("FAKETIME_DONT_FAKE_MONOTONIC", no),
    ]);
    haunted.settle();
    let jumps = [
        ("six hours ahead", "boot", "+6h"),
        ("and back", "dhcp", "+0"),
        ("six hours back", "on", "-6h"),
        ("twelve hours ahead", "credential", "+6h"),
        ("and back to before", "report", "-6h"),
    ];
    for ((name, step, offset), number) in jumps.into_iter().zip(1..) {
        let image = IMAGES[number % 2];
        let before = haunted.ghost.acts().len();
        let earlier = newest_event(&haunted);
        haunted.deploy(image);
        let begun = Instant::now();
        let mut jumped = false;
        let history = haunted.play(Duration::from_mins(1), |_, event| {
            if !jumped && event.moment == Moment::Before && event.what.contains(step) {
                set(&clock, offset);
                jumped = true;
            }
            event.proceed();
        });
        let acts = haunted.ghost.acts().split_off(before);
        let story = format!("{name}: {acts:?}, {history:#?}");
        assert!(jumped, "no `{step}`: {story}");
        assert_eq!(acts, [ResetKind::ForceOff, ResetKind::On], "{story}");
        assert_eq!(
            history.len(),
            number + 1,
            "nothing was rolled back: {story}"
        );
        assert_eq!(history[0].outcome, "healthy", "{story}");
        assert_eq!(history[0].image, image, "{story}");
        // Otherwise the library did nothing, and this test showed nothing.
        let moved = newest_event(&haunted).abs_diff(earlier);
        assert!(moved > 5 * 3_600_000, "{name}: its clock moved {moved} ms");
        eprintln!(
            "{name}, at `{step}`: well after {} s",
            begun.elapsed().as_secs()
        );
    }
    // The last one began and ended at other times than its clock says.
    let records = printed(&haunted.rig.netboot(&["audit", "verify"]));
    assert!(records.contains("unchanged"), "{records}");
}
