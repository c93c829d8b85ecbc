//! The four rtnetlink messages that stage1 sends, as bytes, and the kernel's answer to them.
//!
//! It opens no socket (`link.rs` does). Layouts: `rtnetlink(7)`, `netlink(7)`; all integers are in
//! the host's order, addresses in the network's.

use std::net::Ipv4Addr;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
/// Request, with an acknowledgement.
const REQUEST: u16 = 0x0001 | 0x0004;
/// Create what is not there, and replace what is.
const CREATE: u16 = 0x0400 | 0x0100;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;

const HEADER: usize = 16;

/// An answer that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's answer is malformed")]
pub(crate) struct MalformedAnswer;

/// Sets an interface up.
pub(crate) fn link_up(index: u32) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    message(RTM_NEWLINK, REQUEST, &body)
}

/// Gives an interface an address.
pub(crate) fn address(index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![AF_INET, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    attribute(&mut body, 2, address.octets()); // IFA_LOCAL
    attribute(&mut body, 1, address.octets()); // IFA_ADDRESS
    if prefix < 31 {
        let broadcast = Ipv4Addr::from_bits(address.to_bits() | host_bits);
        attribute(&mut body, 4, broadcast.octets()); // IFA_BROADCAST
    }
    message(RTM_NEWADDR, REQUEST | CREATE, &body)
}

/// Sets the default route.
pub(crate) fn default_route(index: u32, router: Ipv4Addr) -> Vec<u8> {
    // Family, destination and source length, TOS, table main, protocol boot, scope universe,
    // type unicast, no flags.
    let mut body = vec![AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    attribute(&mut body, 5, router.octets()); // RTA_GATEWAY
    attribute(&mut body, 4, index.to_ne_bytes()); // RTA_OIF
    message(RTM_NEWROUTE, REQUEST | CREATE, &body)
}

/// Reads an acknowledgement: 0, or the number of the error.
pub(crate) fn acknowledgement(bytes: &[u8]) -> Result<i32, MalformedAnswer> {
    let field = |at: usize| bytes.get(at..at + 4)?.try_into().ok();
    let kind = bytes.get(4..6).ok_or(MalformedAnswer)?;
    if kind != NLMSG_ERROR.to_ne_bytes() {
        return Err(MalformedAnswer);
    }
    let error = field(HEADER)
        .map(i32::from_ne_bytes)
        .ok_or(MalformedAnswer)?;
    error.checked_neg().ok_or(MalformedAnswer)
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    message
}

/// Adds an attribute of four bytes: all of ours are, so none needs padding.
fn attribute(body: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    body.extend(8u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_kernels_layout() {
        let address = address(2, [10, 77, 0, 11].into(), 24);
        assert_eq!(address.len(), 16 + 8 + 3 * 8);
        assert_eq!(address[..4], 48u32.to_le_bytes());
        assert_eq!(address[16..24], [2, 24, 0, 0, 2, 0, 0, 0]);
        assert_eq!(address[24..32], [8, 0, 2, 0, 10, 77, 0, 11]);
        assert_eq!(address[44..], [10, 77, 0, 255]);
        assert_eq!(
            link_up(3)[16..],
            [0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
        );
        assert_eq!(default_route(1, [10, 0, 0, 1].into()).len(), 16 + 12 + 16);
    }

    #[test]
    fn prefixes_without_a_broadcast_address_get_none() {
        for (prefix, length) in [(0, 48), (30, 48), (31, 40), (32, 40)] {
            assert_eq!(
                address(1, [10, 0, 0, 1].into(), prefix).len(),
                length,
                "/{prefix}"
            );
        }
    }

    #[test]
    fn answers_are_checked() {
        let answer = |kind: u8, error: i32| {
            let mut bytes = vec![36, 0, 0, 0, kind, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend(error.to_le_bytes());
            bytes
        };
        let cases = [
            ("done", answer(2, 0), Ok(0)),
            ("there already", answer(2, -17), Ok(17)),
            ("no acknowledgement", answer(16, 0), Err(MalformedAnswer)),
            ("cut", answer(2, 0)[..18].to_vec(), Err(MalformedAnswer)),
            ("not negative", answer(2, i32::MIN), Err(MalformedAnswer)),
            ("empty", vec![], Err(MalformedAnswer)),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(acknowledgement(&bytes), expected, "{name}");
        }
    }
}
