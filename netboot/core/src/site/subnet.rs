//! IPv4 subnets and ranges of addresses.
//!
//! It refuses host bits: `10.0.0.1/24` is no subnet.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::Pool;

/// A subnet, written `10.77.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

/// A text that is not a subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedSubnet {
    /// It has another form.
    #[error("`{0}` is not a subnet such as `10.77.0.0/24`")]
    Form(String),
    /// Its address is not the first of the subnet.
    #[error("`{given}` has host bits; its subnet is `{subnet}`")]
    HostBits {
        /// As given.
        given: String,
        /// What may have been meant.
        subnet: Subnet,
    },
}

impl Subnet {
    /// Returns the subnet of that prefix length (0 to 32) which holds an address.
    #[must_use]
    pub fn holding(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        let base = Ipv4Addr::from_bits(address.to_bits() & mask_bits(prefix));
        Self { base, prefix }
    }

    /// Returns its first address, which names it.
    #[must_use]
    pub fn base(self) -> Ipv4Addr {
        self.base
    }

    /// Returns the length of its prefix, 0 to 32.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Returns its mask.
    #[must_use]
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask_bits(self.prefix))
    }

    /// Returns its last address.
    #[must_use]
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() | !mask_bits(self.prefix))
    }

    /// Tells whether an address is in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask_bits(self.prefix) == self.base.to_bits()
    }

    /// Tells whether a host can have an address of it: not its first and last, which name the
    /// subnet and its broadcast, unless it is a point-to-point `/31` or a `/32`.
    #[must_use]
    pub fn gives(self, address: Ipv4Addr) -> bool {
        self.contains(address)
            && (self.prefix >= 31 || (address != self.base && address != self.last()))
    }

    /// Tells whether two subnets share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }
}

fn mask_bits(prefix: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(prefix))
        .unwrap_or_default()
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = MalformedSubnet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || MalformedSubnet::Form(text.chars().take(60).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
        let prefix: u8 = prefix.parse().map_err(|_| malformed())?;
        if prefix > 32 {
            return Err(malformed());
        }
        let subnet = Self::holding(address, prefix);
        if subnet.base != address {
            return Err(MalformedSubnet::HostBits {
                given: text.to_owned(),
                subnet,
            });
        }
        Ok(subnet)
    }
}

impl Pool {
    /// Tells whether an address is in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Returns how many addresses it has.
    #[must_use]
    pub fn size(self) -> u32 {
        self.last
            .to_bits()
            .checked_sub(self.first.to_bits())
            .map_or(0, |difference| difference.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_knows_its_edges() {
        let subnet: Subnet = "10.77.0.0/24".parse().unwrap();
        assert_eq!(subnet.mask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(subnet.last(), Ipv4Addr::new(10, 77, 0, 255));
        assert!(subnet.gives(Ipv4Addr::new(10, 77, 0, 1)));
        assert!(!subnet.gives(Ipv4Addr::new(10, 77, 0, 255)));
        assert!(!subnet.contains(Ipv4Addr::new(10, 77, 1, 0)));
        let all: Subnet = "0.0.0.0/0".parse().unwrap();
        assert!(all.overlaps(subnet) && subnet.overlaps(all));
        let one: Subnet = "10.0.0.1/32".parse().unwrap();
        assert!(one.gives(Ipv4Addr::new(10, 0, 0, 1)));
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.1/24",
            "10.0.0/24",
            "x/1",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
