//! The publisher to Microsoft's cloud, against a strict fake of it.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod credentials;
mod faults;
mod images;
mod keeping;
mod owners;
mod world;
