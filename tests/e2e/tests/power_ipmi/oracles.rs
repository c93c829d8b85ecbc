//! ipmitool and freeipmi against the simulated BMC.

use std::fs;

use e2e::{need, rig};
use ipmi::crypto::{self, Suite};
use ipmi::sim::ipmi::Privilege;
use ipmi::{Error, ResetKind};

use crate::sim::{GUID, KG, SUITES, Sim, config};
use crate::terminal::Terminal;

#[test]
fn ipmitool_switches_the_simulator() {
    if !need::has(&["ipmitool"]) {
        return;
    }
    for suite in SUITES {
        let sim = Sim::start(config(Privilege::Administrator));
        let status = || sim.says(suite, &["power", "status"]);
        assert_eq!(status().trim(), "Chassis Power is off");
        // A host that is off is not restarted.
        sim.refuses(suite, &["power", "cycle"]);
        for action in ["on", "cycle", "reset", "diag", "soft"] {
            sim.says(suite, &["power", action]);
        }
        assert_eq!(status().trim(), "Chassis Power is off");
        sim.says(suite, &["power", "on"]);
        assert_eq!(status().trim(), "Chassis Power is on");
        sim.says(suite, &["power", "off"]);
        let acts = [
            ResetKind::On,
            ResetKind::Cycle,
            ResetKind::ForceRestart,
            ResetKind::Nmi,
            ResetKind::GracefulShutdown,
            ResetKind::On,
            ResetKind::ForceOff,
        ];
        assert_eq!(sim.host.acts(), acts, "suite {suite}");
    }
}

#[test]
fn ipmitool_reads_its_boot_flags_back() {
    if !need::has(&["ipmitool"]) {
        return;
    }
    let cases = [
        ("pxe", "efiboot,persistent", "e004000000", "Force PXE"),
        ("pxe", "efiboot", "a004000000", "Force PXE"),
        (
            "disk",
            "persistent",
            "c008000000",
            "Force Boot from default Hard-Drive",
        ),
        (
            "bios",
            "efiboot",
            "a018000000",
            "Force Boot into BIOS Setup",
        ),
    ];
    for (suite, (device, options, bytes, words)) in SUITES.iter().cycle().zip(cases) {
        let sim = Sim::start(config(Privilege::Operator));
        let options = format!("options={options}");
        let level = ["-L", "OPERATOR"];
        let set = [&level[..], &["chassis", "bootdev", device, &options]].concat();
        sim.says(suite, &set);
        let read = [&level[..], &["chassis", "bootparam", "get", "5"]].concat();
        let said = sim.says(suite, &read);
        assert!(
            said.contains(&format!("Boot parameter data: {bytes}")),
            "{said}"
        );
        assert!(said.contains(words), "{said}");
        // One boot uses up what was meant for one.
        sim.says(suite, &["-L", "OPERATOR", "power", "on"]);
        let is_kept = sim.says(suite, &read).contains(bytes);
        assert_eq!(
            is_kept,
            options.contains("persistent"),
            "{device} {options}"
        );
        assert_eq!(sim.host.boots().len(), 1);
    }
    // What the host cannot boot from is refused, and nothing is kept. ipmitool says so only on its error output.
    let sim = Sim::start(config(Privilege::Operator));
    let output =
        rig::run(&mut sim.ipmitool("17", &["-L", "OPERATOR", "chassis", "bootdev", "floppy"]));
    assert!(!output.stderr.is_empty());
    let said = sim.says(
        "17",
        &["-L", "OPERATOR", "chassis", "bootparam", "get", "5"],
    );
    assert!(said.contains("Boot parameter data: 0000000000"), "{said}");
}

#[test]
fn ipmitool_needs_the_right_key_suite_and_privilege() {
    if !need::has(&["ipmitool"]) {
        return;
    }
    let mut keyed = config(Privilege::Administrator);
    keyed.kg = crypto::key(KG.as_bytes());
    keyed.suites = vec![Suite::Seventeen];
    let sim = Sim::start(keyed);
    sim.says("17", &["-k", KG, "power", "on"]);
    sim.refuses("17", &["power", "status"]);
    sim.refuses("17", &["-k", "another key", "power", "status"]);
    sim.refuses("3", &["-k", KG, "power", "status"]);
    let suites = sim.says("17", &["-k", KG, "channel", "getciphers", "ipmi"]);
    assert!(
        suites.contains("sha256_128") && !suites.contains("sha1_96"),
        "{suites}"
    );

    let sim = Sim::start(config(Privilege::User));
    sim.says("17", &["-L", "USER", "power", "status"]);
    for level in ["USER", "OPERATOR"] {
        sim.refuses("17", &["-L", level, "power", "on"]);
    }
    assert!(sim.host.acts().is_empty());
    fs::write(sim.folder.path().join("password"), "another password").expect("a file");
    sim.refuses("17", &["-L", "USER", "power", "status"]);
}

