//! The timeline of one boot and what it means.
