//! What people ask about images and locks: what is in them, what differs, and why something is there.
//!
//! It refuses to change anything.

pub mod difference;
pub mod inspect;
pub mod why;
