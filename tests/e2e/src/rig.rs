//! An appliance on a switch, and one client on a cable, each in a namespace of its own.
//!
//! It refuses to outlive the test: dropping it ends every process, and the kernel takes the network away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use image_manifest::layout::Layout;
use lab::accel::Accelerator;
use lab::appliance::{Error, Place};
use lab::firmware::Files;
use lab::hosts::HostView;
use lab::namespace::Namespace;
use lab::qemu::{self, Folder, Order, Settings};
use lab::rack;
use lab::{network, poll, process};
use tempfile::TempDir;

use crate::shop;

/// The client's network interface.
pub const CLIENT: &str = "c0";

/// A site with the lab's three hosts and room for many strangers.
pub const SITE: &str = r#"
[site]
name = "e2e"

[[network]]
name = "rack"
subnet = "10.77.0.0/16"
appliance = "10.77.0.1"
mode = "authoritative"
pool = { first = "10.77.16.0", last = "10.77.31.255" }
strangers = "lease"
lease = "10m"
domain = "lab.test"

[role.web]
image = "host"

[[host]]
name = "bios1"
macs = ["52:54:00:77:00:01"]
address = "10.77.0.11"
role = "web"

[[host]]
name = "uefi1"
macs = ["52:54:00:77:00:02"]
address = "10.77.0.12"
role = "web"
"#;

/// An appliance and a client.
#[derive(Debug)]
pub struct Rig {
    /// Where the appliance is.
    pub rack: Namespace,
    /// Where the client is.
    pub client: Namespace,
    /// The appliance's files.
    pub place: Place,
    folder: TempDir,
    appliance: Option<Child>,
    machines: Mutex<Vec<Child>>,
}

impl Rig {
    /// Lays the cables and starts an appliance with a site.
    ///
    /// # Panics
    /// When the machine does not allow it or the appliance does not start.
    #[must_use]
    pub fn new(site: &str) -> Self {
        Self::with_store(site, &shop::state().store())
    }

    /// Does the same with images of a test's own.
    ///
    /// # Panics
    /// When the machine does not allow it or the appliance does not start.
    #[must_use]
    pub fn with_store(site: &str, store: &Path) -> Self {
        Self::with_secrets(site, store, &[])
    }

    /// Does the same with files in the site's directory that only their owner may read.
    ///
    /// # Panics
    /// When the machine does not allow it or the appliance does not start.
    #[must_use]
    pub fn with_secrets(site: &str, store: &Path, secrets: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let rack = Namespace::create(folder.path()).expect("a namespace");
        let client = rack.sibling().expect("a second namespace");
        network::bridge(&rack, "10.77.0.1/16").expect("a switch");
        network::cable(&rack, &client, CLIENT).expect("a cable");
        let place = Place {
            netboot: shop::workspace().binary("netboot"),
            site: folder.path().join("site"),
            data: folder.path().join("data"),
            store: store.to_path_buf(),
            log: folder.path().join("netboot.log"),
        };
        Layout::create(&place.store).expect("a store");
        fs::create_dir_all(&place.site).expect("a site directory");
        fs::write(place.site.join("site.toml"), site).expect("a site file");
        for (name, secret) in secrets {
            write_secret(&place.site.join(name), secret);
        }
        let mut rig = Self {
            rack,
            client,
            place,
            folder,
            appliance: None,
            machines: Mutex::default(),
        };
        rig.serve().unwrap_or_else(|error| panic!("{error}"));
        rig
    }

