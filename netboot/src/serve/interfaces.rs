//! Which of the machine's interfaces serve which addresses, and who holds a port already.
//!
//! It refuses to change anything: it only looks.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

/// The interfaces that hold an IPv4 address, by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interfaces {
    by_address: BTreeMap<Ipv4Addr, Interface>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: String,
    /// Its index.
    pub(crate) index: u32,
}

impl Interfaces {
    /// Asks the kernel.
    pub(crate) fn read() -> nix::Result<Self> {
        let mut by_address = BTreeMap::new();
        for entry in getifaddrs()? {
            let address = entry.address.as_ref().and_then(|a| a.as_sockaddr_in());
            let index = if_nametoindex(entry.interface_name.as_str());
            if let (Some(address), Ok(index)) = (address, index) {
                let name = entry.interface_name;
                by_address.insert(address.ip(), Interface { name, index });
            }
        }
        Ok(Self { by_address })
    }

    /// Finds the interface that holds an address.
    pub(crate) fn holding(&self, address: Ipv4Addr) -> Option<&Interface> {
        self.by_address.get(&address)
    }

    /// Lists all as people write them.
    pub(crate) fn describe(&self) -> String {
        let all: Vec<String> = self
            .by_address
            .iter()
            .map(|(address, interface)| format!("{address} on {}", interface.name))
            .collect();
        all.join(", ")
    }
}

/// Transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// Finds the program that has a port bound, if this process may see it.
pub(crate) fn owner(transport: Transport, port: u16) -> Option<String> {
    let table = match transport {
        Transport::Tcp => "/proc/net/tcp",
        Transport::Udp => "/proc/net/udp",
    };
    let table = std::fs::read_to_string(table).ok()?;
    let inode = socket_inode(&table, port)?;
    let target = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?;
    for process in processes.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = |file: std::fs::DirEntry| {
            std::fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == target.as_str())
        };
        if files.flatten().any(holds) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("`{}` (process {pid})", name.trim()));
        }
    }
    None
}

/// Finds the inode of the socket that is bound to a port in a table of `/proc/net`.
fn socket_inode(table: &str, port: u16) -> Option<&str> {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        local.ends_with(&suffix).then(|| fields.nth(7))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_found_by_its_interface() {
        let interfaces = Interfaces::read().unwrap();
        let loopback = interfaces.holding(Ipv4Addr::LOCALHOST);
        assert_eq!(
            loopback.map(|interface| interface.name.as_str()),
            Some("lo")
        );
        assert_eq!(interfaces.holding(Ipv4Addr::new(192, 0, 2, 1)), None);
    }

    #[test]
    fn the_owner_of_a_port_is_named() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let owner = owner(Transport::Udp, port).unwrap();
        assert!(
            owner.contains(&format!("process {}", std::process::id())),
            "{owner}"
        );
    }
}
