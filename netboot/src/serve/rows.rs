//! Leases as the store keeps them, and back.
//!
//! It refuses to lose a lease silently: a row that cannot be read is an error that names it.

use std::net::Ipv4Addr;

use netboot_core::dhcp::{Client, Lease};
use netboot_core::{Mac, Timestamp};

use crate::store::{LeaseRow, StoreError};

/// Writes a lease as a row.
pub(crate) fn row_of(lease: &Lease) -> LeaseRow {
    LeaseRow {
        network: lease.network.to_string(),
        address: lease.address.to_bits(),
        client: lease.client.to_string(),
        mac: lease.mac.map(|mac| mac.to_string()),
        state: lease.state.label().to_owned(),
        until_ms: lease.until.0,
    }
}

/// Reads a lease from a row.
///
/// # Errors
/// When it holds what no version of this program writes.
pub fn lease_of(row: &LeaseRow) -> Result<Lease, StoreError> {
    let address = Ipv4Addr::from_bits(row.address);
    let corrupt = |field, value: &str| StoreError::Corrupt {
        what: format!("the lease of {address}"),
        field,
        value: value.to_owned(),
    };
    let client: Client = row
        .client
        .parse()
        .map_err(|_| corrupt("client", &row.client))?;
    let mac = row
        .mac
        .as_deref()
        .map(|mac| mac.parse::<Mac>().map_err(|_| corrupt("mac", mac)));
    Ok(Lease {
        network: row.network.as_str().into(),
        address,
        client,
        mac: mac.transpose()?,
        state: row
            .state
            .parse()
            .map_err(|_| corrupt("state", &row.state))?,
        until: Timestamp(row.until_ms),
    })
}

#[cfg(test)]
mod tests {
    use netboot_core::dhcp::LeaseState;

    use super::*;

    #[test]
    fn a_lease_reads_back_what_it_writes() {
        for (client, mac) in [
            (Client::Host("web1".into()), Some(Mac([2, 0, 0, 0, 0, 1]))),
            (Client::Id([0, 1].into()), None),
        ] {
            let lease = Lease {
                network: "rack".into(),
                address: Ipv4Addr::new(10, 77, 0, 11),
                client,
                mac,
                state: LeaseState::Bound,
                until: Timestamp(5),
            };
            assert_eq!(lease_of(&row_of(&lease)).unwrap(), lease);
        }
    }
}
