//! A host that is not there: a simulated BMC of a host whose "operating system" is a few commands of
//! `udhcpc` and `curl`. It boots in a second, and everything it does can be looked at and cut short.
//!
//! It refuses to decide when the appliance dies: each step waits until the test says how it goes on.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use image_manifest::{Report, Stage};
use ipmi::sim::{self, Board, Chassis, Faults, Moment, Request, Verdict};
use ipmi::{BootOverride, Identity, PowerState, ResetKind};
use lab::namespace::Namespace;
use nix::sched::{CloneFlags, setns};

use crate::rig::{CLIENT, Rig};
use crate::shop;

/// The BMC's account, and the password that the test run is searched for at its end.
pub const USER: &str = "operator";
/// See [`USER`].
pub const PASSWORD: &str = "canary-7f3a90c1d";

/// A site with one host whose power the ghost is, and nothing that takes longer than it must.
pub const SITE: &str = r#"
[site]
name = "ghost"

[[network]]
name = "rack"
subnet = "10.77.0.0/16"
appliance = "10.77.0.1"
mode = "authoritative"

[role.web]
image = "host"

[role.web.deploy]
deadline = "30s"
shutdown = "0s"
max-rollbacks = 1

[secret.bmc]
file = "secrets/bmc"

[[host]]
name = "bios1"
macs = ["52:54:00:77:00:01"]
address = "10.77.0.11"
role = "web"
bmc = { protocol = "ipmi", address = "127.0.0.1", user = "operator", password = "bmc", firmware = "bios" }
"#;

const MAC: &str = "52:54:00:77:00:01";
/// The ghost's address.
pub const ADDRESS: &str = "10.77.0.11";

/// Something that the ghost or its BMC is about to do, or has done.
#[derive(Debug)]
pub struct Event {
    /// What.
    pub what: String,
    /// Whether it was done already.
    pub moment: Moment,
    answer: Sender<Verdict>,
}

impl Event {
    /// Lets it go on.
    pub fn proceed(self) {
        // The other side is gone when its request was given up.
        self.answer.send(Verdict::Proceed).ok();
    }

    /// Lets nothing of it be heard; before it was done, nothing is done either.
    pub fn silence(self) {
        self.answer.send(Verdict::Silence).ok();
    }
}

/// A ghost and its BMC, inside the namespaces of a rig.
#[derive(Debug)]
pub struct Ghost {
    /// How its BMC misbehaves.
    pub faults: Arc<Faults>,
    /// What happens, in order; each waits for an answer.
    pub events: Receiver<Event>,
    /// What proves which boot it is in.
    pub papers: Shown,
    chassis: Arc<Body>,
}

/// The papers of the newest boot, once it has some.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<Option<Papers>>>);

impl Shown {
    /// Returns them.
    ///
    /// # Panics
    /// When no token was exchanged yet.
    #[must_use]
    pub fn newest(&self) -> Papers {
        let papers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        papers.clone().expect("a token was exchanged")
    }
}

/// What proves which boot the ghost is in.
#[derive(Clone, Debug)]
pub struct Papers {
    /// The boot's routes, as the host sees them.
    pub boots: String,
    /// Its one-time token.
    pub token: String,
    /// What the token was exchanged with.
    pub nonce: String,
    /// What it was exchanged for.
    pub credential: String,
    /// The digest of its running tree.
    pub tree: image_manifest::Digest,
}

/// The power of the ghost: memory, and a boot whenever it comes on.
#[derive(Debug)]
struct Body {
    memory: sim::Memory,
    system: System,
}

/// What runs on the ghost while it has power.
#[derive(Clone, Debug)]
struct System {
    wire: Namespace,
    authority: PathBuf,
    folder: PathBuf,
    trees: Vec<(String, image_manifest::Digest)>,
    events: Sender<Event>,
    /// Whether it reports itself well.
    manner: Arc<Mutex<Manner>>,
    papers: Shown,
}

/// How the ghost behaves once it has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It boots and says that it is well.
    Well,
    /// It does not start at all.
    Dead,
}

