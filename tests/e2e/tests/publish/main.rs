//! Images in clouds: published once and whole, by the program that people run, to strict fakes and to peers that no one here wrote.
//!
//! It refuses to speak with anybody but servers of its own on the loopback.

mod aws;
mod azure;
mod clouds;
mod desk;
mod registries;
mod storage;
mod terraform;
mod workflow;
