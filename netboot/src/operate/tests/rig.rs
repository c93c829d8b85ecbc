//! A host in memory with a BMC on loopback, a store that can be killed, and executors on it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use image_manifest::layout::Layout;
use image_manifest::{Artifact, Digest, Kernel, Manifest, Role, Stage};
use ipmi::sim::ipmi::{Config, Privilege, User};
use ipmi::sim::{Board, Memory as Chassis, Moment, Request, Verdict};
use ipmi::{Identity, ResetKind};
use netboot_core::site::{ImageRef, Parameters, Site, SourceFile};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::super::clock::Clock;
use super::super::{
    Began, DeployOrder, GenerationView, Limits, Operator, Order, Reported, Run, StateView,
    Surroundings, Who,
};
use crate::audit::{Chain, Log};
use crate::images;
use crate::secrets::Secrets;
use crate::store::{Change, Memory, Store, StoreError, Stored, Writer};

/// How much faster time passes: a BMC's 75 s to settle are less than one.
const SPEED: u32 = 100;

pub(super) const PASSWORD: &str = "canary-of-a-bmc";

/// Where the appliance is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kill {
    Never,
    BeforeCommit(usize),
    AfterCommit(usize),
    BeforeRequest(usize),
    AfterRequest(usize),
}

/// What was reached so far, and where it ends.
#[derive(Debug)]
pub(super) struct Fate {
    pub(super) kill: Mutex<Kill>,
    pub(super) commits: AtomicUsize,
    pub(super) requests: AtomicUsize,
    pub(super) killed: Notify,
}

impl Fate {
    fn new() -> Self {
        Self {
            kill: Mutex::new(Kill::Never),
            commits: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            killed: Notify::new(),
        }
    }

    fn is(&self, kill: Kill) -> bool {
        let hit = *self.kill.lock().unwrap() == kill;
        if hit {
            self.killed.notify_one();
        }
        hit
    }

    /// Begins to count.
    pub(super) fn arm(&self, kill: Kill) {
        self.commits.store(0, Ordering::SeqCst);
        self.requests.store(0, Ordering::SeqCst);
        *self.kill.lock().unwrap() = kill;
    }
}

/// A store whose process is killed before or after one of its commits.
#[derive(Debug)]
struct Mortal {
    store: Memory,
    fate: Arc<Fate>,
}

impl Store for Mortal {
    async fn load(&mut self) -> Result<Stored, StoreError> {
        self.store.load().await
    }

    async fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let number = self.fate.commits.fetch_add(1, Ordering::SeqCst);
        if self.fate.is(Kill::BeforeCommit(number)) {
            std::future::pending::<()>().await;
        }
        let done = self.store.commit(changes).await;
        if self.fate.is(Kill::AfterCommit(number)) {
            std::future::pending::<()>().await;
        }
        done
    }

    async fn close(self) -> Result<(), StoreError> {
        self.store.close().await
    }
}

/// A host with its BMC, a site, images, and what the appliance remembers.
pub(super) struct Rig {
    pub(super) data: TempDir,
    pub(super) chassis: Arc<Chassis>,
    pub(super) board: Board,
    pub(super) store: Memory,
    pub(super) fate: Arc<Fate>,
    pub(super) images: Layout,
    pub(super) port: u16,
    bmc: JoinHandle<()>,
}

/// An appliance on it.
pub(super) struct Running {
    pub(super) operator: Operator,
    executor: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Running {
    /// Ends it as `kill -9` does.
    pub(super) fn kill(self) {
        self.executor.abort();
        self.writer.abort();
    }
}

pub(super) fn identity(serial: &str) -> Identity {
    let mut guid = [7; 16];
    for (byte, letter) in guid.iter_mut().zip(serial.bytes()) {
        *byte = letter;
    }
    Identity {
        guid: Some(guid),
        serial: Some(serial.to_owned()),
        ..Identity::default()
    }
}

impl Rig {
    pub(super) async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let images = Layout::create(data.path().join("images")).unwrap();
        for name in ["one", "two", "three"] {
            publish(&images, name);
        }
        let secret = data.path().join("bmc");
        std::fs::write(&secret, PASSWORD).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let fate = Arc::new(Fate::new());
        let chassis = Arc::new(Chassis::new(identity("S1")).running());
        let hook = Arc::clone(&fate);
        let board = Board::new(Arc::<Chassis>::clone(&chassis)).with_hook(Arc::new(
            move |request: &Request| {
                let kill = match request.moment {
                    Moment::Before => {
                        Kill::BeforeRequest(hook.requests.fetch_add(1, Ordering::SeqCst))
                    }
                    Moment::After => {
                        let number = hook.requests.load(Ordering::SeqCst);
                        Kill::AfterRequest(number.saturating_sub(1))
                    }
                };
                if hook.is(kill) {
                    Verdict::Silence
                } else {
                    Verdict::Proceed
                }
            },
        ));
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let operator = User {
            name: "operator".into(),
            password: PASSWORD.into(),
            limit: Privilege::Operator,
        };
        let config = Config::new(vec![operator]);
        let serving = ipmi::sim::ipmi::serve(socket, board.clone(), config);
        let bmc = tokio::spawn(async move { drop(serving.await) });
        Self {
            data,
            chassis,
            board,
            store: Memory::default(),
            fate,
            images,
            port,
            bmc,
        }
    }

