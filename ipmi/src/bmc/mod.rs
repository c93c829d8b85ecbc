//! One BMC: what it says, and what it is asked to do, whichever protocol it speaks.
//!
//! It refuses to act on a machine that is not the recorded one, to send anything destructive twice,
//! and to call anything done that was not read back.

mod console;
mod conversation;
mod endpoint;
mod error;
mod identity;
mod intent;
mod inventory;
mod power;

use std::time::Duration;

pub use console::Console;
pub use conversation::{Conversation, Depth};
pub use endpoint::{
    Credentials, Endpoint, Fingerprint, NotAFingerprint, Protocol, Trust, Waiver, Waivers,
};
pub use error::Error;
pub use identity::{Expected, Identity, Recorded};
pub use intent::{Acted, Done, Intent, Off, OperationId, Seen};
pub use inventory::{Health, Inventory, LogEntry, Part, Sensor};
pub use power::{BootDevice, BootFirmware, BootOverride, Persistence, PowerState, ResetKind, Sent};

use crate::journal::Journal;

/// One BMC. One request is in flight at a time.
#[derive(Debug)]
pub struct Bmc {
    endpoint: Endpoint,
    credentials: Credentials,
}

impl Bmc {
    /// A BMC; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Credentials`] if they cannot be used as they are.
    pub fn new(endpoint: Endpoint, credentials: Credentials) -> Result<Self, Error> {
        credentials.check(&endpoint)?;
        Ok(Self {
            endpoint,
            credentials,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Reads power, identity, boot override and firmware versions.
    ///
    /// # Errors
    /// When the BMC did not say all of it before the deadline.
    pub async fn read(&self, deadline: Duration) -> Result<Seen, Error> {
        let _ = (&self.credentials, deadline);
        std::future::ready(Err(Error::Unsupported {
            detail: self.endpoint.to_string(),
        }))
        .await
    }

    /// Carries out `intent` on the host that is `expected`, and reads back that it is so.
    ///
    /// # Errors
    /// [`Error::WrongHost`] and [`Error::Unrecorded`] when nothing was done for good reason; [`Error::NotVerified`]
    /// and [`Error::Unknown`] when something was sent that did not show. Nothing destructive is ever sent twice.
    pub async fn execute(
        &self,
        expected: &Expected,
        intent: &Intent,
        journal: &dyn Journal,
        deadline: Duration,
    ) -> Result<Done, Error> {
        let _ = (expected, intent, journal, deadline);
        std::future::ready(Err(Error::Unsupported {
            detail: self.endpoint.to_string(),
        }))
        .await
    }

    /// The host's serial console.
    ///
    /// # Errors
    /// When the BMC has none, or somebody else holds it.
    pub async fn console(&self) -> Result<Console, Error> {
        std::future::ready(Err(Error::Unsupported {
            detail: "a console".to_owned(),
        }))
        .await
    }

    /// Parts, sensors and the event log. It never writes, and never erases.
    ///
    /// # Errors
    /// When the BMC did not answer.
    pub async fn inventory(&self) -> Result<Inventory, Error> {
        std::future::ready(Err(Error::Unsupported {
            detail: "an inventory".to_owned(),
        }))
        .await
    }
}
