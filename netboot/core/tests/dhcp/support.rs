//! A small site, and packets to send to it.

use std::net::{Ipv4Addr, SocketAddrV4};

use netboot_core::dhcp::{Arrival, Decision, Leases, Port, Reply, Tries, answer};
use netboot_core::site::{Site, SourceFile};
use netboot_core::{Mac, Timestamp};

/// Three networks: a rack of ours, one beside another server, one behind a relay.
pub(crate) const SITE: &str = r#"
[site]
name = "lab"

[[network]]
name = "rack"
subnet = "10.77.0.0/24"
appliance = "10.77.0.1"
pool = { first = "10.77.0.100", last = "10.77.0.109" }
strangers = "lease"
lease = "10m"
router = "10.77.0.254"
dns = ["10.77.0.2", "10.77.0.3"]
domain = "lab.test"

[[network]]
name = "beside"
subnet = "10.78.0.0/24"
appliance = "10.78.0.1"
mode = "proxy"

[[network]]
name = "far"
subnet = "10.79.0.0/24"
appliance = "10.77.0.1"
relayed = true

[[network]]
name = "quiet"
subnet = "10.80.0.0/24"
appliance = "10.80.0.1"
pool = { first = "10.80.0.100", last = "10.80.0.109" }

[role.web]
image = "host"

[[host]]
name = "bios1"
macs = ["52:54:00:77:00:01", "52:54:00:77:00:11"]
guid = "00112233-4455-6677-8899-aabbccddeeff"
address = "10.77.0.11"
role = "web"

[[host]]
name = "far1"
macs = ["52:54:00:77:00:02"]
address = "10.79.0.12"
role = "web"

[[host]]
name = "beside1"
macs = ["52:54:00:77:00:03"]
role = "web"
"#;

pub(crate) const BIOS1: Mac = Mac([0x52, 0x54, 0, 0x77, 0, 1]);
pub(crate) const FAR1: Mac = Mac([0x52, 0x54, 0, 0x77, 0, 2]);
pub(crate) const BESIDE1: Mac = Mac([0x52, 0x54, 0, 0x77, 0, 3]);
pub(crate) const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 9]);

pub(crate) const RACK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const BESIDE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
pub(crate) const QUIET: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
pub(crate) const RESERVED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

pub(crate) const DISCOVER: u8 = 1;
pub(crate) const REQUEST: u8 = 3;
pub(crate) const DECLINE: u8 = 4;
pub(crate) const RELEASE: u8 = 7;
pub(crate) const INFORM: u8 = 8;

pub(crate) fn site() -> Site {
    let file = SourceFile {
        path: "lab.toml".into(),
        text: SITE.into(),
    };
    Site::check(&[file]).unwrap()
}

/// A packet as a client writes it.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) mac: Mac,
    pub(crate) xid: u32,
    pub(crate) flags: u16,
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) giaddr: Ipv4Addr,
    pub(crate) options: Vec<(u8, Vec<u8>)>,
    pub(crate) arrival: Arrival,
}

pub(crate) fn packet(kind: u8, mac: Mac) -> Packet {
    Packet {
        mac,
        xid: 0x1234_5678,
        flags: 0,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: Ipv4Addr::UNSPECIFIED,
        options: vec![(53, vec![kind])],
        arrival: on(RACK),
    }
}

/// A broadcast that came in by the interface with this address.
pub(crate) fn on(local: Ipv4Addr) -> Arrival {
    Arrival {
        port: Port::Dhcp,
        source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
        destination: Ipv4Addr::BROADCAST,
        local,
    }
}

impl Packet {
    pub(crate) fn option(mut self, code: u8, value: impl Into<Vec<u8>>) -> Self {
        self.options.push((code, value.into()));
        self
    }

    pub(crate) fn address(self, code: u8, address: Ipv4Addr) -> Self {
        self.option(code, address.octets())
    }

    pub(crate) fn ciaddr(mut self, address: Ipv4Addr) -> Self {
        self.ciaddr = address;
        self
    }

    pub(crate) fn giaddr(mut self, address: Ipv4Addr) -> Self {
        self.giaddr = address;
        self
    }

    pub(crate) fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    pub(crate) fn on(mut self, local: Ipv4Addr) -> Self {
        self.arrival = on(local);
        self
    }

    pub(crate) fn unicast(mut self) -> Self {
        self.arrival.destination = self.arrival.local;
        self.arrival.source = SocketAddrV4::new(self.ciaddr, 68);
        self
    }

    pub(crate) fn at_4011(mut self, source: SocketAddrV4) -> Self {
        self.arrival.port = Port::Pxe;
        self.arrival.destination = self.arrival.local;
        self.arrival.source = source;
        self
    }

    /// As a PXE ROM of this architecture asks.
    pub(crate) fn pxe(self, architecture: u16) -> Self {
        let class = format!("PXEClient:Arch:{architecture:05}:UNDI:003000");
        self.option(60, class)
            .option(93, architecture.to_be_bytes())
            .option(97, [0; 17])
    }

    /// As UEFI that boots by HTTP asks.
    pub(crate) fn http(self, architecture: u16) -> Self {
        let class = format!("HTTPClient:Arch:{architecture:05}:UNDI:003000");
        self.option(60, class)
            .option(93, architecture.to_be_bytes())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0];
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.flags.to_be_bytes());
        let zero = Ipv4Addr::UNSPECIFIED;
        for address in [self.ciaddr, zero, zero, self.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.mac.0);
        bytes.resize(236, 0);
        bytes.extend([99, 130, 83, 99]);
        for (code, value) in &self.options {
            bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
            bytes.extend(value);
        }
        bytes.push(255);
        bytes
    }
}

/// The shell around the core: it applies what is decided.
pub(crate) struct Appliance {
    pub(crate) site: Site,
    pub(crate) leases: Leases,
    pub(crate) tries: Tries,
    pub(crate) now: Timestamp,
}

impl Appliance {
    pub(crate) fn new() -> Self {
        let site = site();
        Self {
            leases: Leases::new(&site),
            site,
            tries: Tries::new(),
            now: Timestamp(1_000_000_000),
        }
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now.0 += seconds * 1000;
    }

    pub(crate) fn ask(&mut self, packet: &Packet) -> Decision {
        let bytes = packet.encode();
        let decision = answer(
            &bytes,
            packet.arrival,
            &self.site,
            &self.leases,
            &self.tries,
            self.now,
        );
        if let Some(change) = decision.change() {
            self.leases.apply(change);
        }
        decision
    }

    pub(crate) fn reply(&mut self, packet: &Packet) -> Reply {
        match self.ask(packet) {
            Decision::Send { reply, .. } => *reply,
            other => panic!("no reply: {other:?}"),
        }
    }

    /// Asks until the address is the client's.
    pub(crate) fn dora(&mut self, mac: Mac, local: Ipv4Addr) -> Ipv4Addr {
        let offer = self.reply(&packet(DISCOVER, mac).on(local));
        let request = packet(REQUEST, mac)
            .on(local)
            .address(50, offer.yiaddr)
            .address(54, local);
        let ack = self.reply(&request);
        assert_eq!(ack.kind.label(), "ack");
        assert_eq!(ack.yiaddr, offer.yiaddr);
        ack.yiaddr
    }
}

/// Returns why a packet got no answer.
pub(crate) fn silence(decision: &Decision) -> &'static str {
    match decision {
        Decision::Ignore(silence) => silence.label(),
        other => panic!("not silent: {other:?}"),
    }
}
