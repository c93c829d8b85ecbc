//! Strict fakes of the clouds' interfaces, on loopback: they refuse what the clouds refuse, count what is asked, and fail on demand.
//!
//! They refuse to be lenient: a request that the documentation does not allow is answered as the cloud would, never guessed at.

pub mod aws;
pub mod azure;
mod faults;
pub mod gce;
pub mod glance;
pub mod oci;
mod server;

pub use faults::{Act, Fault, Faults, When};
pub use server::{Called, Kind, Reply, Request, Server, Service};
