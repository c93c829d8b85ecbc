//! Power, boot device, inventory and console of servers over IPMI 2.0 and Redfish.
//!
//! It refuses to guess: what a BMC does not say is unknown, and nothing destructive is sent twice.
