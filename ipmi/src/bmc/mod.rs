//! One BMC: what it says, and what it is asked to do, whichever protocol it speaks.
//!
//! It refuses to act on a machine that is not the recorded one, to send anything destructive twice,
//! and to call anything done that was not read back.

mod console;
mod conversation;
mod endpoint;
mod error;
mod execute;
mod identity;
mod intent;
mod inventory;
mod power;
mod talk;
mod work;

#[cfg(all(test, feature = "sim"))]
mod tests;

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

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use self::talk::Talk;
use self::work::{Opener, Work};
use crate::driver::Memory;
use crate::fleet::Track;
use crate::journal::Journal;
use crate::session::Privilege;
use crate::{redfish, sol};

/// How long an inventory may take: hundreds of small reads over IPMI.
const INVENTORY: Duration = Duration::from_mins(2);
/// How long a console may take to open.
const CONSOLE: Duration = Duration::from_secs(20);

/// One BMC. One request is in flight at a time.
#[derive(Debug)]
pub struct Bmc {
    endpoint: Endpoint,
    credentials: Credentials,
    memory: Memory,
    /// Held by who speaks with it: an operation here, or the poller of the fleet.
    gate: Arc<Mutex<()>>,
    /// What the poller of the fleet keeps of it.
    track: Track,
}

impl Opener for Bmc {
    type Talk = Talk;

    fn open(&self, deadline: Instant) -> impl Future<Output = Result<Talk, Error>> + Send {
        Talk::open(self, deadline)
    }
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
            memory: Memory::default(),
            gate: Arc::default(),
            track: Track::default(),
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
        let deadline = Instant::now() + deadline;
        let _turn = self.turn(deadline).await?;
        let anybody = Expected {
            recorded: Recorded::FirstUse,
            ..Expected::default()
        };
        let mut work = Work::new(self, &anybody, deadline);
        let seen = work.seen().await;
        work.close().await;
        seen
    }

    /// Reads the power of the host that is `expected`, which is checked in the same conversation; and no more, since
    /// over a line that loses packets each question counts.
    ///
    /// # Errors
    /// [`Error::WrongHost`] when it is another one; when the BMC did not say before the deadline.
    pub async fn look(&self, expected: &Expected, deadline: Duration) -> Result<PowerState, Error> {
        let deadline = Instant::now() + deadline;
        let _turn = self.turn(deadline).await?;
        let mut work = Work::new(self, expected, deadline);
        let seen = match work.identity().await {
            Ok(_) => work.power_of_checked().await,
            Err(error) => Err(error),
        };
        work.close().await;
        seen
    }

    /// Reads the power, and nothing else.
    ///
    /// # Errors
    /// When the BMC did not say before the deadline.
    pub async fn power(&self, deadline: Duration) -> Result<PowerState, Error> {
        let deadline = Instant::now() + deadline;
        let _turn = self.turn(deadline).await?;
        self.ask_power(deadline).await
    }

    /// Reads the power; the gate is the caller's.
    pub(crate) async fn ask_power(&self, deadline: Instant) -> Result<PowerState, Error> {
        let anybody = Expected {
            recorded: Recorded::FirstUse,
            ..Expected::default()
        };
        let mut work = Work::new(self, &anybody, deadline);
        let power = work.power().await;
        work.close().await;
        power
    }

    pub(crate) fn gate(&self) -> &Arc<Mutex<()>> {
        &self.gate
    }

    pub(crate) fn track(&self) -> &Track {
        &self.track
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Carries out `intent` on the host that is `expected`, and reads back that it is so.
    ///
    /// At most one destructive command is sent for each call (a shutdown that is not heeded is followed by one
    /// "off"). After an error that [is transient](Error::is_transient) the same may be executed again: it begins
    /// with a look at what is.
    ///
    /// # Errors
    /// [`Error::WrongHost`] and [`Error::Unrecorded`] when nothing was done for good reason; [`Error::NotVerified`]
    /// and [`Error::Unknown`] when something was sent that did not show.
    pub async fn execute(
        &self,
        expected: &Expected,
        intent: &Intent,
        journal: &dyn Journal,
        deadline: Duration,
    ) -> Result<Done, Error> {
        let deadline = Instant::now() + deadline;
        let _turn = self.turn(deadline).await?;
        let done = execute::execute(self, expected, intent, journal, deadline).await;
        match &done {
            Ok(done) => {
                let elapsed_ms = done.elapsed.as_millis();
                tracing::info!(bmc = %self.endpoint, action = %intent, elapsed_ms, "power intent done");
            }
            Err(error) => {
                tracing::warn!(bmc = %self.endpoint, action = %intent, error = %error, "power intent failed");
            }
        }
        done
    }

    /// The host's serial console. It does not keep others from the BMC.
    ///
    /// # Errors
    /// When the BMC has none, or somebody else holds it.
    pub async fn console(&self) -> Result<Console, Error> {
        if self.endpoint.protocol == Protocol::Redfish {
            return Err(Error::Unsupported {
                detail: "redfish has no serial console".to_owned(),
            });
        }
        let deadline = Instant::now() + CONSOLE;
        let link = Talk::link(self, Privilege::Administrator, deadline).await?;
        sol::open(link).await
    }

    /// Parts, sensors and the event log. It never writes, and never erases.
    ///
    /// # Errors
    /// When the BMC did not answer.
    pub async fn inventory(&self) -> Result<Inventory, Error> {
        let deadline = Instant::now() + INVENTORY;
        let _turn = self.turn(deadline).await?;
        let mut talk = Talk::open(self, deadline).await?;
        let inventory = match &mut talk {
            Talk::Ipmi(link) => {
                let identity = link.identity(Depth::Whole).await?;
                crate::inventory::read(&mut **link, identity).await
            }
            Talk::Redfish(chain) => redfish::inventory(chain).await,
        };
        talk.close().await;
        inventory
    }

    async fn turn(&self, deadline: Instant) -> Result<tokio::sync::MutexGuard<'_, ()>, Error> {
        timeout_at(deadline, self.gate.lock())
            .await
            .map_err(|_| Error::Busy {
                detail: "another operation with this bmc is under way".to_owned(),
            })
    }

    /// The address, resolved if it is a name.
    async fn address(&self, deadline: Instant) -> Result<SocketAddr, Error> {
        let port = self.endpoint.port();
        if let Ok(address) = self.endpoint.host.parse::<IpAddr>() {
            return Ok((address, port).into());
        }
        let unresolved = |why: String| Error::Unreachable {
            detail: format!("`{}`: {why}", self.endpoint.host),
        };
        let found = timeout_at(
            deadline,
            tokio::net::lookup_host((&*self.endpoint.host, port)),
        )
        .await;
        let mut addresses = found
            .map_err(|_| unresolved("no answer from the resolver".to_owned()))?
            .map_err(|error| unresolved(error.to_string()))?;
        addresses
            .next()
            .ok_or_else(|| unresolved("no address".to_owned()))
    }
}
