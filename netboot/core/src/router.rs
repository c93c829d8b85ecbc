//! The answer to a host that asks for an IPv6 router: there is none here.
//!
//! It refuses to give addresses or routes, and to answer unlisted hosts: a network's own routers
//! are no business of ours.
//!
//! iPXE configures IPv4 and IPv6 side by side and runs its script only when both are done. Where no
//! router answers, it repeats its solicitation until it gives up: 17 s with 1.0.0+git-2019 (the
//! ROMs of Debian 12's QEMU), 4 s with 1.21.1. With this answer it is 0.04 s.

use std::net::Ipv6Addr;

use crate::Mac;
use crate::site::{Mode, Site};

/// The `ICMPv6` type of a router solicitation (RFC 4861 §4.1).
const SOLICITATION: u8 = 133;
/// Bytes before its options.
const SOLICITATION_HEADER: usize = 8;
/// Option with the sender's hardware address (RFC 4861 §4.6.1).
const SOURCE_LINK_ADDRESS: u8 = 1;

/// A router advertisement (RFC 4861 §4.2) without its checksum, which the kernel fills in: hop
/// limit unspecified, no flags, router lifetime 0, "not a default router", no prefix.
pub const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Decides whether [`ADVERTISEMENT`] is sent back to the sender of an `ICMPv6` message: to listed
/// hosts that ask for a router, in a site that gives addresses.
///
/// The hop limit of both messages must be 255 (RFC 4861 §6.1.1), which the shell knows and sets.
#[must_use]
pub fn answers(message: &[u8], source: Ipv6Addr, site: &Site) -> bool {
    let gives_addresses = |mode| mode == Mode::Authoritative;
    site.networks
        .iter()
        .any(|network| gives_addresses(network.mode))
        && solicitor(message, source)
            .and_then(|mac| site.host_by_mac(mac))
            .is_some()
}

/// Tells who asks for a router; none when the message does not, or the sender has no address yet.
fn solicitor(message: &[u8], source: Ipv6Addr) -> Option<Mac> {
    if !source.is_unicast_link_local() || message.first() != Some(&SOLICITATION) {
        return None;
    }
    let mut options = message.get(SOLICITATION_HEADER..)?;
    while let [code, units, ..] = *options {
        // Lengths count in 8 bytes; one of zero would never end (RFC 4861 §4.6).
        let size = usize::from(units) * 8;
        let (option, rest) = options.split_at_checked(size).filter(|_| size > 0)?;
        if code == SOURCE_LINK_ADDRESS {
            return option.get(2..8)?.try_into().ok().map(Mac);
        }
        options = rest;
    }
    in_address(source)
}

/// Reads the hardware address in an address that was made of it (RFC 4291 appendix A).
fn in_address(address: Ipv6Addr) -> Option<Mac> {
    let octets = address.octets();
    let (vendor, middle, device) = (&octets[8..11], &octets[11..13], &octets[13..]);
    let mut mac: [u8; 6] = [vendor, device].concat().try_into().ok()?;
    mac[0] ^= 2;
    (middle == [0xff, 0xfe]).then_some(Mac(mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::SourceFile;

    fn site(mode: &str) -> Site {
        let text = format!(
            "[site]\nname = \"lab\"\n[[network]]\nname = \"rack\"\nsubnet = \"10.77.0.0/24\"\n\
             appliance = \"10.77.0.1\"\nmode = \"{mode}\"\n[role.web]\nimage = \"host\"\n\
             [[host]]\nname = \"a\"\nmacs = [\"52:54:00:77:00:01\"]\naddress = \"10.77.0.11\"\nrole = \"web\"\n"
        );
        let file = SourceFile {
            path: "lab.toml".into(),
            text: text.into(),
        };
        Site::check(&[file]).unwrap()
    }

    #[test]
    fn only_listed_hosts_that_ask_are_answered() {
        let source: Ipv6Addr = "fe80::5054:ff:fe77:1".parse().unwrap();
        let stranger: Ipv6Addr = "fe80::5054:ff:fe77:9".parse().unwrap();
        let private: Ipv6Addr = "fe80::1".parse().unwrap();
        let global: Ipv6Addr = "2001:db8::5054:ff:fe77:1".parse().unwrap();
        let bare = [133, 0, 1, 2, 0, 0, 0, 0];
        let with = |mac: [u8; 6]| [&bare[..], &[1, 1], &mac].concat();
        let mine = with([0x52, 0x54, 0, 0x77, 0, 1]);
        let cases = [
            ("as iPXE asks", mine.clone(), source, true),
            ("without its hardware address", bare.to_vec(), source, true),
            ("with a private address", mine.clone(), private, true),
            ("a stranger", with([2; 6]), stranger, false),
            ("a private stranger", bare.to_vec(), private, false),
            ("no address yet", mine.clone(), Ipv6Addr::UNSPECIFIED, false),
            ("from elsewhere", mine.clone(), global, false),
            ("an advertisement", ADVERTISEMENT.to_vec(), source, false),
            (
                "an option without length",
                [&bare[..], &[9, 0, 1, 1]].concat(),
                source,
                false,
            ),
            (
                "an option that ends outside",
                [&bare[..], &[1, 2, 1, 1]].concat(),
                source,
                false,
            ),
            ("short", vec![133], source, false),
            ("empty", vec![], source, false),
        ];
        for (name, message, source, expected) in cases {
            assert_eq!(
                answers(&message, source, &site("authoritative")),
                expected,
                "{name}"
            );
        }
        assert!(
            !answers(&mine, source, &site("proxy")),
            "another server's network"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_message_is_decided(message in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
            // A listed hardware address does not come about by chance.
            proptest::prop_assert!(!answers(&message, source, &site("authoritative")));
        }
    }
}
