//! Our client against `ipmi_sim`, and against the simulated BMC.

use std::fs::{self, File};
use std::net::UdpSocket as Port;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{need, rig};
use ipmi::crypto::{self, Suite};
use ipmi::sim::Fault;
use ipmi::sim::ipmi::Privilege;
use ipmi::{
    Acted, Bmc, Error, Expected, Intent, Off, OperationId, Persistence, PowerState, ResetKind,
    journal,
};
use tokio::runtime::Runtime;

use crate::sim::{DEADLINE, KG, Sim, bmc, config, network};

#[test]
fn our_console_loses_nothing_on_a_bad_line() {
    let sim = Sim::start(config(Privilege::Administrator));
    sim.runtime.block_on(async {
        let bmc = sim.bmc(None);
        let expected = Sim::expected();
        let journal = journal::Memory::default();
        bmc.execute(&expected, &Intent::EnsureOn, &journal, DEADLINE)
            .await
            .expect("on");
        let mut console = bmc.console().await.expect("a console");
        sim.faults.set(Fault::Drop(20));
        sim.faults.set(Fault::Duplicate);
        let typed = "0123456789,abcdefghij;".repeat(15);
        for part in typed.as_bytes().chunks(7) {
            let part = part.to_vec().into();
            console.input.send(part).await.expect("the console is open");
        }
        // The host echoes.
        let mut shown = Vec::new();
        while shown.len() < typed.len() {
            let more = tokio::time::timeout(DEADLINE, console.output.recv()).await;
            shown.extend(more.expect("in time").expect("the console is open"));
        }
        assert_eq!(String::from_utf8_lossy(&shown), typed);
        sim.faults.clear();
        drop(console);
        // Whoever drops a console frees it.
        let again = tokio::time::timeout(DEADLINE, async {
            loop {
                match bmc.console().await {
                    Err(Error::Busy { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
                    other => break other,
                }
            }
        });
        again.await.expect("in time").expect("a console");
    });
}

#[test]
fn our_client_is_sure_of_host_key_and_effect() {
    let mut keyed = config(Privilege::Operator);
    keyed.kg = crypto::key(KG.as_bytes());
    keyed.suites = vec![Suite::Seventeen];
    let sim = Sim::start(keyed);
    let journal = journal::Memory::default();
    let execute = |bmc: &Bmc, expected: &Expected, intent: Intent, deadline| {
        sim.runtime
            .block_on(bmc.execute(expected, &intent, &journal, deadline))
    };
    let short = Duration::from_secs(4);
    let expected = Sim::expected();
    let keyless = execute(&sim.bmc(None), &expected, Intent::EnsureOn, short);
    assert!(matches!(keyless, Err(Error::Refused { .. })), "{keyless:?}");
    let bmc = sim.bmc(Some(KG));
    let other = Expected {
        serial: Some("SN-0002".to_owned()),
        ..Expected::default()
    };
    let wrong = execute(&bmc, &other, Intent::EnsureOn, DEADLINE);
    assert!(matches!(wrong, Err(Error::WrongHost { .. })), "{wrong:?}");
    assert!(sim.host.acts().is_empty());

    let boot = network(Persistence::Once);
    sim.faults.set(Fault::LiesAboutBoot);
    let lied = execute(&bmc, &expected, Intent::Boot(boot.clone()), short);
    assert!(matches!(lied, Err(Error::NotVerified { .. })), "{lied:?}");
    sim.faults.clear();
    // Of eight handshakes one gets through.
    let patient = Duration::from_mins(2);
    sim.faults.set(Fault::Drop(30));
    let done = execute(&bmc, &expected, Intent::Boot(boot.clone()), patient).expect("set");
    assert_eq!(done.boot, Some(boot.clone()));
    let done = execute(&bmc, &expected, Intent::EnsureOn, patient).expect("on");
    assert_eq!((done.power, done.acted), (PowerState::On, Acted::Sent));
    let done = execute(&bmc, &expected, Intent::EnsureOn, patient).expect("on");
    assert_eq!(done.acted, Acted::Nothing);
    assert_eq!(sim.host.acts(), [ResetKind::On]);
    assert_eq!(sim.host.boots(), [Some(boot)]);
    sim.faults.clear();
    sim.faults.set(Fault::LiesAboutPower);
    let lied = execute(&bmc, &expected, Intent::EnsureOff(Off::Forced), short);
    assert!(lied.is_err(), "{lied:?}");
    assert_eq!(sim.host.acts(), [ResetKind::On]);
}

/// What `ipmi_sim` is told about its BMC.
const IPMI_SIM: &str = r#"name "peer"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 @PORT@
    priv_limit admin
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "@DIR@/chassis.sh 0x20"
  user 1 true "" "test" user 10 none md2 md5 straight
  user 2 true "operator" "canary-16-bytes!" admin 10 none md2 md5 straight
"#;
const IPMI_SIM_COMMANDS: &str = "mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
";
/// A host that is two files, and a third that remembers what was done to it.
const CHASSIS: &str = r#"#!/bin/sh
cd @DIR@ || exit 1
shift
how=$1
shift
while [ $# -gt 0 ]; do
  if [ "$how" = get ]; then
    echo "$1: $(cat "$1")"
    shift
  else
    echo "$1 $2" >> done
    case $1 in
      power|boot) echo "$2" > "$1" ;;
      shutdown) echo 0 > power ;;
    esac
    shift 2
  fi
done
"#;

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts `ipmi_sim`, and returns its port.
fn ipmi_sim(folder: &Path) -> (Running, u16) {
    let free = Port::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let directory = folder.display().to_string();
    let fill = |text: &str| {
        text.replace("@DIR@", &directory)
            .replace("@PORT@", &port.to_string())
    };
    rig::script(&folder.join("chassis.sh"), &fill(CHASSIS));
    for (name, text) in [
        ("lan.conf", fill(IPMI_SIM)),
        ("commands", IPMI_SIM_COMMANDS.to_owned()),
        ("power", "0\n".to_owned()),
        ("boot", "none\n".to_owned()),
        ("done", String::new()),
    ] {
        fs::write(folder.join(name), text).expect("a file");
    }
    fs::create_dir(folder.join("state")).expect("a directory");
    let log = File::create(folder.join("log")).expect("a file");
    let child = Command::new("ipmi_sim")
        .current_dir(folder)
        .args(["-c", "lan.conf", "-f", "commands", "-s", "state", "-n"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("ipmi_sim starts");
    (Running(child), port)
}

#[test]
fn our_client_switches_ipmi_sim() {
    if !need::has(&["ipmi_sim"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let (_running, port) = ipmi_sim(folder.path());
    let runtime = Runtime::new().expect("a runtime");
    let bmc = bmc(port, "canary-16-bytes!", None);
    let seen = runtime
        .block_on(bmc.read(DEADLINE))
        .expect("ipmi_sim answers");
    assert_eq!(seen.power, PowerState::Off);
    let expected = Expected {
        guid: seen.identity.guid,
        ..Expected::default()
    };
    assert!(expected.guid.is_some());
    let journal = journal::Memory::default();
    let execute = |intent: &Intent, deadline| {
        runtime.block_on(bmc.execute(&expected, intent, &journal, deadline))
    };
    let cycle = Intent::CycleOnce(OperationId("cycle-1".to_owned()));
    let cases = [
        (Intent::EnsureOn, PowerState::On, Acted::Sent),
        (Intent::EnsureOn, PowerState::On, Acted::Nothing),
        (cycle.clone(), PowerState::On, Acted::Sent),
        (cycle, PowerState::On, Acted::Nothing),
        (Intent::EnsureOff(Off::Forced), PowerState::Off, Acted::Sent),
    ];
    for (intent, power, acted) in cases {
        let done = execute(&intent, DEADLINE).unwrap_or_else(|error| panic!("{intent}: {error}"));
        assert_eq!((done.power, done.acted), (power, acted), "{intent}");
    }
    // ipmi_sim sets the device but forgets the flags, and so is not believed.
    let lied = execute(
        &Intent::Boot(network(Persistence::Once)),
        Duration::from_secs(5),
    );
    assert!(matches!(lied, Err(Error::NotVerified { .. })), "{lied:?}");
    let done = fs::read_to_string(folder.path().join("done")).expect("a file");
    let power: Vec<_> = done
        .lines()
        .filter(|line| line.starts_with("power"))
        .collect();
    assert_eq!(
        power,
        ["power 1", "power 0", "power 1", "power 0"],
        "{done}"
    );
    assert!(done.contains("boot pxe"), "{done}");
    // It has room for 63 sessions, and frees one that nobody closes after a minute.
    for _ in 0..80 {
        runtime
            .block_on(bmc.power(DEADLINE))
            .expect("a session is free");
    }
}
