//! Sockets of the appliance, and why one could not be had.
//!
//! It refuses to guess: the interface is the one that holds the network's address, and a port that
//! is taken is reported with the program that has it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use netboot_core::site::{Network, Reach, Site};
use tokio::net::TcpListener;

use super::interfaces::{Interface, Interfaces, Transport, owner};

/// Why the appliance cannot be reached where the site says.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel did not list the interfaces.
    #[error("failed to list the network interfaces")]
    Interfaces(#[source] nix::Error),
    /// No interface holds the address of a network.
    #[error("no interface holds {address}, the appliance's address in network `{network}`")]
    NoInterface {
        /// The network.
        network: String,
        /// Its address of ours.
        address: Ipv4Addr,
        /// What the interfaces hold.
        present: String,
    },
    /// Two local networks stand on one interface.
    #[error("network `{network}` is on {interface}, where {address} already serves another one")]
    SharedInterface {
        /// The second network.
        network: String,
        /// The interface.
        interface: String,
        /// The address of ours in the first network.
        address: Ipv4Addr,
    },
    /// A port could not be bound.
    #[error("failed to bind {what} to {socket}{}", Taken(.owner.as_deref()))]
    Port {
        /// What it is for, with its transport.
        what: &'static str,
        /// The address and port.
        socket: SocketAddr,
        /// The program that has it, when it is known.
        owner: Option<String>,
        /// Why.
        source: io::Error,
    },
}

struct Taken<'a>(Option<&'a str>);

impl fmt::Display for Taken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(owner) => write!(f, ", which {owner} has bound"),
            None => Ok(()),
        }
    }
}

impl BindError {
    /// Makes the error of a port, and looks for who has it.
    pub(super) fn port(
        what: &'static str,
        transport: Transport,
        socket: SocketAddr,
        source: io::Error,
    ) -> Self {
        let owner = (source.kind() == io::ErrorKind::AddrInUse)
            .then(|| owner(transport, socket.port()))
            .flatten();
        Self::Port {
            what,
            socket,
            owner,
            source,
        }
    }

    /// Returns what may help.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Interfaces(_) => "the kernel must let the process read its interfaces".to_owned(),
            Self::NoInterface {
                address, present, ..
            } => format!(
                "add it with `ip address add {address}/… dev …`, or correct `appliance` in the \
                 site; present are {present}"
            ),
            Self::SharedInterface { .. } => "a broadcast does not say which of two networks it is \
                 for; give each an interface of its own, such as a VLAN's"
                .to_owned(),
            Self::Port { source, socket, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "stop what uses the port ({}); `ss -lpn 'sport = :{}'` shows it",
                    usual_owners(socket.port()),
                    socket.port()
                ),
                io::ErrorKind::PermissionDenied => "run as root, or with CAP_NET_BIND_SERVICE and \
                     CAP_NET_RAW"
                    .to_owned(),
                _ => "correct the address in the site".to_owned(),
            },
        }
    }
}

/// Names who usually has a port that we need.
fn usual_owners(port: u16) -> &'static str {
    match port {
        67 => "often dnsmasq, isc-dhcp-server, kea or systemd-networkd",
        69 => "often tftpd-hpa, atftpd or dnsmasq",
        80 | 443 => "often a web server",
        4011 => "often dnsmasq or another PXE server",
        _ => "often an earlier `netboot serve`",
    }
}

/// The interfaces that the site's local networks stand on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wires {
    wires: Vec<Wire>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wire {
    index: u32,
    interface: String,
    address: Ipv4Addr,
}

impl Wires {
    /// Finds the interface of each local network.
    pub(super) fn find(site: &Site) -> Result<Self, BindError> {
        let interfaces = Interfaces::read().map_err(BindError::Interfaces)?;
        let mut wires: Vec<Wire> = Vec::new();
        for network in local(site) {
            let Interface { name, index } =
                interfaces
                    .holding(network.appliance)
                    .ok_or_else(|| BindError::NoInterface {
                        network: network.name.to_string(),
                        address: network.appliance,
                        present: interfaces.describe(),
                    })?;
            if let Some(other) = wires.iter().find(|wire| wire.index == *index) {
                return Err(BindError::SharedInterface {
                    network: network.name.to_string(),
                    interface: name.clone(),
                    address: other.address,
                });
            }
            wires.push(Wire {
                index: *index,
                interface: name.clone(),
                address: network.appliance,
            });
        }
        Ok(Self { wires })
    }

    /// Tells where the networks of the site are served.
    pub(super) fn tell(&self, site: &Site) {
        for wire in &self.wires {
            let network = site.network_of(wire.address);
            tracing::info!(
                network = network.map(|network| &*network.name),
                subnet = network.map(|network| tracing::field::display(network.subnet)),
                iface = wire.interface.as_str(),
                address = %wire.address,
                "serving network"
            );
        }
    }

    /// Returns our address on the wire of an interface.
    pub(super) fn local(&self, interface: u32) -> Option<Ipv4Addr> {
        let wire = self.wires.iter().find(|wire| wire.index == interface);
        wire.map(|wire| wire.address)
    }

    /// Returns the indices of the interfaces, each once.
    pub(super) fn interfaces(&self) -> BTreeSet<u32> {
        self.wires.iter().map(|wire| wire.index).collect()
    }

    /// Returns all our addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.wires.iter().map(|wire| wire.address)
    }
}

fn local(site: &Site) -> impl Iterator<Item = &Network> {
    let networks = site.networks.iter().map(|network| &**network);
    networks.filter(|network| network.reach == Reach::Local)
}

/// Binds a TCP port of one of our addresses.
pub(super) async fn tcp(what: &'static str, socket: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(socket)
        .await
        .map_err(|source| BindError::port(what, Transport::Tcp, socket, source))
}

/// Names a UDP port on all addresses.
pub(super) fn any(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
}
