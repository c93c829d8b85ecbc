//! Codes of the DHCP options that we read or write, named after RFC 2132 unless said otherwise.
//!
//! It refuses to know their values.

pub(super) const PAD: u8 = 0;
pub(super) const SUBNET_MASK: u8 = 1;
pub(super) const ROUTER: u8 = 3;
pub(super) const DNS: u8 = 6;
pub(super) const HOST_NAME: u8 = 12;
pub(super) const DOMAIN_NAME: u8 = 15;
pub(super) const BROADCAST: u8 = 28;
pub(super) const VENDOR: u8 = 43;
pub(super) const REQUESTED_ADDRESS: u8 = 50;
pub(super) const LEASE_TIME: u8 = 51;
pub(super) const OVERLOAD: u8 = 52;
pub(super) const MESSAGE_TYPE: u8 = 53;
pub(super) const SERVER_ID: u8 = 54;
pub(super) const MESSAGE: u8 = 56;
pub(super) const MAX_SIZE: u8 = 57;
pub(super) const RENEWAL_TIME: u8 = 58;
pub(super) const REBINDING_TIME: u8 = 59;
pub(super) const VENDOR_CLASS: u8 = 60;
pub(super) const CLIENT_ID: u8 = 61;
pub(super) const TFTP_SERVER: u8 = 66;
pub(super) const BOOT_FILE: u8 = 67;
/// RFC 3004.
pub(super) const USER_CLASS: u8 = 77;
/// RFC 3046.
pub(super) const RELAY_INFO: u8 = 82;
/// RFC 4578.
pub(super) const ARCHITECTURE: u8 = 93;
/// RFC 4578.
pub(super) const GUID: u8 = 97;
/// Etherboot's encapsulated options, as iPXE uses them.
pub(super) const IPXE: u8 = 175;
pub(super) const END: u8 = 255;

/// Suboption of [`IPXE`]: do not wait for a ProxyDHCP server.
pub(super) const IPXE_NO_PXEDHCP: u8 = 176;

/// Suboption of [`RELAY_INFO`]: the port that the packet came in by.
pub(super) const RELAY_CIRCUIT: u8 = 1;
/// Suboption of [`RELAY_INFO`]: the client at that port.
pub(super) const RELAY_REMOTE: u8 = 2;
/// Suboption of [`RELAY_INFO`]: the link to choose an address for (RFC 3527).
pub(super) const RELAY_LINK: u8 = 5;
/// Suboption of [`RELAY_INFO`]: the server identifier to answer with (RFC 5107).
pub(super) const RELAY_SERVER_ID: u8 = 11;

/// Names an option that we send, for people.
#[must_use]
pub fn option_name(code: u8) -> &'static str {
    match code {
        SUBNET_MASK => "subnet mask",
        ROUTER => "router",
        DNS => "name servers",
        HOST_NAME => "host name",
        DOMAIN_NAME => "domain",
        BROADCAST => "broadcast",
        VENDOR => "vendor options",
        LEASE_TIME => "lease time",
        SERVER_ID => "server",
        MESSAGE => "message",
        RENEWAL_TIME => "renewal time",
        REBINDING_TIME => "rebinding time",
        VENDOR_CLASS => "vendor class",
        CLIENT_ID => "client id",
        TFTP_SERVER => "tftp server",
        BOOT_FILE => "boot file",
        GUID => "guid",
        IPXE => "ipxe options",
        _ => "option",
    }
}
