//! A virtual host as its BMC sees it: power that is a QEMU process, a boot device, a console.
//!
//! It refuses to pretend: a host has power while its process runs, and every change of power is one
//! line of a log that tests read.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ipmi::sim::{Chassis, Refused};
use ipmi::{BootDevice, BootOverride, Identity, Persistence, PowerState, ResetKind};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::qemu::{self, Folder, Order, Settings};
use crate::rack::Slot;

/// Pieces of console output that a slow listener may lag behind.
const CONSOLE_PIECES: usize = 1024;
/// How long a console without listeners stays connected; one client at a time is all that QEMU takes.
const CONSOLE_IDLE: Duration = Duration::from_secs(1);
/// How long QEMU may take to obey its monitor.
const MONITOR: Duration = Duration::from_secs(5);

/// One change of power of a virtual host, a line of its `power.log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PowerEvent {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What: `on`, `off`, `reset`, `shutdown` or `nmi`.
    pub what: String,
    /// What the host was told to start from, when it was switched on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The process that is the host.
    pub process: Option<u32>,
}

/// A virtual host behind its BMC.
#[derive(Debug)]
pub struct VirtualHost {
    slot: Slot,
    port: String,
    folder: Folder,
    settings: Settings,
    state: Mutex<State>,
    console: broadcast::Sender<Bytes>,
    keys: Arc<Mutex<Option<UnixStream>>>,
}

#[derive(Debug, Default)]
struct State {
    child: Option<Child>,
    boot: Option<BootOverride>,
}

impl VirtualHost {
    /// A host that has no power yet, behind a port of the switch.
    #[must_use]
    pub fn new(slot: Slot, port: String, folder: Folder, settings: Settings) -> Self {
        Self {
            slot,
            port,
            folder,
            settings,
            state: Mutex::default(),
            console: broadcast::Sender::new(CONSOLE_PIECES),
            keys: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn switch_on(&self, state: &mut State) -> io::Result<()> {
        let order = match state.boot.as_ref().map(|boot| &boot.device) {
            Some(BootDevice::Disk | BootDevice::Setup) => Order::Disk,
            // A rack's hosts have the network first in their own boot order.
            Some(BootDevice::Network | BootDevice::Http { .. } | BootDevice::None) | None => {
                Order::Network
            }
        };
        let child = qemu::start(
            |program| Command::new(program),
            &self.slot,
            &self.port,
            order,
            &self.folder,
            &self.settings,
        )
        .map_err(io::Error::other)?;
        let process = child.id();
        state.child = Some(child);
        let boot = state.boot.as_ref().map(ToString::to_string);
        // A one-time override is used up by the start that takes it.
        state
            .boot
            .take_if(|boot| boot.persistence == Persistence::Once);
        self.log("on", boot, Some(process));
        Ok(())
    }

    fn switch_off(&self, state: &mut State) {
        if let Some(mut child) = state.child.take() {
            let process = child.id();
            child.kill().ok();
            child.wait().ok();
            self.log("off", None, Some(process));
        }
    }

    /// Notes a host that ended by itself: its system switched it off.
    fn reap(&self, state: &mut State) {
        let ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if let Some(child) = state.child.take_if(ended) {
            self.log("off", None, Some(child.id()));
        }
    }

    fn log(&self, what: &str, boot: Option<String>, process: Option<u32>) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        let event = PowerEvent {
            at_ms: at.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
            what: what.to_owned(),
            boot,
            process,
        };
        let line = serde_json::to_string(&event).unwrap_or_default() + "\n";
        let written = fs::create_dir_all(self.folder.path()).and_then(|()| {
            let mut log = OpenOptions::new();
            let mut log = log
                .create(true)
                .append(true)
                .open(self.folder.power_log())?;
            log.write_all(line.as_bytes())
        });
        if let Err(error) = written {
            eprintln!("lab: {}: power log: {error}", self.slot.name);
        }
    }

    fn socket(&self, name: &str) -> io::Result<UnixStream> {
        // Names of sockets are short by law, and a state directory may be deep.
        let folder = fs::File::open(self.folder.path())?;
        UnixStream::connect(PathBuf::from(format!(
            "/proc/self/fd/{}/{name}",
            folder.as_raw_fd()
        )))
    }

    /// Tells QEMU's monitor one thing.
    fn monitor(&self, what: &str) -> io::Result<()> {
        let socket = self.socket("qmp.sock")?;
        socket.set_read_timeout(Some(MONITOR))?;
        let mut answers = BufReader::new(socket.try_clone()?).lines();
        let mut socket = socket;
        for command in ["qmp_capabilities", what] {
            writeln!(socket, r#"{{"execute":"{command}"}}"#)?;
            let answer = answers.find(|line| {
                let told =
                    |line: &String| line.contains("\"return\"") || line.contains("\"error\"");
                line.as_ref().map_or(true, told)
            });
            let answer = answer.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
            if answer.contains("\"error\"") {
                return Err(io::Error::other(answer));
            }
        }
        Ok(())
    }

    fn tell(&self, what: &str, command: &str) -> Result<(), Refused> {
        self.monitor(command)
            .map_err(|error| Refused::NotNow(error.to_string()))?;
        self.log(what, None, None);
        Ok(())
    }

    fn pump(&self) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.is_some() {
            return;
        }
        let Ok(socket) = self.socket("console.sock") else {
            return;
        };
        let Ok(mut output) = socket.try_clone() else {
            return;
        };
        output.set_read_timeout(Some(CONSOLE_IDLE)).ok();
        *keys = Some(socket);
        let (sender, keys) = (self.console.clone(), Arc::clone(&self.keys));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                match output.read(&mut bytes) {
                    Ok(0) => break,
                    // Without listeners the bytes are in the host's console log all the same.
                    Ok(length) => drop(sender.send(Bytes::copy_from_slice(&bytes[..length]))),
                    Err(error) if is_timeout(&error) && sender.receiver_count() > 0 => {}
                    Err(_) => break,
                }
            }
            *keys.lock().unwrap_or_else(PoisonError::into_inner) = None;
        });
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

