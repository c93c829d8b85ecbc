//! DHCP as a client sees it: rules one by one, laws over any packets, and another codec as judge.

mod decide;
mod laws;
mod support;
mod wire;