impl Ghost {
    /// Brings a ghost to life behind the client's cable of a rig, without power.
    ///
    /// # Panics
    /// When the namespaces cannot be entered: that takes root.
    #[must_use]
    pub fn rack(rig: &Rig, images: &[&str]) -> Self {
        rig.set_mac(MAC);
        let (sender, events) = channel();
        let trees = images.iter().map(|name| {
            let manifest = shop::manifest(&rig.place.store, name);
            ((*name).to_owned(), manifest.tree)
        });
        let system = System {
            wire: rig.client.clone(),
            authority: rig.place.data.join("ca.pem"),
            folder: rig.path("ghost"),
            trees: trees.collect(),
            events: sender.clone(),
            manner: Arc::new(Mutex::new(Manner::Well)),
            papers: Shown::default(),
        };
        std::fs::create_dir_all(&system.folder).expect("a directory");
        let papers = system.papers.clone();
        let identity = Identity {
            guid: Some([7; 16]),
            serial: Some("GHOST".to_owned()),
            ..Identity::default()
        };
        let chassis = Arc::new(Body {
            memory: sim::Memory::new(identity),
            system,
        });
        let faults = Arc::new(Faults::default());
        let hook = move |request: &Request| {
            let what = request.what.clone();
            ask(&sender, what, request.moment)
        };
        let board = Board::new(Arc::<Body>::clone(&chassis))
            .with_faults(Arc::clone(&faults))
            .with_hook(Arc::new(hook));
        serve(&rig.rack, board);
        Self {
            faults,
            events,
            papers,
            chassis,
        }
    }

    /// Returns every change of power so far.
    #[must_use]
    pub fn acts(&self) -> Vec<ResetKind> {
        self.chassis.memory.acts()
    }

    /// Returns whether it has power.
    #[must_use]
    pub fn power(&self) -> PowerState {
        self.chassis.memory.power()
    }

    /// Changes how it behaves from its next start on.
    pub fn behave(&self, manner: Manner) {
        let now = &self.chassis.system.manner;
        *now.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }
}

/// Tells the test of something and waits for what it says.
fn ask(events: &Sender<Event>, what: String, moment: Moment) -> Verdict {
    let (answer, verdict) = channel();
    let event = Event {
        what,
        moment,
        answer,
    };
    if events.send(event).is_err() {
        return Verdict::Silence;
    }
    verdict.recv().unwrap_or(Verdict::Silence)
}

/// Serves a BMC on the loopback of the rack's namespace, for as long as the test process lives.
fn serve(rack: &Namespace, board: Board) {
    let namespace = File::open(format!("/proc/{}/ns/net", rack.holder.pid)).expect("a namespace");
    let (ready, wait) = channel();
    thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async move {
            let address = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 623);
            let socket = tokio::net::UdpSocket::bind(address).await.expect("a port");
            let config = sim::ipmi::Config::new(vec![sim::ipmi::User {
                name: USER.into(),
                password: PASSWORD.into(),
                limit: sim::ipmi::Privilege::Operator,
            }]);
            ready.send(()).expect("the test waits");
            sim::ipmi::serve(socket, board, config).await.ok();
        });
    });
    wait.recv().expect("the bmc is served");
}

impl Chassis for Body {
    fn power(&self) -> PowerState {
        self.memory.power()
    }

    fn act(&self, kind: ResetKind) -> Result<(), sim::Refused> {
        let before = self.memory.power();
        self.memory.act(kind)?;
        let started = match kind {
            ResetKind::On => before == PowerState::Off,
            ResetKind::Cycle | ResetKind::ForceRestart => before == PowerState::On,
            ResetKind::ForceOff | ResetKind::GracefulShutdown | ResetKind::Nmi => false,
        };
        if started {
            let system = self.system.clone();
            thread::spawn(move || system.run());
        }
        Ok(())
    }

    fn boot_override(&self) -> Option<BootOverride> {
        self.memory.boot_override()
    }

    fn set_boot_override(&self, wanted: Option<BootOverride>) -> Result<(), sim::Refused> {
        self.memory.set_boot_override(wanted)
    }

    fn identity(&self) -> Identity {
        self.memory.identity()
    }

    fn console(&self) -> tokio::sync::broadcast::Receiver<bytes::Bytes> {
        self.memory.console()
    }

    fn type_in(&self, keys: &[u8]) {
        self.memory.type_in(keys);
    }
}

/// How often a step is tried before the ghost gives up, a fifth of a second apart.
const TRIES: u32 = 100;

