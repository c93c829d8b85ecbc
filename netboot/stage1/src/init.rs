//! Process 1 of the initrd: from the kernel's first program to the image's own init.
//!
//! It is a straight line of steps. Each that fails ends the boot with its reason on the console and
//! at the appliance, and a reboot; none is skipped, and nothing is booted that is not the image this
//! initrd was built with.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddrV4;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use image_manifest::{BootImage, Digest, Exchange, HostConfig, HostSecrets, Stage, Token};
use nix::mount::MsFlags;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::stat::{Mode, umask};

use crate::backoff::Backoff;
use crate::cmdline::{Parameters, UnusableCommandLine, Way};
use crate::coldplug::Coldplug;
use crate::errors::chain;
use crate::handover::AgentConfig;
use crate::memory::mebibytes;
use crate::modules::{Index, MalformedIndex};
use crate::report::Reporter;
use crate::session::{self, Appliance, Session};
use crate::verity::RootHash;
use crate::{
    cmdline, console, disk, fetch, handover, host, link, memory, modules, rootfs, secrets,
    signature, uptime,
};

/// What stage1 itself needs; the network's drivers are found by modalias.
const NEEDED: [&str; 3] = ["loop", "squashfs", "overlay"];
/// The appliance may be restarted or replaced during a boot.
const PATIENCE: Duration = Duration::from_mins(10);
/// Reports travel while the host boots; at its end the agent takes over what is left.
const LAST_REPORTS: Duration = Duration::from_secs(1);
/// The reason of a failure is worth waiting for.
const FAILURE_REPORT: Duration = Duration::from_secs(15);
/// Time to read the reason on the console.
const BEFORE_REBOOT: Duration = Duration::from_mins(1);

