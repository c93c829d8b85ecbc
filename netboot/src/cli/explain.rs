//! `netboot explain`: what a packet is answered with, and why, by the function that serves.
//!
//! It refuses to send anything and to change what is stored.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use clap::Args;
use netboot_core::dhcp::{Arrival, Leases, Malformed, Port, Request, Tries, decide};
use netboot_core::explain::explain;
use netboot_core::site::{Network, Reach, Site};
use netboot_core::{Mac, Timestamp};
use serde_json::json;

use super::{Exit, Failure, Format, SiteDirectory, block_on, capture, print, sample};
use crate::serve::lease_of;
use crate::store::{Reader, StoreError};
use crate::{clock, site};

/// Longest packet that is taken: the decoder refuses longer ones.
const PACKET_MAX: usize = 4_096;

/// Explain what a host, a packet or a capture is answered with.
#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    site: SiteDirectory,
    /// Directory with the appliance's state, to look at its leases; none are assumed otherwise.
    #[arg(long, value_name = "DIR", env = "NETBOOT_DATA")]
    data: Option<PathBuf>,
    /// Name of the network that packets come from; the first of the site otherwise.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Name or hardware address of a host: what each kind of firmware on it is answered with.
    #[arg(value_name = "HOST|MAC")]
    host: Option<String>,
    /// A DHCP message as hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    packet: Option<String>,
    /// A capture as `tcpdump -w` writes it.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// One packet to explain.
struct Question {
    title: String,
    bytes: Vec<u8>,
    arrival: Arrival,
}

impl Explain {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let site = site::load(&self.site.site)?;
        let now = clock::now();
        let leases = match &self.data {
            Some(data) => block_on(leases(&site, data.clone(), now))?,
            None => Leases::new(&site),
        };
        let questions = self.questions(&site)?;
        let mut answers = Vec::with_capacity(questions.len());
        let mut text = String::new();
        for Question {
            title,
            bytes,
            arrival,
        } in questions
        {
            let (label, explained) = answer(&bytes, arrival, &site, &leases, now);
            text.push_str(&title);
            text.push('\n');
            for line in explained.lines() {
                text.push_str("  ");
                text.push_str(line);
                text.push('\n');
            }
            answers.push(json!({ "packet": title, "decision": label, "explanation": explained }));
        }
        if self.format.json {
            text = format!("{}\n", json!(answers));
        }
        print(&text)?;
        Ok(Exit::Done)
    }

    fn questions(&self, site: &Site) -> Result<Vec<Question>, Failure> {
        if let Some(path) = &self.what.pcap {
            return self.captured(site, path);
        }
        if let Some(digits) = &self.what.packet {
            let network = self.network(site, None)?;
            return Ok(vec![Question {
                title: "packet".to_owned(),
                bytes: unhex(digits).ok_or_else(|| {
                    Failure::new("the packet is not hexadecimal digits, two a byte")
                        .exit(Exit::Usage)
                })?,
                arrival: arrival(network.appliance),
            }]);
        }
        let name = self.what.host.as_deref().unwrap_or_default();
        let host = match name.parse::<Mac>() {
            Ok(mac) => site.host_by_mac(mac).ok_or(mac),
            Err(_) => Ok(site.host(name).ok_or_else(|| {
                Failure::new(format!("site `{}` has no host `{name}`", site.name))
                    .help("give a host of the site, or a hardware address")
            })?),
        };
        let (mac, address) = match host {
            Ok(host) => (host.macs.first().copied(), host.address),
            Err(mac) => (Some(mac), None),
        };
        let network = self.network(site, address)?;
        let samples = sample::all(mac.unwrap_or(Mac([2, 0, 0, 0, 0, 1])), relay(network));
        let question = |(title, bytes): (&str, Vec<u8>)| Question {
            title: title.to_owned(),
            bytes,
            arrival: arrival(network.appliance),
        };
        Ok(samples.into_iter().map(question).collect())
    }

    fn captured(&self, site: &Site, path: &Path) -> Result<Vec<Question>, Failure> {
        let network = self.network(site, None)?;
        let packets = capture::read(path).map_err(|error| {
            Failure::new(error).help(format!("`{}` must be a pcap file", path.display()))
        })?;
        if packets.is_empty() {
            eprintln!("`{}` holds no packet to port 67 or 4011", path.display());
        }
        let question = |packet: capture::Captured| Question {
            title: format!("packet {} from {}", packet.number, packet.source),
            arrival: Arrival {
                port: match packet.destination.port() {
                    67 => Port::Dhcp,
                    _ => Port::Pxe,
                },
                source: packet.source,
                destination: *packet.destination.ip(),
                local: network.appliance,
            },
            bytes: packet.bytes,
        };
        Ok(packets.into_iter().map(question).collect())
    }

    /// Finds the network that was named, or that covers an address, or the first.
    fn network<'a>(
        &self,
        site: &'a Site,
        address: Option<Ipv4Addr>,
    ) -> Result<&'a Network, Failure> {
        if let Some(name) = &self.network {
            let network = site.network(name).map(|network| &**network);
            return network.ok_or_else(|| {
                Failure::new(format!("site `{}` has no network `{name}`", site.name))
            });
        }
        let covering = address.and_then(|address| site.network_of(address));
        let first = || site.networks.first();
        let network = covering.or_else(first).map(|network| &**network);
        network.ok_or_else(|| Failure::new(format!("site `{}` has no network", site.name)))
    }
}

/// Returns the address of a relay where packets come through one.
fn relay(network: &Network) -> Option<Ipv4Addr> {
    let relayed = network.reach == Reach::Relayed;
    relayed.then(|| network.router.unwrap_or(network.subnet.base()))
}

fn arrival(local: Ipv4Addr) -> Arrival {
    Arrival {
        port: Port::Dhcp,
        source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
        destination: Ipv4Addr::BROADCAST,
        local,
    }
}

fn answer(
    bytes: &[u8],
    arrival: Arrival,
    site: &Site,
    leases: &Leases,
    now: Timestamp,
) -> (&'static str, String) {
    match Request::decode(bytes, arrival) {
        Ok(request) => {
            let decision = decide(&request, site, leases, &Tries::new(), now);
            (decision.label(), explain(&request, &decision))
        }
        Err(malformed) => ("malformed", unreadable(malformed)),
    }
}

fn unreadable(malformed: Malformed) -> String {
    format!("answer    none (malformed): {malformed}\n")
}

async fn leases(site: &Site, data: PathBuf, now: Timestamp) -> Result<Leases, StoreError> {
    let rows = match Reader::open(&data).await? {
        Some(mut reader) => reader.leases().await?,
        None => Vec::new(),
    };
    let leases: Result<Vec<_>, _> = rows.iter().map(lease_of).collect();
    Ok(Leases::restore(site, leases?, now))
}

/// Reads hexadecimal digits; spaces, colons and line ends between bytes are passed over.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|letter| !letter.is_whitespace() && *letter != ':')
        .take(2 * PACKET_MAX + 2)
        .map(|letter| letter.to_digit(16))
        .collect::<Option<_>>()?;
    let byte = |pair: &[u32]| match pair {
        [high, low] => u8::try_from(high << 4 | low).ok(),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_may_be_grouped() {
        assert_eq!(unhex("01 06:Ff\n00"), Some(vec![1, 6, 255, 0]));
        for wrong in ["0", "0x00", "é", "0 0 0"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