impl System {
    fn run(&self) {
        let manner = self.manner.lock().map_or(Manner::Well, |manner| *manner);
        if manner == Manner::Dead {
            return;
        }
        // A ghost that gives up is one that is never heard of, which the test sees.
        self.boot();
    }

    fn boot(&self) -> Option<()> {
        self.step("dhcp", || self.dhcp())?;
        let script = self.step("script", || self.script())?;
        let word = |name: &str| {
            let at = script.find(&format!(" {name}="))? + name.len() + 2;
            script[at..].split_whitespace().next().map(str::to_owned)
        };
        let (boot, token, url) = (
            word("firstboot.boot")?,
            word("firstboot.token")?,
            word("firstboot.tls")?,
        );
        let image = script.lines().nth(1)?.rsplit(' ').next()?.to_owned();
        let (_, tree) = self.trees.iter().find(|(name, _)| *name == image)?;
        let boots = format!("{url}/v1/boots/{boot}");
        let nonce = format!("nonce-{boot}");
        let answer = self.step("credential", || {
            let body = serde_json::json!({"nonce": nonce}).to_string();
            self.post(&format!("{boots}/credential"), &token, &body)
        })?;
        let answer: serde_json::Value = serde_json::from_str(&answer).ok()?;
        let credential = answer["credential"].as_str()?.to_owned();
        let papers = Papers {
            boots: boots.clone(),
            token,
            nonce,
            credential: credential.clone(),
            tree: *tree,
        };
        *self.papers.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(papers);
        let stages = [
            Stage::AgentStarted { tree: *tree },
            Stage::Healthy { tree: *tree },
        ];
        for (stage, sequence) in stages.into_iter().zip(1..) {
            let report = Report {
                sequence,
                uptime_ms: 1000 * sequence,
                stage,
            };
            let body = serde_json::to_string(&report).ok()?;
            self.step("report", || {
                self.post(&format!("{boots}/reports"), &credential, &body)
            })?;
        }
        Some(())
    }

    /// Does one step until it is done; the test is asked before and after.
    fn step<T>(&self, what: &str, mut act: impl FnMut() -> Option<T>) -> Option<T> {
        ask(&self.events, what.to_owned(), Moment::Before);
        for _ in 0..TRIES {
            if let Some(done) = act() {
                ask(&self.events, what.to_owned(), Moment::After);
                return Some(done);
            }
            thread::sleep(Duration::from_millis(200));
        }
        None
    }

    fn dhcp(&self) -> Option<()> {
        let configure = self.folder.join("configure.sh");
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = bound ] && ip address replace \"$ip/$mask\" dev {CLIENT}\nexit 0\n"
        );
        crate::rig::script(&configure, &text);
        let mut udhcpc = self.wire.command("udhcpc");
        udhcpc.args(["-i", CLIENT, "-f", "-n", "-q", "-t", "3", "-T", "1"]);
        // As iPXE in a BIOS does: architecture 0, user class iPXE.
        udhcpc.args(["-V", "PXEClient:Arch:00000:UNDI:002001"]);
        udhcpc.args(["-x", "0x5d:0000", "-x", "0x4d:69505845"]);
        udhcpc.arg("-s").arg(configure);
        crate::rig::run(&mut udhcpc).status.success().then_some(())
    }

    fn script(&self) -> Option<String> {
        let url = format!("http://10.77.0.1/ipxe/{}", MAC.replace(':', "-"));
        let script = self.curl(&[&url])?;
        script.contains("firstboot.token").then_some(script)
    }

    fn post(&self, url: &str, token: &str, body: &str) -> Option<String> {
        let authority = self.authority.display().to_string();
        // What is secret stands in no argument, where others could read it.
        let (header, sent) = (self.folder.join("header"), self.folder.join("body"));
        std::fs::write(&header, format!("Authorization: Bearer {token}\n")).ok()?;
        std::fs::write(&sent, body).ok()?;
        let (header, sent) = (
            format!("@{}", header.display()),
            format!("@{}", sent.display()),
        );
        self.curl(&["--cacert", &authority, "-H", &header, "-d", &sent, url])
    }

    fn curl(&self, words: &[&str]) -> Option<String> {
        let mut curl: Command = self.wire.command("curl");
        curl.args(["-sS", "-f", "--max-time", "5", "--interface", ADDRESS]);
        curl.args(words);
        let output = crate::rig::run(&mut curl);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }
}
