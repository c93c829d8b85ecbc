//! Simulated BMCs: what both simulators share. A [`Chassis`] is the host behind the BMC, [`Faults`]
//! are the ways in which the BMC misbehaves, and a [`Board`] joins them with a hook on every request.
//!
//! It refuses to know a protocol: `ipmi` and `redfish` speak them, and differ in nothing else.

mod faults;
pub mod ipmi;
mod memory;
pub mod redfish;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::{BootOverride, Identity, PowerState, Protocol, ResetKind};

pub use faults::{Fault, Faults};
pub use memory::Memory;

/// Why a chassis does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot do this at all.
    #[error("not supported by this chassis")]
    Unsupported,
    /// It cannot do this now, such as restarting a host that is off.
    #[error("not possible now: {0}")]
    NotNow(String),
}

/// The host behind a BMC. Calls return at once; what takes time is seen in [`Chassis::power`].
pub trait Chassis: Send + Sync + 'static {
    /// Tells whether the host has power.
    fn power(&self) -> PowerState;

    /// Begins a change of power.
    ///
    /// # Errors
    /// When the chassis cannot do this, or not now; nothing has changed then.
    fn act(&self, kind: ResetKind) -> Result<(), Refused>;

    /// Tells what the next boot was told to use. A one-time override is gone once a boot took it.
    fn boot_override(&self) -> Option<BootOverride>;

    /// Sets or clears what the next boot uses.
    ///
    /// # Errors
    /// When the firmware cannot boot like that.
    fn set_boot_override(&self, wanted: Option<BootOverride>) -> Result<(), Refused>;

    /// Tells which machine this is.
    fn identity(&self) -> Identity;

    /// Listens to the host's serial console from now on.
    fn console(&self) -> broadcast::Receiver<Bytes>;

    /// Types on the host's serial console.
    fn type_in(&self, keys: &[u8]);
}

/// A request that reached a simulator.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who sent it.
    pub peer: SocketAddr,
    /// Over what.
    pub protocol: Protocol,
    /// What is asked, such as `chassis control: power cycle` or `POST /redfish/v1/…`.
    pub what: String,
    /// When the hook is called.
    pub moment: Moment,
}

/// When a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The request was understood; nothing has been done.
    Before,
    /// It was done; the answer has not been sent.
    After,
}

/// What a hook decides about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Proceed,
    /// Say nothing; before the moment of doing, also do nothing.
    Silence,
}

/// Called on every request, at both of its moments.
pub type Hook = Arc<dyn Fn(&Request) -> Verdict + Send + Sync>;

/// A chassis, the faults of its BMC, and who is told of each request. Cheap to clone: a board has
/// one chassis, and may have a simulator of each protocol in front of it.
#[derive(Clone)]
pub struct Board {
    chassis: Arc<dyn Chassis>,
    faults: Arc<Faults>,
    hook: Option<Hook>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl Board {
    /// A board without faults and without a hook.
    #[must_use]
    pub fn new(chassis: Arc<dyn Chassis>) -> Self {
        Self {
            chassis,
            faults: Arc::default(),
            hook: None,
        }
    }

    /// Shares faults that somebody else adjusts.
    #[must_use]
    pub fn with_faults(mut self, faults: Arc<Faults>) -> Self {
        self.faults = faults;
        self
    }

    /// Calls this on every request.
    #[must_use]
    pub fn with_hook(mut self, hook: Hook) -> Self {
        self.hook = Some(hook);
        self
    }

    /// The faults, which may be adjusted while simulators run.
    #[must_use]
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// Tells the hook of a request. What is asked is only put into words when somebody listens.
    #[must_use]
    pub fn ask(
        &self,
        peer: SocketAddr,
        protocol: Protocol,
        moment: Moment,
        what: impl FnOnce() -> String,
    ) -> Verdict {
        let Some(hook) = &self.hook else {
            return Verdict::Proceed;
        };
        hook(&Request {
            peer,
            protocol,
            what: what(),
            moment,
        })
    }

    /// The power that the BMC reports.
    #[must_use]
    pub fn power(&self) -> PowerState {
        self.chassis.power()
    }

    /// Does what was asked, as the faults have it: a lying BMC agrees and does nothing, a lagging
    /// one agrees and does it later. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the chassis refuses at once.
    pub fn act(&self, kind: ResetKind) -> Result<(), Refused> {
        if self.faults.lies_about_power() {
            return Ok(());
        }
        let lag = self.faults.lag();
        if lag.is_zero() {
            return self.chassis.act(kind);
        }
        let chassis = Arc::clone(&self.chassis);
        tokio::spawn(async move {
            tokio::time::sleep(lag).await;
            if let Err(error) = chassis.act(kind) {
                tracing::debug!(action = ?kind, %error, "chassis refused after its lag");
            }
        });
        Ok(())
    }

    /// The boot override that the BMC reports.
    #[must_use]
    pub fn boot_override(&self) -> Option<BootOverride> {
        self.chassis.boot_override()
    }

    /// Sets or clears the boot override; a lying BMC agrees and does nothing.
    ///
    /// # Errors
    /// When the chassis refuses.
    pub fn set_boot_override(&self, wanted: Option<BootOverride>) -> Result<(), Refused> {
        if self.faults.lies_about_boot() {
            return Ok(());
        }
        self.chassis.set_boot_override(wanted)
    }

    /// Which machine the BMC says this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.faults
            .identity()
            .unwrap_or_else(|| self.chassis.identity())
    }

    /// Listens to the host's serial console from now on.
    #[must_use]
    pub fn console(&self) -> broadcast::Receiver<Bytes> {
        self.chassis.console()
    }

    /// Types on the host's serial console.
    pub fn type_in(&self, keys: &[u8]) {
        self.chassis.type_in(keys);
    }
}