    pub(super) fn site(&self, more: &str) -> Arc<Site> {
        let port = self.port;
        site(&format!(
            "[[host]]\nname = \"web1\"\nmacs = [\"52:54:00:00:00:01\"]\naddress = \"10.77.0.11\"\nrole = \"web\"\n\
             [host.bmc]\nprotocol = \"ipmi\"\naddress = \"127.0.0.1:{port}\"\nuser = \"operator\"\npassword = \"bmc\"\n{more}"
        ))
    }

    pub(super) async fn start(&self) -> Running {
        self.start_with(self.site("")).await
    }

    pub(super) async fn start_with(&self, site: Arc<Site>) -> Running {
        self.start_at(Clock::fast(SPEED), site).await
    }

    pub(super) async fn start_at(&self, clock: Clock, site: Arc<Site>) -> Running {
        let mut store = Mortal {
            store: self.store.clone(),
            fate: Arc::clone(&self.fate),
        };
        let stored = store.load().await.unwrap();
        let (writer, task) = Writer::spawn(store, Chain::after(&stored.newest));
        let surroundings = Surroundings {
            site,
            secrets: Arc::new(Secrets::beside(self.data.path())),
            images: self.images.clone(),
            ledger: Arc::new(Log::new(writer.clone())),
            writer,
            data: self.data.path().to_owned(),
        };
        let started = Operator::start_at(clock, surroundings, &stored, &mut Registry::default());
        let (operator, executor) = started.unwrap();
        Running {
            operator,
            executor,
            writer: task,
        }
    }

