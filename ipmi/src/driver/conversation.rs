//! A session as the facade wants it: identity, power, boot device.

use super::{Copies, Link};
use crate::bmc::{BootOverride, Conversation, Depth, Error, Identity, PowerState, ResetKind, Sent};
use crate::command::{
    self, control, device_id, lan_mac, read_boot, refusal, set_boot, system_guid,
};
use crate::fru::{self, Area, Inventory};
use crate::wire::{Code, NetFn, chassis};

/// The system's own FRU inventory.
async fn own_fru(link: &mut Link) -> Result<Option<Inventory>, Error> {
    match fru::read(link, 0).await {
        Err(Error::Unsupported { .. }) => Ok(None),
        read => read,
    }
}

impl Conversation for Link {
    async fn identity(&mut self, depth: Depth) -> Result<Identity, Error> {
        // What the handshake proved is from this session too; the command is asked because some BMCs prove zeros.
        let guid = system_guid(self).await?.or(self.guid());
        let mut identity = Identity {
            guid,
            ..Identity::default()
        };
        if depth == Depth::Quick {
            return Ok(identity);
        }
        let device = device_id(self).await?;
        identity.macs = lan_mac(self).await?.into_iter().collect();
        identity.manufacturer = device.manufacturer_name().map(str::to_owned);
        if let Some(fru) = own_fru(self).await? {
            // A system's serial number is the product's; where that is blank, what the case or the board carries.
            let areas = [&fru.product, &fru.chassis, &fru.board];
            let serial = |area: &Option<Area>| area.as_ref()?.serial.clone();
            identity.serial = areas.into_iter().find_map(serial);
            if let Some(product) = fru.product {
                identity.manufacturer = product.maker.or(identity.manufacturer);
                identity.product = product.name;
            }
        }
        Ok(identity)
    }

    async fn power(&mut self) -> Result<PowerState, Error> {
        command::power(self).await
    }

    async fn boot(&mut self) -> Result<Option<BootOverride>, Error> {
        read_boot(self).await
    }

    async fn set_boot(&mut self, boot: &BootOverride) -> Result<(), Error> {
        set_boot(self, boot).await
    }

    async fn reset(&mut self, kind: ResetKind) -> Result<Sent, Error> {
        let what = format!("power {kind}");
        let copies = match kind {
            ResetKind::ForceOff | ResetKind::On => Copies::Same,
            ResetKind::GracefulShutdown
            | ResetKind::Cycle
            | ResetKind::ForceRestart
            | ResetKind::Nmi => Copies::One,
        };
        let asked = (NetFn::Chassis, chassis::CONTROL);
        match self.act(asked, &[control(kind)], copies).await? {
            None => Ok(Sent::Unsure {
                why: format!("no answer to {what}"),
            }),
            Some(answer) => match answer.code {
                Code::OK => Ok(Sent::Accepted),
                // It gave up waiting, not necessarily acting.
                Code::TIMEOUT => Ok(Sent::Unsure {
                    why: format!("{what}: {}", answer.code),
                }),
                code => Err(refusal(&what, code)),
            },
        }
    }

    async fn firmware(&mut self) -> Result<Vec<(String, String)>, Error> {
        let device = device_id(self).await?;
        let version = |(major, minor): (u8, u8)| format!("{major}.{minor:02}");
        let (major, minor) = device.ipmi;
        Ok(vec![
            ("bmc".to_owned(), version(device.firmware)),
            ("ipmi".to_owned(), format!("{major}.{minor}")),
        ])
    }

    async fn close(self) {
        Self::close(self).await;
    }
}
