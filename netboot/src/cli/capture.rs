//! Reads DHCP packets to servers out of a capture file (classic pcap, Ethernet or Linux cooked).
//!
//! It refuses what `tcpdump -w` does not write, and skips what is no DHCP request.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

/// Most packets that are read from one capture.
const PACKETS_MAX: usize = 100_000;

/// Longest packet that a capture may hold.
const LENGTH_MAX: u32 = 1 << 18;

/// One DHCP packet to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Captured {
    /// Its number in the capture, counted from 1.
    pub(super) number: usize,
    /// Who sent it.
    pub(super) source: SocketAddrV4,
    /// Who it was sent to.
    pub(super) destination: SocketAddrV4,
    /// The DHCP message.
    pub(super) bytes: Vec<u8>,
}

/// Reads all DHCP packets to servers: UDP to port 67 or 4011.
pub(super) fn read(path: &Path) -> io::Result<Vec<Captured>> {
    parse(BufReader::new(File::open(path)?))
}

fn parse(mut file: impl Read) -> io::Result<Vec<Captured>> {
    let mut head = [0; 24];
    file.read_exact(&mut head)?;
    let word = match head[..4] {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => u32::from_le_bytes,
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => u32::from_be_bytes,
        _ => return Err(malformed("it is no pcap file; pcapng is not read")),
    };
    let field = |bytes: &[u8]| bytes.try_into().map(word).unwrap_or_default();
    // The link type says how many bytes stand before the Ethernet type.
    let before = match field(&head[20..24]) & 0xffff {
        1 => 12,
        113 => 14,
        276 => 0,
        _ => {
            return Err(malformed(
                "its link type is neither Ethernet nor Linux cooked",
            ));
        }
    };
    let cooked_v2 = before == 0;
    let mut packets = Vec::new();
    for number in 1..=PACKETS_MAX {
        let mut head = [0; 16];
        match file.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(packets),
            Err(error) => return Err(error),
        }
        let length = field(&head[8..12]);
        if length > LENGTH_MAX {
            return Err(malformed("it is cut or damaged"));
        }
        let mut frame = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact(&mut frame)?;
        let ip = if cooked_v2 {
            frame.get(..2).zip(frame.get(20..))
        } else {
            frame.get(before..before + 2).zip(frame.get(before + 2..))
        };
        let found = ip.and_then(|(kind, rest)| dhcp(number, kind, rest));
        packets.extend(found);
    }
    Ok(packets)
}

fn malformed(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Finds the DHCP message in what follows an Ethernet type.
fn dhcp(number: usize, kind: &[u8], rest: &[u8]) -> Option<Captured> {
    let ip = match kind {
        [0x08, 0x00] => rest,
        // One VLAN tag: four bytes, the last two of which are the true type.
        [0x81, 0x00] if rest.get(2..4)? == [0x08, 0x00] => rest.get(4..)?,
        _ => return None,
    };
    let header = usize::from(ip.first()? & 0x0f) * 4;
    let udp = ip.get(header..)?;
    if ip.first()? >> 4 != 4 || ip.get(9)? != &17 {
        return None;
    }
    let address = |at: usize| {
        let octets: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let port = |at: usize| {
        let octets: [u8; 2] = udp.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(octets))
    };
    let length = usize::from(port(4)?);
    let destination = SocketAddrV4::new(address(16)?, port(2)?);
    matches!(destination.port(), 67 | 4011).then_some(Captured {
        number,
        source: SocketAddrV4::new(address(12)?, port(0)?),
        destination,
        bytes: udp.get(8..length)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(frames: &[&[u8]]) -> Vec<u8> {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
        file.extend([0; 8]);
        file.extend(65_535_u32.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
            file.extend([0; 8]);
            file.extend(length);
            file.extend(length);
            file.extend(*frame);
        }
        file
    }

    fn frame(port: u16) -> Vec<u8> {
        let mut frame = vec![0xff; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([0, 0, 0, 0, 255, 255, 255, 255]);
        frame.extend(68_u16.to_be_bytes());
        frame.extend(port.to_be_bytes());
        frame.extend([0, 11, 0, 0]);
        frame.extend(b"abc padding");
        frame
    }

    #[test]
    fn requests_are_found_and_the_rest_is_skipped() {
        let found = parse(&capture(&[b"short", &frame(53), &frame(67)])[..]).unwrap();
        let expected = Captured {
            number: 3,
            source: "0.0.0.0:68".parse().unwrap(),
            destination: "255.255.255.255:67".parse().unwrap(),
            bytes: b"abc".to_vec(),
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn anything_else_is_an_error_and_no_panic() {
        let whole = capture(&[&frame(67)]);
        for end in 0..whole.len() {
            let parsed = parse(&whole[..end]);
            assert!(
                end == 24 || parsed.is_err() || parsed.unwrap().is_empty(),
                "{end}"
            );
        }
        assert!(parse(&b"\x0a\x0d\x0d\x0a pcapng pcapng pcapng"[..]).is_err());
    }
}
