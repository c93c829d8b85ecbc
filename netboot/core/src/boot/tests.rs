//! Timelines as tables: what happened, and what is said about it.

use std::time::Duration;

use image_manifest::{Digest, FailedCheck, Report, Stage, Unhealthy};

use super::*;
use crate::Timestamp;
use crate::dhcp::{Firmware, Form};
use crate::site::Mode;

const START: u64 = 1_000_000;

fn tree() -> Digest {
    Digest::of(b"tree")
}

fn offer(firmware: Firmware, form: Form, next: Form) -> What {
    What::Dhcp {
        asked: Asked::Discover,
        answer: Answer::Offer,
        firmware,
        form: Some(form),
        next: Some(next),
    }
}

fn ipxe(asked: Asked) -> What {
    What::Dhcp {
        asked,
        answer: Answer::Ack,
        firmware: Firmware::Ipxe,
        form: Some(Form::Script),
        next: None,
    }
}

fn fetch(file: File, bytes: u64) -> What {
    What::Fetch {
        file,
        name: format!("{file:?}").to_lowercase(),
        over: Protocol::Http,
        transfer: Transfer::Done {
            bytes,
            elapsed_ms: 5,
        },
    }
}

fn report(stage: Stage) -> What {
    let uptime_ms = 1;
    What::Report(Report {
        sequence: 0,
        uptime_ms,
        stage,
    })
}

/// Events one second apart.
fn timeline(whats: Vec<What>) -> Vec<Event> {
    (0..)
        .zip(whats)
        .map(|(second, what)| Event {
            at: Timestamp(START + second * 1000),
            what,
        })
        .collect()
}

fn whole() -> Vec<What> {
    vec![
        offer(Firmware::UefiPxe, Form::Plain, Form::Direct),
        fetch(File::Loader, 1000),
        ipxe(Asked::Discover),
        ipxe(Asked::Request),
        fetch(File::Script, 10),
        fetch(File::Kernel, 2000),
        fetch(File::Initrd, 3000),
        report(Stage::Stage1 {
            kernel: "6.12".into(),
            started_ms: 100,
        }),
        fetch(File::Rootfs, 4000),
        report(Stage::RootFetched {
            bytes: 4000,
            elapsed_ms: 10,
            retries: 0,
        }),
        report(Stage::SwitchRoot),
        report(Stage::AgentStarted { tree: tree() }),
        report(Stage::Healthy { tree: tree() }),
    ]
}