    /// Plays the host: whenever it is switched on it boots what it is told, and reports.
    ///
    /// It returns when the host has reported itself well on an image, or when its appliance is
    /// gone, and goes on where it was with the next one.
    pub(super) async fn live(&self, operator: &Operator, host: &mut Life) {
        loop {
            let boots = self.chassis.boots().len();
            if host.boots != boots {
                host.boots = boots;
                host.boot = None;
            }
            let on = ipmi::sim::Chassis::power(&*self.chassis) == ipmi::PowerState::On;
            if on {
                host.step(self, operator).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The BMC answers no more.
    pub(super) fn silence(&self) {
        self.bmc.abort();
    }

    pub(super) fn offs(&self) -> usize {
        let off =
            |kind: &&ResetKind| matches!(kind, ResetKind::ForceOff | ResetKind::GracefulShutdown);
        self.chassis.acts().iter().filter(off).count()
    }

    pub(super) fn ons(&self) -> usize {
        let acts = self.chassis.acts();
        acts.iter().filter(|kind| **kind == ResetKind::On).count()
    }

    /// Tells what a host is: `one`, `two`, … by tree.
    pub(super) fn tree(name: &str) -> Digest {
        Digest::of(format!("tree of {name}").as_bytes())
    }
}

/// A host between two looks at it.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// How often it was started.
    boots: usize,
    /// Boots that were begun, to name them.
    begun: usize,
    /// What it runs: id of the boot and tree.
    boot: Option<(String, Digest)>,
    /// Whether its report was taken: it is not made again then.
    heard: bool,
    /// Images on which it never reports.
    pub(super) mute: Vec<&'static str>,
}

impl Life {
    async fn step(&mut self, rig: &Rig, operator: &Operator) {
        let host: Arc<str> = "web1".into();
        if self.boot.is_none() && self.boots > 0 {
            self.begun += 1;
            let boot = format!("boot{}", self.begun);
            let Ok(chosen) = operator.choose(&host).await else {
                return;
            };
            let adopt = chosen.is_none().then(|| {
                let image = images::resolve(&rig.images, &reference("one")).unwrap();
                (images::identity(&image), Parameters::default())
            });
            let began = Began {
                host: Arc::clone(&host),
                boot: boot.clone(),
                generation: chosen.as_ref().map_or(0, |chosen| chosen.generation),
                adopt,
            };
            if let Ok(chosen) = operator.began(began).await {
                self.boot = Some((boot, chosen.image.tree));
                self.heard = false;
            }
        }
        if self.heard {
            return;
        }
        if let Some((boot, tree)) = &self.boot
            && !self.mute.iter().any(|mute| Rig::tree(mute) == *tree)
        {
            let reported = Reported {
                host,
                boot: boot.clone(),
                stage: Stage::Healthy { tree: *tree },
                changes: Vec::new(),
            };
            self.heard = operator.reported(reported).await.is_ok();
        }
    }
}

pub(super) fn reference(name: &str) -> ImageRef {
    ImageRef {
        name: name.into(),
        digest: None,
    }
}

pub(super) fn site(hosts: &str) -> Arc<Site> {
    let text = format!(
        "[site]\nname = \"lab\"\n[[network]]\nname = \"rack\"\nsubnet = \"10.77.0.0/24\"\nappliance = \"10.77.0.1\"\n\
         mode = \"authoritative\"\n[secret.bmc]\nfile = \"bmc\"\n[role.web]\nimage = \"one\"\n\
         [role.web.deploy]\ndeadline = \"2m\"\nshutdown = \"0s\"\n{hosts}"
    );
    let file = SourceFile {
        path: "site.toml".into(),
        text: text.into(),
    };
    Arc::new(Site::check(&[file]).unwrap())
}

fn publish(layout: &Layout, name: &str) {
    let artifact = |role, file: &str| {
        let mut ingest = layout.ingest().unwrap();
        ingest
            .append(format!("{file} of {name}").as_bytes())
            .unwrap();
        let (digest, size) = ingest.finish().unwrap();
        Artifact {
            role,
            name: file.to_owned(),
            media_type: "application/octet-stream".to_owned(),
            digest,
            size,
        }
    };
    let any = Digest::of(b"any");
    let manifest = Manifest {
        schema: Manifest::SCHEMA,
        name: name.to_owned(),
        architecture: "amd64".to_owned(),
        distribution: "debian/trixie".to_owned(),
        tree: Rig::tree(name),
        lock: any,
        inputs: any,
        source_date: 0,
        builder: "test".to_owned(),
        kernel: Some(Kernel {
            release: "6.12".to_owned(),
            command_line: String::new(),
        }),
        disk: None,
        forms: Vec::new(),
        layers: Vec::new(),
        artifacts: vec![
            artifact(Role::Kernel, "kernel"),
            artifact(Role::Initrd, "initrd"),
            artifact(Role::Rootfs, "rootfs"),
        ],
    };
    layout.publish(&manifest).unwrap();
}

pub(super) fn order() -> Order {
    Order {
        who: Who {
            name: "eve".to_owned(),
            role: "operator".to_owned(),
            peer: None,
            scope: None,
        },
        run: Run::Real,
        limits: Limits::Held,
        key: None,
    }
}

pub(super) fn deploy(image: &str) -> DeployOrder {
    DeployOrder {
        hosts: "web1".parse().unwrap(),
        image: Some(image.to_owned()),
        digest: None,
        again: false,
    }
}

pub(super) async fn state(operator: &Operator) -> StateView {
    let states = operator.states().await.unwrap();
    states.into_iter().next().unwrap().1
}

pub(super) async fn generations(operator: &Operator) -> Vec<GenerationView> {
    operator.history(&"web1".into()).await.unwrap()
}

/// Waits until a host is as it should be; everything ends within a minute.
pub(super) async fn until(operator: &Operator, what: &str, is: impl Fn(&StateView) -> bool) {
    let wait = async {
        loop {
            let state = state(operator).await;
            if is(&state) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(Duration::from_mins(1), wait)
        .await
        .is_err()
    {
        panic!("{what}: {:?}", state(operator).await);
    }
}

/// Searches everything that is on disk or was stored for a password.
pub(super) fn leaks(store: &Memory, directory: &Path) -> bool {
    let stored = format!("{:?}", store.changes());
    let database = std::fs::read(directory.join("netboot.db")).unwrap_or_default();
    let database = String::from_utf8_lossy(&database);
    stored.contains(PASSWORD) || database.contains(PASSWORD)
}
