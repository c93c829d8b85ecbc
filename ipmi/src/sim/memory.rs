//! A chassis in memory: a host that turns on and off at once and prints a line when it boots.
//!
//! It refuses to be more than a host's power button, boot device and console.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::broadcast;

use super::{Chassis, Refused};
use crate::{BootOverride, Identity, Persistence, PowerState, ResetKind};

/// What was done to a host is remembered up to this many acts; the oldest are forgotten first.
const REMEMBERED: usize = 1024;

/// A host that exists only in memory.
#[derive(Debug)]
pub struct Memory {
    identity: Identity,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    on: bool,
    boot: Option<BootOverride>,
    acts: Vec<ResetKind>,
    boots: Vec<Option<BootOverride>>,
    /// Made when somebody first listens: ten thousand hosts have few listeners.
    console: Option<broadcast::Sender<Bytes>>,
}

impl Memory {
    /// A host that is off.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            state: Mutex::new(State {
                on: false,
                boot: None,
                acts: Vec::new(),
                boots: Vec::new(),
                console: None,
            }),
        }
    }

    /// The same host, running.
    #[must_use]
    pub fn running(self) -> Self {
        self.state().on = true;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was done to the power, oldest first.
    #[must_use]
    pub fn acts(&self) -> Vec<ResetKind> {
        self.state().acts.clone()
    }

    /// What each boot was told to use, oldest first.
    #[must_use]
    pub fn boots(&self) -> Vec<Option<BootOverride>> {
        self.state().boots.clone()
    }

    /// Prints on the serial console, as the host would.
    pub fn print(&self, text: impl Into<Bytes>) {
        self.state().print(text.into());
    }
}

fn remember<T>(list: &mut Vec<T>, item: T) {
    if list.len() == REMEMBERED {
        list.remove(0);
    }
    list.push(item);
}

impl State {
    fn print(&self, text: Bytes) {
        if let Some(console) = &self.console {
            // An error means that nobody listens any more, which is no concern of a console.
            drop(console.send(text));
        }
    }

    fn boot(&mut self) {
        self.on = true;
        let device = self.boot.as_ref().map_or_else(
            || "its usual device".to_owned(),
            |boot| format!("{:?}", boot.device),
        );
        self.print(Bytes::from(format!("booting from {device}\r\n")));
        remember(&mut self.boots, self.boot.clone());
        if let Some(boot) = &self.boot
            && boot.persistence == Persistence::Once
        {
            self.boot = None;
        }
    }

    fn stop(&mut self) {
        self.on = false;
        self.print(Bytes::from_static(b"power off\r\n"));
    }
}

impl Chassis for Memory {
    fn power(&self) -> PowerState {
        if self.state().on {
            PowerState::On
        } else {
            PowerState::Off
        }
    }

    fn act(&self, kind: ResetKind) -> Result<(), Refused> {
        let mut state = self.state();
        let is_off = !state.on;
        match kind {
            ResetKind::On if is_off => state.boot(),
            ResetKind::ForceOff if state.on => state.stop(),
            // Power as it was asked for: done already.
            ResetKind::On | ResetKind::ForceOff => {}
            _ if is_off => return Err(Refused::NotNow("the host is off".to_owned())),
            ResetKind::GracefulShutdown => {
                state.print(Bytes::from_static(b"shutting down\r\n"));
                state.stop();
            }
            ResetKind::Cycle => {
                state.stop();
                state.boot();
            }
            ResetKind::ForceRestart => state.boot(),
            ResetKind::Nmi => state.print(Bytes::from_static(b"diagnostic interrupt\r\n")),
        }
        remember(&mut state.acts, kind);
        Ok(())
    }

    fn boot_override(&self) -> Option<BootOverride> {
        self.state().boot.clone()
    }

    fn set_boot_override(&self, wanted: Option<BootOverride>) -> Result<(), Refused> {
        self.state().boot = wanted;
        Ok(())
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn console(&self) -> broadcast::Receiver<Bytes> {
        let mut state = self.state();
        let console = state
            .console
            .get_or_insert_with(|| broadcast::channel(64).0);
        console.subscribe()
    }

    /// A host in memory echoes what is typed, as a terminal does, while it has power.
    fn type_in(&self, keys: &[u8]) {
        let state = self.state();
        if state.on {
            state.print(Bytes::copy_from_slice(keys));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BootDevice, BootFirmware};

    #[test]
    fn a_one_time_override_serves_one_boot() {
        let host = Memory::new(Identity::default());
        let network = BootOverride {
            device: BootDevice::Network,
            persistence: Persistence::Once,
            firmware: BootFirmware::Uefi,
        };
        assert_eq!(host.set_boot_override(Some(network.clone())), Ok(()));
        assert_eq!(host.act(ResetKind::On), Ok(()));
        assert_eq!(host.boot_override(), None);
        assert_eq!(host.act(ResetKind::Cycle), Ok(()));
        assert_eq!(host.boots(), [Some(network), None]);
    }

    #[test]
    fn a_host_that_is_off_is_not_restarted() {
        let host = Memory::new(Identity::default());
        for kind in [ResetKind::Cycle, ResetKind::ForceRestart] {
            assert!(host.act(kind).is_err(), "{kind:?}");
        }
        assert_eq!(host.power(), PowerState::Off);
        assert!(host.acts().is_empty());
    }
}
