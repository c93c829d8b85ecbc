//! The API as clients meet it: over TLS, with tokens, through the real router.

mod backups;
mod document;
mod rig;
mod roles;
mod tokens;
