//! Deployments over a simulated BMC, with an appliance that is killed at every step of them.

mod crash;
mod orders;
mod rig;
mod seen;
