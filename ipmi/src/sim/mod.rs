//! Simulated BMCs of both protocols.

pub mod ipmi;
pub mod redfish;
