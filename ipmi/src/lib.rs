//! Power, boot device, inventory and console of servers over IPMI 2.0 and Redfish.
//!
//! It refuses to guess: what a BMC does not say is unknown, and nothing destructive is sent twice.

pub mod bmc;
pub mod command;
pub mod crypto;
pub mod driver;
pub mod fleet;
pub mod fru;
pub mod inventory;
pub mod journal;
pub mod redfish;
pub mod sdr;
pub mod sel;
pub mod session;
#[cfg(feature = "sim")]
pub mod sim;
pub mod sol;
pub mod tls;
pub mod vendor;
pub mod wire;

pub use bmc::{
    Acted, Bmc, BootDevice, BootFirmware, BootOverride, Console, Credentials, Done, Endpoint,
    Error, Expected, Fingerprint, Identity, Intent, Inventory, Off, OperationId, Persistence,
    PowerState, Protocol, Recorded, ResetKind, Seen, Sent, Trust, Waiver, Waivers,
};
pub use journal::{Journal, Step};
