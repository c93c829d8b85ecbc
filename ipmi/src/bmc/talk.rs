//! A conversation in whichever protocol the BMC speaks.

use tokio::time::Instant;

use super::{
    Bmc, BootOverride, Conversation, Depth, Error, Identity, PowerState, Protocol, ResetKind, Sent,
    Waiver,
};
use crate::driver::{self, Link};
use crate::redfish;
use crate::session::{Login, Privilege};

/// An open conversation.
pub(super) enum Talk {
    /// Over IPMI.
    Ipmi(Box<Link>),
    /// Over Redfish.
    Redfish(Box<redfish::Chain>),
}

impl Talk {
    /// Opens a conversation before the deadline.
    pub(super) async fn open(bmc: &Bmc, deadline: Instant) -> Result<Self, Error> {
        match bmc.endpoint.protocol {
            Protocol::Ipmi => Self::link(bmc, Privilege::Operator, deadline)
                .await
                .map(|link| Self::Ipmi(Box::new(link))),
            Protocol::Redfish => {
                let chain = redfish::open(&bmc.endpoint, &bmc.credentials, deadline).await?;
                Ok(Self::Redfish(Box::new(chain)))
            }
        }
    }

    /// Opens an IPMI session.
    pub(super) async fn link(
        bmc: &Bmc,
        privilege: Privilege,
        deadline: Instant,
    ) -> Result<Link, Error> {
        let login = Login::new(&bmc.credentials, privilege)?;
        let legacy = if bmc.endpoint.waivers.allow(Waiver::Ipmi15) {
            driver::Legacy::Waived
        } else {
            driver::Legacy::Refuse
        };
        let address = bmc.address(deadline).await?;
        driver::open(address, &login, &bmc.memory, legacy, deadline).await
    }
}

impl Conversation for Talk {
    async fn identity(&mut self, depth: Depth) -> Result<Identity, Error> {
        match self {
            Self::Ipmi(link) => link.identity(depth).await,
            Self::Redfish(chain) => chain.identity(depth).await,
        }
    }

    async fn power(&mut self) -> Result<PowerState, Error> {
        match self {
            Self::Ipmi(link) => link.power().await,
            Self::Redfish(chain) => chain.power().await,
        }
    }

    async fn boot(&mut self) -> Result<Option<BootOverride>, Error> {
        match self {
            Self::Ipmi(link) => link.boot().await,
            Self::Redfish(chain) => chain.boot().await,
        }
    }

    async fn set_boot(&mut self, boot: &BootOverride) -> Result<(), Error> {
        match self {
            Self::Ipmi(link) => link.set_boot(boot).await,
            Self::Redfish(chain) => chain.set_boot(boot).await,
        }
    }

    async fn reset(&mut self, kind: ResetKind) -> Result<Sent, Error> {
        match self {
            Self::Ipmi(link) => link.reset(kind).await,
            Self::Redfish(chain) => chain.reset(kind).await,
        }
    }

    async fn firmware(&mut self) -> Result<Vec<(String, String)>, Error> {
        match self {
            Self::Ipmi(link) => link.firmware().await,
            Self::Redfish(chain) => chain.firmware().await,
        }
    }

    async fn close(self) {
        match self {
            Self::Ipmi(link) => (*link).close().await,
            Self::Redfish(chain) => (*chain).close().await,
        }
    }
}
