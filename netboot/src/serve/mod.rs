//! The running appliance: receive, decide in the core, store, send.
//!
//! It refuses to hold rules of its own: sockets and order of events are all that is here.

pub mod catalogue;
pub mod http;
pub mod tftp;
