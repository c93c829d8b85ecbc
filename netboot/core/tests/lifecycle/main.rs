//! The lifecycle against a simulated rack: hosts that boot or do not, BMCs that lie low, lag, lose
//! what they are sent, an appliance that dies at any point, and clocks that jump.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail where the test does"
)]

mod chance;
mod decode;
mod laws;
mod rack;
mod rollouts;
mod world;
