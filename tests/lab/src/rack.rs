//! The virtual hosts of the lab: what `site/lab` cannot say about them, namely their firmware.
//!
//! It refuses to repeat the site: names and hardware addresses are checked against it in a test.

use crate::firmware::Firmware;

/// One virtual host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name, as in the site.
    pub name: &'static str,
    /// How it starts.
    pub firmware: Firmware,
    /// Hardware address of its network card, as in the site.
    pub mac: &'static str,
    /// Its SMBIOS identity, which its BMC tells too.
    pub uuid: &'static str,
    /// What its BMC speaks, as in the site.
    pub protocol: Protocol,
    /// Address of its BMC, as in the site.
    pub bmc: &'static str,
}

/// What a BMC of the rack speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// IPMI 2.0.
    Ipmi,
    /// Redfish over TLS.
    Redfish,
}

/// All hosts of the rack.
pub const SLOTS: [Slot; 6] = [
    Slot {
        name: "bios1",
        firmware: Firmware::Bios,
        mac: "52:54:00:77:00:01",
        uuid: "f1b00700-0000-4000-8000-525400770001",
        protocol: Protocol::Ipmi,
        bmc: "10.77.0.101",
    },
    Slot {
        name: "uefi1",
        firmware: Firmware::UefiPxe,
        mac: "52:54:00:77:00:02",
        uuid: "f1b00700-0000-4000-8000-525400770002",
        protocol: Protocol::Redfish,
        bmc: "10.77.0.102",
    },
    Slot {
        name: "http1",
        firmware: Firmware::UefiHttp,
        mac: "52:54:00:77:00:03",
        uuid: "f1b00700-0000-4000-8000-525400770003",
        protocol: Protocol::Redfish,
        bmc: "10.77.0.103",
    },
    Slot {
        name: "bios2",
        firmware: Firmware::Bios,
        mac: "52:54:00:77:00:04",
        uuid: "f1b00700-0000-4000-8000-525400770004",
        protocol: Protocol::Ipmi,
        bmc: "10.77.0.104",
    },
    Slot {
        name: "bios3",
        firmware: Firmware::Bios,
        mac: "52:54:00:77:00:05",
        uuid: "f1b00700-0000-4000-8000-525400770005",
        protocol: Protocol::Ipmi,
        bmc: "10.77.0.105",
    },
    Slot {
        name: "bios4",
        firmware: Firmware::Bios,
        mac: "52:54:00:77:00:06",
        uuid: "f1b00700-0000-4000-8000-525400770006",
        protocol: Protocol::Redfish,
        bmc: "10.77.0.106",
    },
];

/// How many hosts a rack starts with unless others are named: one of each firmware.
const FIRST: usize = 3;

/// The appliance's address on the rack's switch, as in the site.
pub const APPLIANCE: &str = "10.77.0.1/24";

/// A name that no host of the rack has.
#[derive(Debug, thiserror::Error)]
#[error("the lab has no host `{0}`; it has {list}", list = names())]
pub struct UnknownHost(pub String);

/// Finds a host by name.
///
/// # Errors
/// When there is none of that name.
pub fn slot(name: &str) -> Result<Slot, UnknownHost> {
    SLOTS
        .into_iter()
        .find(|slot| slot.name == name)
        .ok_or_else(|| UnknownHost(name.to_owned()))
}

/// Picks hosts by name; one of each firmware when no name is given.
///
/// # Errors
/// When one of the names is unknown.
pub fn select(names: &[String]) -> Result<Vec<Slot>, UnknownHost> {
    if names.is_empty() {
        return Ok(SLOTS[..FIRST].to_vec());
    }
    names.iter().map(|name| slot(name)).collect()
}

fn names() -> String {
    SLOTS.map(|slot| slot.name).join(", ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_site_knows_every_host_of_the_rack() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../site/lab/site.toml");
        let site: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
        let network = &site["network"].as_array().unwrap()[0];
        assert_eq!(
            APPLIANCE.split_once('/').map(|(address, _)| address),
            network["appliance"].as_str()
        );
        let hosts = site["host"].as_array().unwrap();
        let text = |host: &toml::Value, key| host[key].as_str().unwrap().to_owned();
        let listed: Vec<_> = hosts
            .iter()
            .map(|host| {
                let bmc = &host["bmc"];
                let mac = host["macs"][0].as_str().unwrap().to_owned();
                (
                    text(host, "name"),
                    mac,
                    text(bmc, "protocol"),
                    text(bmc, "address"),
                )
            })
            .collect();
        let racked = SLOTS.map(|slot| {
            let protocol = format!("{:?}", slot.protocol).to_lowercase();
            (
                slot.name.to_owned(),
                slot.mac.to_owned(),
                protocol,
                slot.bmc.to_owned(),
            )
        });
        assert_eq!(listed, racked);
    }

    #[test]
    fn an_unknown_host_is_refused_with_the_names_there_are() {
        let error = select(&["bios1".to_owned(), "mars".to_owned()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the lab has no host `mars`; it has bios1, uefi1, http1, bios2, bios3, bios4"
        );
    }
}
