//! DHCP as a client sees it: rules one by one, laws over any packets, and another codec as judge.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail where the test does"
)]

mod decide;
mod firmware;
mod laws;
mod support;
mod wire;
mod words;
