//! Debian archives as data: control files, signed releases, indexes, resolution and packages.
//!
//! It refuses to fetch, to write files and to run anything: bytes come in, values go out.

pub mod deb;
pub mod deb822;
pub mod openpgp;
pub mod packages;
pub mod relation;
pub mod release;
pub mod resolve;
pub mod version;