/// Why the host does not boot.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Mount(rootfs::Error),
    #[error("failed to read `{path}`")]
    Read {
        path: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    CommandLine(#[from] UnusableCommandLine),
    #[error("`/{}` is malformed", BootImage::PATH)]
    BootImage(#[source] serde_json::Error),
    #[error(transparent)]
    Modules(#[from] MalformedIndex),
    #[error(transparent)]
    Disk(#[from] disk::Error),
    #[error("no network")]
    Link(#[from] link::Error),
    #[error(transparent)]
    Memory(#[from] memory::Error),
    #[error("no root file system from http://{server}/blob/{rootfs}")]
    Fetch {
        server: SocketAddrV4,
        rootfs: Digest,
        source: fetch::Error,
    },
    #[error("failed to assemble the root")]
    Assemble(#[source] rootfs::Error),
    #[error("no {what} from the appliance")]
    Asked {
        what: &'static str,
        source: session::Error,
    },
    #[error(transparent)]
    Signature(#[from] signature::Error),
    #[error(transparent)]
    Secrets(#[from] secrets::Error),
    #[error(transparent)]
    Host(#[from] host::Error),
    #[error(transparent)]
    Handover(#[from] handover::Error),
}

/// Boots the host; never returns.
pub(crate) fn run() -> ! {
    let prepared = prepare();
    std::panic::set_hook(Box::new(|panic| {
        console::fail(&format!("FAILED: stage1 itself broke: {panic}"));
        restart();
    }));
    let started_ms = match prepared {
        Ok(started_ms) => started_ms,
        Err(error) => give_up(&error, None),
    };
    let (way, mut coldplug) = match way() {
        Ok(known) => known,
        Err(error) => give_up(&error, None),
    };
    let left = match way {
        Way::Network(parameters) => from_network(*parameters, coldplug, started_ms),
        Way::Disk(hash) => from_disk(&hash, &mut coldplug),
    };
    match left {
        Ok(never) => match never {},
        Err(error) => give_up(&error, None),
    }
}

/// Boots what is on a disk of this host.
fn from_disk(hash: &RootHash, coldplug: &mut Coldplug) -> Result<Infallible, Error> {
    let image = boot_image()?;
    console::info(&format!("image `{}`, tree {}", image.name, image.tree));
    disk::assemble(hash, coldplug)?;
    let (new_root, run) = (Path::new(rootfs::NEW_ROOT), Path::new("/run"));
    host::write(&host::defaults(new_root), new_root, run)?;
    handover::check(new_root)?;
    handover::place_agent(&AgentConfig::alone(&image))?;
    console::close();
    Ok(handover::switch_root()?)
}

/// Boots what an appliance has; fails only while the appliance does not know the boot yet.
fn from_network(
    parameters: Parameters,
    mut coldplug: Coldplug,
    started_ms: u64,
) -> Result<Infallible, Error> {
    link::bring_up(&parameters, &mut coldplug)?;
    // Their place is needed for the root.
    coldplug.finish(&NEEDED);
    let Parameters {
        server,
        appliance,
        token,
        ..
    } = parameters;
    let (session, exchange) = credential(&appliance, token)?;
    let boot = Boot {
        server,
        session: &session,
        exchange: &exchange,
        coldplug: &coldplug,
        reporter: &Reporter::start(session.clone()),
    };
    match boot.run(started_ms) {
        Ok(never) => match never {},
        Err(error) => give_up(&error, Some(boot.reporter)),
    }
}

/// Reads what the initrd knows of its image.
fn boot_image() -> Result<BootImage, Error> {
    let image = read("/etc/firstboot/image.json")?;
    serde_json::from_str(&image).map_err(Error::BootImage)
}

/// Mounts what the kernel tells through, and opens the console.
fn prepare() -> Result<u64, Error> {
    umask(Mode::from_bits_truncate(0o022));
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let devices = MsFlags::MS_NOSUID;
    // As systemd mounts them itself; programs are run from `/run` (the agent).
    let state = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let mounts = [
        ("/proc", "proc", quiet, None),
        ("/sys", "sysfs", quiet, None),
        ("/dev", "devtmpfs", devices, Some("mode=0755")),
        (
            "/run",
            "tmpfs",
            state,
            Some("mode=0755,size=20%,nr_inodes=800k"),
        ),
    ];
    for (path, kind, flags, options) in mounts {
        rootfs::directory(path, 0o755)
            .and_then(|()| rootfs::place(Some(kind), path, kind, flags, options))
            .map_err(Error::Mount)?;
    }
    let started_ms = uptime::milliseconds();
    console::open();
    Ok(started_ms)
}

/// Reads where the root comes from, and which modules there are.
fn way() -> Result<(Way, Coldplug), Error> {
    let way = cmdline::way(&read("/proc/cmdline")?)?;
    let coldplug = Coldplug::new(Index::parse(&read(modules::PATH)?)?);
    Ok((way, coldplug))
}

/// Exchanges the token, which then is worth nothing and forgotten, for what the boot shows from now on.
fn credential(appliance: &Appliance, token: Token) -> Result<(Session, Exchange), Error> {
    let what = "credential";
    let exchange = session::nonce().map_err(|source| Error::Asked { what, source })?;
    let session = persist(what, || Session::begin(appliance, &token, &exchange))?;
    drop(token);
    Ok((session, exchange))
}

/// Asks for as long as the appliance may be away.
fn persist<T>(what: &'static str, ask: impl Fn() -> Result<T, session::Error>) -> Result<T, Error> {
    let started = Instant::now();
    let mut backoff = Backoff::new(Duration::from_secs(2));
    let mut told = false;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(source) if source.is_final() || started.elapsed() > PATIENCE => {
                return Err(Error::Asked { what, source });
            }
            Err(error) if !told => {
                console::warn(&format!("no {what} yet: {}", chain(&error)));
                told = true;
            }
            Err(_) => {}
        }
        thread::sleep(backoff.pause());
    }
}

/// A boot that the appliance knows.
struct Boot<'a> {
    /// Where artifacts come from.
    server: SocketAddrV4,
    session: &'a Session,
    exchange: &'a Exchange,
    coldplug: &'a Coldplug,
    reporter: &'a Reporter,
}

impl Boot<'_> {
    /// Fetches what this host is made of, and hands over to it.
    fn run(&self, started_ms: u64) -> Result<Infallible, Error> {
        let kernel = read("/proc/sys/kernel/osrelease")?.trim().to_owned();
        self.reporter.report(Stage::Stage1 { kernel, started_ms });
        let image = boot_image()?;
        let (appliance, _) = self.session.parts();
        console::info(&format!(
            "image `{}`, tree {}, boot {}, appliance {}",
            image.name, image.tree, appliance.boot, appliance.server
        ));
        if !image.signers.is_empty() {
            let signed = persist("signature", || self.session.signed(&image.rootfs))?;
            signature::check(&image, &signed)?;
            console::info("the image's manifest is signed by a trusted key");
        }
        let host = persist("host configuration", || self.session.host_config())?;
        let root = thread::scope(|scope| {
            // Not needed before the root is there, so they load while it comes.
            scope.spawn(|| self.coldplug.named(&NEEDED));
            self.fetch_root(&image)
        })?;

        rootfs::assemble(&root).map_err(Error::Assemble)?;
        drop(root);
        memory::tell()?;
        self.place(&host)?;
        console::info(&format!("starting `{}`", host.name));
        self.reporter.report(Stage::SwitchRoot);
        let undelivered = self.reporter.finish(LAST_REPORTS);
        let config = AgentConfig::new(self.session, &image, &host, undelivered);
        handover::place_agent(&config)?;
        handover::hide_token(&read("/proc/cmdline")?);
        console::close();
        Ok(handover::switch_root()?)
    }

    /// Makes a host of the image.
    fn place(&self, host: &HostConfig) -> Result<(), Error> {
        let (new_root, run) = (Path::new(rootfs::NEW_ROOT), Path::new("/run"));
        let files = host::files(host, &host::image_hosts(new_root))?;
        host::write(&files, new_root, run)?;
        handover::check(new_root)?;
        secrets::place_parameters(&host.parameters, run)?;
        // Last, so that a host that does not boot is given none.
        let given = if host.secrets.is_empty() {
            HostSecrets::default()
        } else {
            persist("secrets", || self.session.secrets(self.exchange))?
        };
        Ok(secrets::place(&host.secrets, &given, run)?)
    }

    /// Fetches the root file system into memory, if it fits.
    fn fetch_root(&self, image: &BootImage) -> Result<File, Error> {
        let room = memory::room_for(image.size)?;
        let fetched = fetch::fetch(self.server, image, &room).map_err(|source| Error::Fetch {
            server: self.server,
            rootfs: image.rootfs,
            source,
        })?;
        let elapsed_ms = u64::try_from(fetched.elapsed.as_millis()).unwrap_or(u64::MAX);
        console::info(&format!(
            "root file system of {} MiB fetched and checked in {elapsed_ms} ms, {} MiB of memory are left",
            mebibytes(image.size),
            memory::free().unwrap_or_default() >> 20,
        ));
        self.reporter.report(Stage::RootFetched {
            bytes: image.size,
            elapsed_ms,
            retries: fetched.retries,
        });
        Ok(room)
    }
}

fn read(path: &'static str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path, source })
}

/// Says why the host does not boot, to the person and to the appliance, and starts over.
fn give_up(error: &Error, reporter: Option<&Reporter>) -> ! {
    let reason = chain(error);
    console::fail(&format!("FAILED: {reason}"));
    if let Some(reporter) = reporter {
        reporter.report(Stage::Failed { reason });
        if !reporter.finish(FAILURE_REPORT).is_empty() {
            console::fail("the appliance could not be told");
        }
    }
    restart();
}

/// Leaves time to read the console, then reboots.
fn restart() -> ! {
    let seconds = BEFORE_REBOOT.as_secs();
    console::fail(&format!(
        "this host is not booted; it restarts in {seconds} s"
    ));
    thread::sleep(BEFORE_REBOOT);
    loop {
        let Err(errno) = reboot(RebootMode::RB_AUTOBOOT);
        console::fail(&format!("restart failed: {}", errno.desc()));
        thread::sleep(BEFORE_REBOOT);
    }
}
