use std::sync::Arc;

use image_manifest::{Digest, Report, Stage};
use netboot_core::Timestamp;
use netboot_core::boot::{Answer, Asked, Event, File, Protocol, Transfer, What};
use netboot_core::dhcp::Firmware;
use netboot_core::site::{Mode, Parameter};

use super::{BootDetail, Boots, Recorded, Target, read_boot};
use crate::store::{BYTES_PER_BOOT, BootRow, Change, EVENTS_PER_BOOT, EventRow, StoredBoot};

fn host() -> Arc<str> {
    "bios1".into()
}

fn dhcp(firmware: Firmware) -> What {
    What::Dhcp {
        asked: Asked::Discover,
        answer: Answer::Offer,
        firmware,
        form: None,
        next: None,
    }
}

fn fetch(file: File, transfer: Transfer) -> What {
    What::Fetch {
        file,
        name: "x".to_owned(),
        over: Protocol::Http,
        transfer,
    }
}

fn heartbeat(uptime_ms: u64, system: &str) -> What {
    let stage = Stage::Heartbeat {
        tree: Digest::of(b"tree"),
        state: system.to_owned(),
        failed_checks: Vec::new(),
    };
    What::Report(Report {
        sequence: 0,
        uptime_ms,
        stage,
    })
}

/// Plays events a second apart and keeps what is stored, as the store would.
struct Play {
    boots: Boots,
    now: u64,
    boot: Option<BootRow>,
    events: Vec<EventRow>,
}

impl Play {
    fn new() -> Self {
        Self {
            boots: Boots::default(),
            now: 1_000,
            boot: None,
            events: Vec::new(),
        }
    }

    fn event(&mut self, what: What) -> Option<Recorded> {
        self.now += 1_000;
        let at = Timestamp(self.now);
        let recorded = self.record(Event { at, what })?;
        for change in recorded.changes.clone() {
            match change {
                Change::Boot(row) => {
                    if self.boot.as_ref().is_none_or(|boot| boot.id != row.id) {
                        self.events.clear();
                    }
                    self.boot = Some(row);
                }
                Change::Event(row) => {
                    self.events.retain(|event| event.seq != row.seq);
                    self.events.push(row);
                }
                other => panic!("{other:?} is no change of a boot"),
            }
        }
        Some(recorded)
    }

    /// As the appliance does: a report is that of the newest boot.
    fn record(&self, event: Event) -> Option<Recorded> {
        match (&event.what, &self.boot) {
            (What::Report(_), boot) => self.boots.report(&boot.as_ref()?.id, event),
            _ => self
                .boots
                .record(&host(), event, Mode::Authoritative, |_| ()),
        }
    }

    fn stored(&self) -> StoredBoot {
        let mut events = self.events.clone();
        events.sort_by_key(|event| event.seq);
        StoredBoot {
            boot: self.boot.clone().unwrap(),
            events,
        }
    }

    fn timeline(&self) -> Vec<What> {
        let (_, events) = read_boot(&self.stored()).unwrap();
        events.into_iter().map(|event| event.what).collect()
    }
}

#[test]
fn a_boot_goes_on_after_a_restart_with_the_same_id() {
    let mut play = Play::new();
    let boot = play.event(dhcp(Firmware::Bios)).unwrap().boot;
    play.event(dhcp(Firmware::Ipxe)).unwrap();
    play.event(fetch(File::Script, Transfer::Started)).unwrap();

    play.boots = Boots::restore(vec![play.stored()]).unwrap();
    assert_eq!(play.boots.find(&boot).map(|found| found.0), Some(host()));
    let marks = play.boots.restarted(Timestamp(play.now));
    assert!(
        matches!(marks.as_slice(), [Change::Event(row)] if row.seq == 3),
        "{marks:?}"
    );
    let next = play.event(fetch(File::Kernel, Transfer::Started)).unwrap();
    assert_eq!((next.boot, next.began), (Arc::clone(&boot), false));

    let anew = play.event(dhcp(Firmware::Bios)).unwrap();
    assert!(
        anew.began && anew.boot != boot,
        "firmware starts a new boot"
    );
    assert_eq!(play.boots.find(&boot), None, "no one had its token");
}

