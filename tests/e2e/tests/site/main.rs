//! What operators do with the appliance itself: its site, tokens, audit log, backups and clock; and what hosts may not do.
//!
//! It refuses to take the appliance's word where another tool can judge: curl, diff, jq, sqlite3, sha256sum, python.

mod access;
mod apply;
mod audit;
mod backup;
mod clock;
mod document;
mod leaks;
mod machine;

use e2e::haunted::build_images;
use e2e::rig::{Rig, SITE};

/// A rack without hosts, whose store has the image of their role.
fn rack() -> Rig {
    build_images();
    Rig::new(SITE)
}
