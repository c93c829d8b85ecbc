//! Identity, power and reset over one conversation.
//!
//! It refuses to send a reset that the service does not offer, and to send one again unless the service said
//! in so many words that it did not do the first.

use hyper::Method;
use serde_json::json;
use tokio::time::Instant;

use super::chain::{Chain, refusal};
use super::link::{Answer, Lost};
use super::resource::{self, Resource};
use crate::bmc::{BootOverride, Conversation, Depth, Error, Identity, PowerState, ResetKind, Sent};

/// How many network interfaces are asked for their addresses.
const INTERFACES: usize = 64;

impl Conversation for Chain {
    async fn identity(&mut self, depth: Depth) -> Result<Identity, Error> {
        let path = self.system.clone();
        let system = self.get(&path).await?.0;
        let text = |pointer: &str| system.text(pointer).map(resource::printable);
        let macs = match depth {
            Depth::Quick => Vec::new(),
            Depth::Whole => self.macs(&system).await?,
        };
        Ok(Identity {
            guid: system.text("/UUID").and_then(resource::guid),
            serial: text("/SerialNumber"),
            manufacturer: text("/Manufacturer"),
            product: text("/Model"),
            certificate: self.certificate(),
            macs,
        })
    }

    async fn power(&mut self) -> Result<PowerState, Error> {
        let path = self.system.clone();
        Ok(self.get(&path).await?.0.power())
    }

    async fn boot(&mut self) -> Result<Option<BootOverride>, Error> {
        self.read_boot().await
    }

    async fn set_boot(&mut self, boot: &BootOverride) -> Result<(), Error> {
        self.write_boot(boot).await
    }

    async fn reset(&mut self, kind: ResetKind) -> Result<Sent, Error> {
        let path = self.system.clone();
        let system = self.get(&path).await?.0;
        let (target, word) = self.offered(&system, kind).await?;
        loop {
            let body = json!({ "ResetType": word });
            let answer = match self.post(&target, body).await {
                Ok(answer) => answer,
                Err(Lost::Before(error)) => return Err(error),
                Err(Lost::After(why)) => return Ok(Sent::Unsure { why }),
            };
            match answer.status {
                200..=299 => return self.follow(&answer).await,
                // It may have come half way.
                500 | 502 | 504 => {
                    return Ok(Sent::Unsure {
                        why: refusal(&answer, &format!("reset {word}")).to_string(),
                    });
                }
                _ => self.outlast(&answer, &format!("reset {word}")).await?,
            }
            // Refused in words, so it had no effect; but what was wanted may have come by itself.
            let power = self.get(&path).await?.0.power();
            if (kind == ResetKind::On && power == PowerState::On)
                || (kind == ResetKind::ForceOff && power == PowerState::Off)
            {
                return Ok(Sent::Accepted);
            }
        }
    }

    async fn firmware(&mut self) -> Result<Vec<(String, String)>, Error> {
        let mut versions = Vec::new();
        let path = self.system.clone();
        let system = self.get(&path).await?.0;
        if let Some(version) = system.text("/BiosVersion") {
            versions.push(("bios".to_owned(), resource::printable(version)));
        }
        for manager in self.managers(&system).await? {
            if let Some(version) = manager.text("/FirmwareVersion") {
                versions.push(("bmc".to_owned(), resource::printable(version)));
            }
        }
        Ok(versions)
    }

    async fn close(mut self) {
        self.end().await;
    }
}

impl Chain {
    /// Sends an action. Bodies are always sent: some services refuse an action without one.
    pub(super) async fn post(
        &mut self,
        target: &str,
        body: serde_json::Value,
    ) -> Result<Answer, Lost> {
        self.send(Method::POST, target, Some(body), None).await
    }

    /// Waits out a refusal that passes by itself, or says that it does not.
    ///
    /// The request that was refused had no effect.
    pub(super) async fn outlast(&mut self, answer: &Answer, what: &str) -> Result<(), Error> {
        let messages = answer.resource().message_ids();
        let told = (answer.status == 503)
            .then(|| answer.retry_after())
            .flatten();
        let error = refusal(answer, what);
        match self.profile.passes(&messages).or(told) {
            Some(wait) if Instant::now() + wait < self.deadline() => {
                self.rest(wait).await;
                Ok(())
            }
            Some(_) => Err(Error::Busy {
                detail: error.to_string(),
            }),
            None => Err(error),
        }
    }

    async fn follow(&mut self, answer: &Answer) -> Result<Sent, Error> {
        Ok(match self.settle(answer).await {
            Ok(()) => Sent::Accepted,
            Err(error) => Sent::Unsure {
                why: error.to_string(),
            },
        })
    }

    /// Returns where a reset is sent and what it is called there, if the service offers it.
    async fn offered(
        &mut self,
        system: &Resource,
        kind: ResetKind,
    ) -> Result<(String, &'static str), Error> {
        let action = "/Actions/#ComputerSystem.Reset";
        let unsupported = |detail: String| Error::Unsupported { detail };
        let target = system
            .text(&format!("{action}/target"))
            .and_then(resource::path)
            .ok_or_else(|| unsupported("the system cannot be reset".to_owned()))?;
        let words = resource::reset_types(kind);
        let info = system
            .text(&format!("{action}/@Redfish.ActionInfo"))
            .and_then(resource::path);
        let mut listed = system
            .texts(&format!("{action}/ResetType@Redfish.AllowableValues"))
            .map(owned);
        if listed.is_none()
            && let Some(info) = info
        {
            listed = allowed(&self.get(&info).await?.0);
        }
        // A service that lists nothing may refuse by itself.
        let word = match &listed {
            Some(listed) => words
                .iter()
                .find(|word| listed.iter().any(|own| own == *word)),
            None => words.first(),
        };
        let word = word.ok_or_else(|| {
            let listed = listed.unwrap_or_default().join(", ");
            unsupported(format!("reset {kind}; it offers {listed}"))
        })?;
        Ok((target, word))
    }

    /// Reads the hardware addresses of the system's interfaces.
    async fn macs(&mut self, system: &Resource) -> Result<Vec<[u8; 6]>, Error> {
        let mut macs = Vec::new();
        let Some(collection) = system.link("/EthernetInterfaces") else {
            return Ok(macs);
        };
        for path in self.members(&collection).await?.iter().take(INTERFACES) {
            let interface = self.get(path).await?.0;
            let own = ["/PermanentMACAddress", "/MACAddress"]
                .iter()
                .filter_map(|pointer| resource::mac(interface.text(pointer)?));
            for mac in own {
                if !macs.contains(&mac) {
                    macs.push(mac);
                }
            }
        }
        Ok(macs)
    }

    /// Reads who manages a system: those it names, or else all that the service has.
    pub(super) async fn managers(&mut self, system: &Resource) -> Result<Vec<Resource>, Error> {
        let mut paths = system.members("/Links/ManagedBy");
        if paths.is_empty()
            && let Some(collection) = self.root.link("/Managers")
        {
            paths = self.members(&collection).await?;
        }
        let mut managers = Vec::new();
        for path in paths {
            managers.push(self.get(&path).await?.0);
        }
        Ok(managers)
    }
}

fn owned(words: Vec<&str>) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}

/// Returns the values of the reset's type that an `ActionInfo` allows.
fn allowed(info: &Resource) -> Option<Vec<String>> {
    let parameters = info.list("/Parameters");
    let reset = parameters
        .iter()
        .find(|parameter| parameter.text("/Name") == Some("ResetType"))?;
    reset.texts("/AllowableValues").map(owned)
}