#[test]
fn after_a_restart_the_boots_of_a_host_that_may_report_are_the_same() {
    let target = |detail: &mut BootDetail| {
        let digest = Digest::of(b"x");
        detail.target = Some(Target {
            image: "host".to_owned(),
            manifest: digest,
            tree: digest,
            kernel: digest,
            initrd: digest,
            rootfs: digest,
        });
    };
    let mut stored: Vec<StoredBoot> = Vec::new();
    let mut keep = |recorded: &Recorded| {
        for change in recorded.changes.clone() {
            match change {
                Change::Boot(boot) => match stored.iter_mut().find(|one| one.boot.id == boot.id) {
                    Some(known) => known.boot = boot,
                    None => stored.push(StoredBoot {
                        boot,
                        events: Vec::new(),
                    }),
                },
                Change::Event(row) => {
                    let known = stored.iter_mut().find(|one| one.boot.id == row.boot);
                    known.unwrap().events.push(row);
                }
                other => panic!("{other:?} is no change of a boot"),
            }
        }
    };
    let boots = Boots::default();
    let mut begin = |second: u64| {
        let mut id = None;
        for (millis, what) in [
            (0, dhcp(Firmware::Ipxe)),
            (1, fetch(File::Script, Transfer::Started)),
        ] {
            let at = Timestamp(second * 1_000 + millis);
            let event = Event { at, what };
            let recorded = boots.record(&host(), event, Mode::Authoritative, target);
            let recorded = recorded.unwrap();
            keep(&recorded);
            id = Some(recorded.boot);
        }
        id.unwrap()
    };
    let (ended, running) = (begin(1), begin(2));
    let report = Event {
        at: Timestamp(3_000),
        what: heartbeat(1, "running"),
    };
    let recorded = boots.report(&running, report).unwrap();
    let newest = begin(4);
    let mut keep_report = stored.clone();
    for change in recorded.changes {
        if let Change::Event(row) = change {
            let known = keep_report.iter_mut().find(|one| one.boot.id == row.boot);
            known.unwrap().events.push(row);
        }
    }
    for (name, boots) in [
        ("before", boots),
        ("after", Boots::restore(keep_report).unwrap()),
    ] {
        assert_eq!(boots.find(&ended), None, "{name}: its successor reported");
        assert!(boots.find(&running).is_some(), "{name}: it runs");
        assert!(boots.find(&newest).is_some(), "{name}: it may run");
    }
}

#[test]
fn a_system_that_never_booted_from_here_has_no_timeline() {
    let mut play = Play::new();
    assert_eq!(play.event(dhcp(Firmware::Os)), None);
    assert_eq!(play.event(heartbeat(1, "running")), None);
}

#[test]
fn what_repeats_itself_is_one_event() {
    let mut play = Play::new();
    play.event(dhcp(Firmware::Ipxe)).unwrap();
    for uptime in 0..50 {
        play.event(heartbeat(uptime, "running")).unwrap();
        play.event(dhcp(Firmware::Os)).unwrap();
    }
    play.event(heartbeat(60, "degraded")).unwrap();
    play.event(heartbeat(70, "running")).unwrap();
    let expected = [
        dhcp(Firmware::Ipxe),
        heartbeat(49, "running"),
        dhcp(Firmware::Os),
        heartbeat(60, "degraded"),
        heartbeat(70, "running"),
    ];
    assert_eq!(play.timeline(), expected);
}