#[test]
fn ipmitool_and_the_client_read_the_same_inventory() {
    if !need::has(&["ipmitool"]) {
        return;
    }
    let sim = Sim::start(config(Privilege::Administrator));
    sim.says("17", &["power", "on"]);
    sim.says("3", &["power", "cycle"]);
    let inventory = sim
        .runtime
        .block_on(sim.bmc(None).inventory())
        .expect("an inventory");
    let sensors = sim.says("17", &["-c", "sdr", "list"]);
    let mut judged = 0;
    for line in sensors.lines() {
        let mut fields = line.split(',');
        let (name, value) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let ours = inventory.sensors.iter().find(|sensor| sensor.name == name);
        let ours = ours.unwrap_or_else(|| panic!("no {name} in {inventory:?}"));
        if let Ok(value) = value.parse::<f64>() {
            judged += 1;
            let found = ours.value.expect("a value");
            assert!(
                (found - value).abs() < 0.005,
                "{name}: {found} is not {value}"
            );
        }
    }
    assert_eq!(
        (sensors.lines().count(), judged),
        (inventory.sensors.len(), 5)
    );
    let parts = sim.says("17", &["fru", "list"]);
    for part in &inventory.parts {
        let serial = part.serial.as_deref().expect("a serial number");
        assert!(parts.contains(serial), "{parts}");
    }
    assert_eq!(inventory.parts.len(), 3);
    assert!(parts.contains("Product Manufacturer  : Contoso"), "{parts}");
    let log = sim.says("17", &["sel", "list"]);
    assert_eq!(log.lines().count(), inventory.events.len());
    assert!(log.contains("Power cycle"), "{log}");
    assert_eq!(inventory.events[1].message, "power cycle");
    assert_eq!(inventory.identity.guid, Some(GUID));
    // The same bytes that `mc guid` shows, in the order in which IPMI sends them.
    let guid = sim.says("17", &["raw", "6", "0x37"]);
    let bytes: Vec<_> = GUID.iter().map(|byte| format!("{byte:02x}")).collect();
    let sent: Vec<_> = guid.split_whitespace().collect();
    assert_eq!(sent, bytes);
}

#[test]
fn freeipmi_obeys_and_reads_the_simulator() {
    if !need::has(&["ipmipower", "ipmi-chassis", "bmc-info"]) {
        return;
    }
    for suite in SUITES {
        let sim = Sim::start(config(Privilege::Administrator));
        let power = |words: &[&str]| sim.freeipmi("ipmipower", suite, words);
        assert!(power(&["--stat"]).contains(": off"));
        assert!(power(&["--on", "--wait-until-on"]).contains(": ok"));
        assert!(power(&["--stat"]).contains(": on"));
        for (word, act) in [
            ("--cycle", ResetKind::Cycle),
            ("--reset", ResetKind::ForceRestart),
            ("--soft", ResetKind::GracefulShutdown),
        ] {
            assert!(power(&[word]).contains(": ok"), "{word}");
            assert_eq!(sim.host.acts().last(), Some(&act));
        }
        sim.freeipmi("ipmi-chassis", suite, &["--chassis-control", "POWER-UP"]);
        let status = sim.freeipmi("ipmi-chassis", suite, &["--get-status"]);
        assert!(
            status
                .lines()
                .any(|line| line.starts_with("System Power") && line.ends_with(": on")),
            "{status}"
        );
        let about = sim.freeipmi("bmc-info", suite, &["--get-device-id"]);
        assert!(about.contains("IPMI Version          : 2.0"), "{about}");
        sim.says(
            suite,
            &["chassis", "bootdev", "pxe", "options=efiboot,persistent"],
        );
        let flags = sim.freeipmi("ipmi-chassis", suite, &["--get-boot-flags"]);
        assert!(
            flags.contains("Force PXE") && flags.contains("Extensible firmware"),
            "{flags}"
        );
        let sensors = sim.freeipmi(
            "ipmi-sensors",
            suite,
            &["--quiet-cache", "--sdr-cache-recreate"],
        );
        assert!(
            sensors.contains("Inlet Temp") && sensors.contains("12.06"),
            "{sensors}"
        );
        let log = sim.freeipmi("ipmi-sel", suite, &["--quiet-cache"]);
        assert!(log.contains("Power Cycle"), "{log}");
        let parts = sim.freeipmi("ipmi-fru", suite, &["--quiet-cache"]);
        assert!(
            parts.contains("FRU Product Serial Number: SN-0001"),
            "{parts}"
        );
    }
    let mut keyed = config(Privilege::Administrator);
    keyed.kg = crypto::key(KG.as_bytes());
    let sim = Sim::start(keyed);
    for suite in SUITES {
        let said = sim.freeipmi("bmc-info", suite, &["-k", KG, "--get-device-id"]);
        assert!(said.contains("IPMI Version"), "{said}");
    }
}

#[test]
fn consoles_carry_what_is_printed_and_typed() {
    if !need::has(&["ipmitool", "ipmiconsole"]) {
        return;
    }
    for suite in SUITES {
        let sim = Sim::start(config(Privilege::Administrator));
        sim.says(suite, &["power", "on"]);
        let mut terminal = Terminal::run(&mut sim.ipmitool(suite, &["sol", "activate"]));
        terminal.until("SOL Session operational");
        // The client learns that somebody else holds the console.
        let held = sim.runtime.block_on(sim.bmc(None).console());
        assert!(matches!(held, Err(Error::Busy { .. })), "{held:?}");
        let long = "0123456789".repeat(100);
        sim.host.print(format!("{long}: login prompt\r\n"));
        terminal.until(&format!("{long}: login prompt"));
        terminal.keys("root typed this");
        terminal.until("root typed this");
        terminal.keys("\r~.");
        terminal.until("terminated");
        let mut terminal = Terminal::run(&mut sim.ipmiconsole(suite));
        terminal.until("SOL established");
        sim.host.print("login prompt again\r\n");
        terminal.until("login prompt again");
    }
}
