//! DHCPv4 for hosts that boot: bytes to request, request to decision, reply to bytes.
//!
//! It refuses to send, to store and to wait: a [`Decision`] says what to do, and the shell does it.

mod decide;
mod decision;
mod firmware;
mod leases;
mod option;
mod reply;
mod request;
mod tries;
mod wire;

pub use decide::{answer, decide};
pub use decision::{Change, Decision, Note, Silence};
pub use firmware::{FETCHES_PER_LOADER, Firmware, Form, OFFERS_PER_FORM, Profile, loaders};
pub use leases::{Client, Lease, LeaseState, Leases, MalformedLease};
pub use option::option_name;
pub use reply::{About, Destination, Reply, ReplyKind, Value};
pub use request::{Arrival, Kind, Malformed, Port, RelayInfo, Request};
pub use tries::{Tried, Tries};
