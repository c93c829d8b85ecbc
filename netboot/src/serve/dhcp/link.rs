//! Frames to clients that have no address yet: IP and UDP headers of our own, the kernel's link layer.
//!
//! It refuses to touch the neighbour table (it holds 1,023 entries, and a rack is larger), and
//! knows nothing about what it carries.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use netboot_core::Mac;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Largest payload that is sent: what fits an Ethernet frame after both headers.
const PAYLOAD_MAX: usize = 1_500 - IP_HEADER - UDP_HEADER;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;

/// A socket below IP, for every interface.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Index of the interface it leaves by.
    pub(super) interface: u32,
    /// Hardware address of the client, or of everyone.
    pub(super) mac: Mac,
    /// Our address.
    pub(super) from: (Ipv4Addr, u16),
    /// The address that the client is about to get, or everyone's.
    pub(super) to: (Ipv4Addr, u16),
}

impl Link {
    /// Opens the socket; it sends only and receives nothing.
    ///
    /// # Errors
    /// When the process lacks `CAP_NET_RAW`.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Protocol 0 receives nothing, so no queue of our own traffic grows.
        let socket = socket(AddressFamily::Packet, SockType::Datagram, flags, None)?;
        Ok(Self { socket })
    }

    /// Sends one payload.
    ///
    /// # Errors
    /// When the kernel does not take it, or it does not fit a frame.
    pub(super) fn send(&self, frame: &Frame, payload: &[u8]) -> io::Result<()> {
        let datagram = datagram(frame.from, frame.to, payload)?;
        raw::send(&self.socket, frame.interface, frame.mac.0, &datagram)
    }
}

/// Writes the IP and UDP headers before a payload.
fn datagram(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> io::Result<Vec<u8>> {
    let udp = u16::try_from(UDP_HEADER + payload.len());
    let whole = u16::try_from(IP_HEADER + UDP_HEADER + payload.len());
    let (Ok(udp), Ok(whole), true) = (udp, whole, payload.len() <= PAYLOAD_MAX) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut bytes = Vec::with_capacity(usize::from(whole));
    bytes.extend([0x45, 0]);
    bytes.extend(whole.to_be_bytes());
    // No identification and no flags: a frame this small is never cut, and the
    // "don't fragment" bit confuses some boot ROMs.
    bytes.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    bytes.extend(from.0.octets());
    bytes.extend(to.0.octets());
    let sum = checksum(0, &bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());

    bytes.extend(from.1.to_be_bytes());
    bytes.extend(to.1.to_be_bytes());
    bytes.extend(udp.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    // RFC 768: addresses, protocol and length count as if they stood before the header, and a
    // sum of zero is sent as all ones.
    let pseudo = u32::from(UDP) + u32::from(udp) + sum_words(&bytes[12..IP_HEADER]);
    let sum = match checksum(pseudo, &bytes[IP_HEADER..]) {
        0 => u16::MAX,
        sum => sum,
    };
    bytes[IP_HEADER + 6..IP_HEADER + 8].copy_from_slice(&sum.to_be_bytes());
    Ok(bytes)
}

fn sum_words(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

/// RFC 1071, over at most a frame: a `u32` cannot overflow.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let sum = start + sum_words(bytes);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

mod raw {
    #![expect(
        unsafe_code,
        reason = "no crate in the tree builds a link-layer address from its parts"
    )]

    use super::{AsRawFd, OwnedFd, io};

    /// Sends a datagram by an interface to a hardware address.
    pub(super) fn send(
        socket: &OwnedFd,
        interface: u32,
        mac: [u8; 6],
        datagram: &[u8],
    ) -> io::Result<()> {
        let interface = i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut octets = [0; 8];
        octets[..6].copy_from_slice(&mac);
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET.try_into().unwrap_or_default(),
            sll_protocol: 0x0800_u16.to_be(),
            sll_ifindex: interface,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: octets,
        };
        let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
        // SAFETY: `datagram` and `address` are live for the whole call, and their true sizes are
        // given; the kernel only reads them.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                datagram.as_ptr().cast(),
                datagram.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                size,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 1), 67);
    const TO: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 11), 68);

    #[test]
    fn a_datagram_sums_to_nothing_as_a_receiver_counts_it() {
        for payload in [&b""[..], b"odd", b"even", &[0xff; 1_472]] {
            let bytes = datagram(FROM, TO, payload).unwrap();
            assert_eq!(checksum(0, &bytes[..IP_HEADER]), 0, "ip header");
            let udp = u32::try_from(bytes.len() - IP_HEADER).unwrap();
            let pseudo = u32::from(UDP) + udp + sum_words(&bytes[12..IP_HEADER]);
            assert_eq!(checksum(pseudo, &bytes[IP_HEADER..]), 0, "udp and payload");
            assert_eq!(&bytes[IP_HEADER + UDP_HEADER..], payload);
        }
    }

    #[test]
    fn a_payload_larger_than_a_frame_is_refused() {
        assert!(datagram(FROM, TO, &[0; 1_473]).is_err());
    }
}