impl Chassis for VirtualHost {
    fn power(&self) -> PowerState {
        let mut state = self.state();
        self.reap(&mut state);
        match state.child {
            Some(_) => PowerState::On,
            None => PowerState::Off,
        }
    }

    fn act(&self, kind: ResetKind) -> Result<(), Refused> {
        let mut state = self.state();
        self.reap(&mut state);
        let off = || Err(Refused::NotNow("the host has no power".to_owned()));
        let failed = |error: io::Error| Refused::NotNow(error.to_string());
        match (kind, state.child.is_some()) {
            (ResetKind::On, true) | (ResetKind::ForceOff | ResetKind::GracefulShutdown, false) => {
                Ok(())
            }
            (ResetKind::On, false) => self.switch_on(&mut state).map_err(failed),
            (ResetKind::ForceOff, true) => {
                self.switch_off(&mut state);
                Ok(())
            }
            (ResetKind::GracefulShutdown, true) => self.tell("shutdown", "system_powerdown"),
            (ResetKind::Cycle | ResetKind::ForceRestart | ResetKind::Nmi, false) => off(),
            (ResetKind::ForceRestart, true) if state.boot.is_none() => {
                self.tell("reset", "system_reset")
            }
            (ResetKind::Cycle | ResetKind::ForceRestart, true) => {
                self.switch_off(&mut state);
                self.switch_on(&mut state).map_err(failed)
            }
            (ResetKind::Nmi, true) => self.tell("nmi", "inject-nmi"),
        }
    }

    fn boot_override(&self) -> Option<BootOverride> {
        self.state().boot.clone()
    }

    fn set_boot_override(&self, wanted: Option<BootOverride>) -> Result<(), Refused> {
        self.state().boot = wanted;
        Ok(())
    }

    fn identity(&self) -> Identity {
        Identity {
            guid: guid(self.slot.uuid),
            serial: Some(format!("LAB-{}", self.slot.name)),
            manufacturer: Some("Firstboot lab".to_owned()),
            product: Some("QEMU".to_owned()),
            ..Identity::default()
        }
    }

    fn console(&self) -> broadcast::Receiver<Bytes> {
        let receiver = self.console.subscribe();
        self.pump();
        receiver
    }

    fn type_in(&self, keys: &[u8]) {
        self.pump();
        let mut console = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(console) = console.as_mut()
            && let Err(error) = console.write_all(keys)
        {
            eprintln!("lab: {}: console: {error}", self.slot.name);
        }
    }
}

impl Drop for VirtualHost {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = state.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Reads a UUID as SMBIOS tools write it.
fn guid(text: &str) -> Option<[u8; 16]> {
    let hex: String = text.chars().filter(|letter| *letter != '-').collect();
    let mut guid = [0; 16];
    for (byte, index) in guid.iter_mut().zip(0..) {
        *byte = u8::from_str_radix(hex.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(guid)
}