#[test]
fn pieces_of_a_file_add_up() {
    let done = |bytes, elapsed_ms| {
        let transfer = Transfer::Done { bytes, elapsed_ms };
        fetch(File::Rootfs, transfer)
    };
    let mut play = Play::new();
    play.event(dhcp(Firmware::Ipxe)).unwrap();
    play.event(fetch(File::Rootfs, Transfer::Started)).unwrap();
    assert_eq!(
        play.event(fetch(File::Rootfs, Transfer::Started))
            .unwrap()
            .changes,
        [],
        "the next range is nothing new"
    );
    for _ in 0..3 {
        play.event(done(4, 10)).unwrap();
    }
    let expected = [
        dhcp(Firmware::Ipxe),
        fetch(File::Rootfs, Transfer::Started),
        done(12, 4_000),
    ];
    assert_eq!(play.timeline(), expected);
}

#[test]
fn a_timeline_has_an_end_and_keeps_the_newest_event() {
    let mut play = Play::new();
    for number in 0..EVENTS_PER_BOOT + 10 {
        let reason = format!("{number}");
        play.event(dhcp(Firmware::Bios)).unwrap();
        play.event(What::Refused { reason }).unwrap();
    }
    let timeline = play.timeline();
    assert_eq!(timeline.len(), EVENTS_PER_BOOT as usize);
    let reason = format!("{}", EVENTS_PER_BOOT + 9);
    assert_eq!(timeline.last(), Some(&What::Refused { reason }));
}

#[test]
fn a_gap_in_a_stored_timeline_costs_no_event() {
    let mut play = Play::new();
    play.event(dhcp(Firmware::Bios)).unwrap();
    play.event(dhcp(Firmware::Ipxe)).unwrap();
    play.event(fetch(File::Script, Transfer::Started)).unwrap();
    play.event(heartbeat(1, "running")).unwrap();
    play.events.retain(|event| event.seq != 1);

    play.boots = Boots::restore(vec![play.stored()]).unwrap();
    play.event(heartbeat(2, "running")).unwrap();
    play.event(heartbeat(3, "degraded")).unwrap();
    let expected = [
        dhcp(Firmware::Bios),
        fetch(File::Script, Transfer::Started),
        heartbeat(2, "running"),
        heartbeat(3, "degraded"),
    ];
    assert_eq!(play.timeline(), expected);
    let numbers: Vec<u32> = play.events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, [0, 2, 3, 4]);
}

#[test]
fn a_timeline_has_a_size_and_keeps_the_newest_event() {
    let mut play = Play::new();
    play.event(dhcp(Firmware::Ipxe)).unwrap();
    let report = |play: &mut Play, number: u32| {
        let reason = format!("{number}{}", "\u{1b}".repeat(2_000));
        play.event(What::Refused { reason }).unwrap();
        let bytes: usize = play.events.iter().map(|row| row.event.len()).sum();
        (bytes, play.events.len())
    };
    let mut last = (0, 0);
    for number in 0..200 {
        last = report(&mut play, number);
        if number == 20 {
            play.boots = Boots::restore(vec![play.stored()]).unwrap();
        }
    }
    let (bytes, count) = last;
    assert!(bytes <= BYTES_PER_BOOT + 16_384, "{bytes} bytes");
    assert!(count > 40, "{count} events");
    assert!(
        matches!(play.timeline().last(), Some(What::Refused { reason }) if reason.starts_with("199"))
    );
}

#[test]
fn a_detail_reads_back_what_it_writes() {
    let digest = Digest::of(b"x");
    let detail = BootDetail {
        parameters: Some([("rack".into(), Parameter::Integer(5))].into()),
        exchanged: Some(digest),
        mac: Some("52:54:00:00:00:01".parse().unwrap()),
        address: Some("10.77.0.11".parse().unwrap()),
        target: Some(Target {
            image: "host".to_owned(),
            manifest: digest,
            tree: digest,
            kernel: digest,
            initrd: digest,
            rootfs: digest,
        }),
    };
    let text = serde_json::to_string(&detail).unwrap();
    assert_eq!(serde_json::from_str::<BootDetail>(&text).unwrap(), detail);
    let later = r#"{"colour":"blue"}"#;
    let read: BootDetail = serde_json::from_str(later).unwrap();
    assert_eq!(read, BootDetail::default(), "fields may come and go");
}