    /// Starts the appliance.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(&mut self) -> Result<(), Error> {
        self.appliance = Some(self.place.start(&self.rack)?);
        Ok(())
    }

    /// Pulls the appliance's plug: `kill -9`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut appliance = self.appliance.take().expect("the appliance runs");
        appliance.kill().expect("the appliance runs");
        appliance.wait().expect("the appliance ends");
    }

    /// Says whether the appliance runs.
    pub fn is_serving(&mut self) -> bool {
        self.appliance
            .as_mut()
            .is_some_and(|appliance| matches!(appliance.try_wait(), Ok(None)))
    }

    /// Returns a place for a test's own files.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Powers a host on and waits until the appliance's view of it is as asked for.
    ///
    /// # Panics
    /// When the host does not start, or that does not come to be within ten minutes.
    pub fn boot_until(&self, name: &str, mut reached: impl FnMut(&HostView) -> bool) -> HostView {
        let slot = rack::slot(name).expect("the rack has it");
        let files = Files::find();
        let accelerator = Accelerator::probe(&files, self.folder.path());
        let port = network::tap(&self.rack, name).expect("a port of the switch");
        let folder = Folder::of(self.folder.path(), name);
        let settings = Settings {
            accelerator,
            memory: 1024,
            processors: 2,
            files,
        };
        let launch = |program: &str| self.rack.command(program);
        let machine = qemu::start(launch, &slot, &port, Order::Network, &folder, &settings);
        let mut machines = self.machines.lock().expect("no test failed with it");
        machines.push(machine.expect("QEMU starts"));
        drop(machines);
        self.wait_until(name, &mut reached)
    }

    /// Waits until the appliance's view of a host is as asked for.
    ///
    /// # Panics
    /// When that does not come to be within ten minutes.
    pub fn wait_until(&self, name: &str, mut reached: impl FnMut(&HostView) -> bool) -> HostView {
        let mut last = None;
        let found = poll::until(Duration::from_mins(10), || {
            let hosts = self.place.hosts().ok()?;
            let host = hosts.into_iter().find(|host| host.name == name)?;
            let done = reached(&host);
            last = Some(host.clone());
            done.then_some(host)
        });
        found.unwrap_or_else(|| panic!("{last:#?}\n--- console\n{}", self.console(name)))
    }

    /// Returns what a host wrote to its console.
    #[must_use]
    pub fn console(&self, name: &str) -> String {
        let log = Folder::of(self.folder.path(), name).console_log();
        String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
    }

    /// Gives the client's network card another hardware address.
    ///
    /// # Panics
    /// When `ip` fails.
    pub fn set_mac(&self, mac: &str) {
        self.client
            .run(["ip", "link", "set", CLIENT, "address", mac])
            .expect("ip runs");
    }

    /// Gives the client an address by hand, for tools that do not ask for one.
    ///
    /// # Panics
    /// When `ip` fails.
    pub fn set_address(&self, address: &str) {
        self.client
            .run(["ip", "address", "replace", address, "dev", CLIENT])
            .expect("ip runs");
    }

    /// Runs `netboot` as the operator of this rack does.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn netboot(&self, words: &[&str]) -> Output {
        run(self.place.operator(&self.rack).args(words))
    }

    /// Runs a program at the client and returns what became of it.
    ///
    /// # Panics
    /// When it cannot be started or takes longer than a minute.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Output {
        run(self.client.command("timeout").arg("60").args(words))
    }

    /// Sends datagrams from the client, one a file.
    ///
    /// # Panics
    /// When they cannot be sent.
    pub fn send(&self, port: u16, datagrams: &[Vec<u8>]) {
        let script = format!(r#"for f in "$@"; do cat "$f" > /dev/udp/10.77.0.1/{port}; done"#);
        let mut bash = self.client.command("bash");
        bash.args(["-c", &script, "bash"]);
        for (number, datagram) in datagrams.iter().enumerate() {
            let path = self.path(&format!("datagram-{port}-{number}"));
            fs::write(&path, datagram).expect("a datagram is written");
            bash.arg(path);
        }
        let output = run(&mut bash);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Reads the appliance's counters.
    #[must_use]
    pub fn metrics(&self) -> String {
        let output = run(self
            .rack
            .command("curl")
            .args(["-sf", "http://127.0.0.1:9667/metrics"]));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the counters whose line holds all these words add up to at least `least`.
    ///
    /// # Panics
    /// When they do not within ten seconds.
    pub fn await_count(&self, words: &[&str], least: f64) {
        let counted = poll::until(Duration::from_secs(10), || {
            let metrics = self.metrics();
            let lines = metrics.lines().filter(|line| !line.starts_with('#'));
            let lines = lines.filter(|line| words.iter().all(|word| line.contains(word)));
            let sum: f64 = lines
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum();
            (sum >= least).then_some(())
        });
        assert!(
            counted.is_some(),
            "no {least} of {words:?} in\n{}",
            self.metrics()
        );
    }

    /// Returns what the appliance logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.place.log).unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut appliance) = self.appliance.take() {
            appliance.kill().ok();
            appliance.wait().ok();
        }
        for machine in self.machines.get_mut().into_iter().flatten() {
            machine.kill().ok();
            machine.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- netboot said\n{}", self.log());
        }
        // Clients that put themselves into the background carry the mark too.
        for process in process::marked(self.folder.path()) {
            process.end();
        }
    }
}

fn write_secret(path: &Path, secret: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = path.parent().expect("a file in a directory");
    fs::create_dir_all(folder).expect("a directory of secrets");
    fs::write(path, secret).expect("a secret");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a secret of its owner");
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn run(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

/// Checks that a command succeeded.
///
/// # Panics
/// When it did not; with what it said.
pub fn check(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{printed}\n{said}",
        output.status
    );
}

/// Returns what a command printed, checking that it succeeded.
///
/// # Panics
/// When it did not; with what it said.
#[must_use]
pub fn printed(output: &Output) -> String {
    check(output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes an executable script.
///
/// # Panics
/// When it cannot be written.
pub fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).expect("a script is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a script is executable");
}