#[test]
fn the_verdict_says_what_was_seen_and_what_comes_next() {
    let loader = offer(Firmware::Bios, Form::Direct, Form::Port4011);
    let failed = Transfer::Failed {
        bytes: 7,
        reason: "timed out".into(),
    };
    let ill = Unhealthy {
        tree: tree(),
        state: "degraded".into(),
        failed_units: vec!["ssh.service".into()],
        failed_checks: Vec::new(),
    };
    let beat = |state: &str| Stage::Heartbeat {
        tree: tree(),
        state: state.into(),
        failed_checks: Vec::new(),
    };
    let with = |stage: Stage| [whole(), vec![report(stage)]].concat();
    let other = Digest::of(b"other");
    let hex = tree().short();
    let cases = [
        ("nothing", vec![], 0, "silent", "no packet of this host was seen".to_owned()),
        ("one offer", vec![loader.clone()], 1, "booting", "firmware asked for an address".into()),
        (
            "ignored",
            vec![loader.clone(); 3],
            1,
            "silent",
            "offer sent 3 times, host never asked for the loader: firmware ignores option 43; next try uses port 4011".into(),
        ),
        (
            "a loader that failed",
            vec![
                loader,
                What::Fetch { file: File::Loader, name: "undionly.kpxe".into(), over: Protocol::Tftp, transfer: failed },
            ],
            1,
            "booting",
            "firmware loads `undionly.kpxe`; `undionly.kpxe` failed: timed out".into(),
        ),
        (
            "no image",
            vec![ipxe(Asked::Discover), fetch(File::Script, 1), What::Refused { reason: "image `host` is not in the store".into() }],
            1,
            "booting",
            "iPXE runs the host's script; image `host` is not in the store".into(),
        ),
        (
            "a kernel that hangs",
            whole()[..7].to_vec(),
            500,
            "silent",
            "iPXE loads the initrd, or the kernel starts; nothing heard for 8 min".into(),
        ),
        ("up", whole(), 1, "healthy", format!("runs tree {hex}")),
        ("up and beating", with(beat("running")), 1, "healthy", format!("runs tree {hex}")),
        ("up and gone", with(beat("running")), 100, "silent", format!("ran tree {hex}; no heartbeat for 100 s")),
        ("ill later", with(beat("degraded")), 1, "unhealthy", "systemd says `degraded`".into()),
        ("ill", with(Stage::Unhealthy(ill)), 1, "unhealthy", "systemd says `degraded`: ssh.service failed".into()),
        (
            "another tree",
            with(Stage::Healthy { tree: other }),
            1,
            "unhealthy",
            format!("runs tree {}, and its image is tree {hex}", other.short()),
        ),
        (
            "a flipped byte",
            with(Stage::Failed { reason: "piece 3 has another digest".into() }),
            1,
            "failed",
            "stage1 gave up: piece 3 has another digest".into(),
        ),
    ];
    let expected = Expectation {
        tree: Some(tree()),
        heartbeat: Duration::from_secs(30),
    };
    for (name, whats, later, state, text) in cases {
        let events = timeline(whats);
        let last = events.last().map_or(Timestamp(START), |event| event.at);
        let now = last.after(Duration::from_secs(later));
        let verdict = verdict(&events, &expected, now);
        assert_eq!(
            (verdict.state.label(), verdict.text),
            (state, text),
            "{name}"
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of what can follow what")]
fn a_boot_begins_when_the_host_starts_again() {
    let firmware = || offer(Firmware::UefiPxe, Form::Plain, Form::Direct);
    let whole = whole();
    let os = What::Dhcp {
        asked: Asked::Discover,
        answer: Answer::Offer,
        firmware: Firmware::Os,
        form: None,
        next: None,
    };
    let cases = [
        ("the first packet", &whole[..0], firmware(), 1, true),
        (
            "the first packet of iPXE in a ROM",
            &whole[..0],
            ipxe(Asked::Discover),
            1,
            true,
        ),
        (
            "the operating system alone",
            &whole[..0],
            os.clone(),
            1,
            false,
        ),
        ("the operating system", &whole[..], os, 1, false),
        ("firmware asks again", &whole[..1], firmware(), 30, false),
        ("firmware after a pause", &whole[..1], firmware(), 130, true),
        (
            "the loader did not start",
            &whole[..2],
            firmware(),
            10,
            false,
        ),
        ("after iPXE", &whole[..4], firmware(), 10, true),
        ("after all", &whole[..], firmware(), 10, true),
        (
            "iPXE after its loader",
            &whole[..2],
            ipxe(Asked::Discover),
            1,
            false,
        ),
        (
            "iPXE in a ROM after all",
            &whole[2..],
            ipxe(Asked::Discover),
            1,
            true,
        ),
        (
            "iPXE after a refused script",
            &whole[2..5],
            ipxe(Asked::Discover),
            1,
            true,
        ),
        (
            "a script after its address",
            &whole[2..4],
            fetch(File::Script, 1),
            1,
            false,
        ),
        (
            "a script when the host is up",
            &whole[..],
            fetch(File::Script, 1),
            1,
            false,
        ),
        (
            "a loader when the host is up",
            &whole[..],
            fetch(File::Loader, 1),
            999,
            false,
        ),
        (
            "a script of its own",
            &whole[..0],
            fetch(File::Script, 1),
            1,
            true,
        ),
        (
            "a loader of its own",
            &whole[..0],
            fetch(File::Loader, 1),
            1,
            false,
        ),
        (
            "a kernel that is tried again",
            &whole[..7],
            fetch(File::Kernel, 1),
            1,
            false,
        ),
        (
            "a report",
            &whole[..7],
            report(Stage::SwitchRoot),
            999,
            false,
        ),
    ];
    for (name, before, next, later, expected) in cases {
        let progress = Progress::of(&timeline(before.to_vec()));
        let last = progress.map_or(Timestamp(START), |progress| progress.last);
        let event = Event {
            at: last.after(Duration::from_secs(later)),
            what: next,
        };
        let begun = begins(progress.as_ref(), &event, Mode::Authoritative);
        assert_eq!(begun, expected, "{name}");
    }
}

#[test]
fn beside_another_server_a_file_begins_a_boot() {
    // It gives the address, and we need not hear of it.
    let up = Progress::of(&timeline(whole()));
    for file in [File::Loader, File::Script] {
        let event = Event {
            at: Timestamp(START + 60_000),
            what: fetch(file, 1),
        };
        assert!(begins(up.as_ref(), &event, Mode::Proxy), "{file:?}");
        assert!(begins(None, &event, Mode::Proxy), "{file:?}");
    }
}

#[test]
fn stages_add_up() {
    let events = timeline(whole());
    let found = stages(Timestamp(START), &events);
    let names: Vec<_> = found.iter().map(|stage| &*stage.name).collect();
    let expected = [
        "firmware",
        "loader",
        "ipxe",
        "script",
        "kernel",
        "initrd",
        "stage1",
        "rootfs",
        "switch-root",
        "agent",
        "health",
    ];
    assert_eq!(names, expected);
    let total: u64 = found.iter().map(|stage| stage.elapsed_ms).sum();
    assert_eq!(total, 12_000);
    assert_eq!(found[7].bytes, 4000, "the root is counted once");
    assert_eq!(bytes(&events), 1000 + 10 + 2000 + 3000 + 4000);
}

#[test]
fn an_event_reads_back_as_it_is_stored() {
    for event in timeline(whole()) {
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            serde_json::from_str::<Event>(&text).unwrap(),
            event,
            "{text}"
        );
    }
    let text = serde_json::to_string(&timeline(whole())[1]).unwrap();
    let frozen = r#"{"at":1001000,"event":"fetch","file":"loader","name":"loader","over":"http","transfer":{"step":"done","bytes":1000,"elapsed-ms":5}}"#;
    assert_eq!(text, frozen);
}

#[test]
fn what_hosts_say_is_printable_and_short() {
    let evil = "\u{1b}]0;owned\u{7}\nhost FAKE healthy\u{202e}";
    let good = "\u{fffd}]0;owned\u{fffd}\u{fffd}host FAKE healthy\u{fffd}";
    let ill = |text: &str| Unhealthy {
        tree: tree(),
        state: text.into(),
        failed_units: vec![text.into(); 40],
        failed_checks: vec![
            FailedCheck {
                name: text.into(),
                reason: text.into(),
            };
            40
        ],
    };
    let short = Unhealthy {
        failed_units: vec![good.into(); 32],
        failed_checks: ill(good).failed_checks[..32].to_vec(),
        ..ill(good)
    };
    let beat = |state: &str| Stage::Heartbeat {
        tree: tree(),
        state: state.into(),
        failed_checks: Vec::new(),
    };
    let failed = |reason: &str| Stage::Failed {
        reason: reason.into(),
    };
    let started = |kernel: &str| Stage::Stage1 {
        kernel: kernel.into(),
        started_ms: 1,
    };
    let refused = |reason: &str| What::Refused {
        reason: reason.into(),
    };
    let cases = [
        (report(started(evil)), report(started(good))),
        (report(failed(evil)), report(failed(good))),
        (
            report(failed(&"é".repeat(5000))),
            report(failed(&"é".repeat(1024))),
        ),
        (report(beat(evil)), report(beat(good))),
        (
            report(Stage::Unhealthy(ill(evil))),
            report(Stage::Unhealthy(short)),
        ),
        (refused(evil), refused(good)),
    ];
    for (said, kept) in cases {
        assert_eq!(said.tamed(), kept);
    }
    for what in whole() {
        assert_eq!(what.clone().tamed(), what);
    }
}
