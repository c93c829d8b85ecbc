//! Who may do what: tokens of people and CI, their roles, and how often they may ask.
//!
//! It refuses to keep a token: only its SHA-256 is stored, and the text is shown once, to who made it.

mod pace;
mod reset;
#[cfg(test)]
mod tests;
mod token;
mod tokens;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use self::pace::{Failures, Pace, Refusals, client};
pub(crate) use self::reset::{Local, ResetError, reset};
pub use self::token::{KIND, TokenRow, TokenView, Wanted};
pub(crate) use self::tokens::{Caller, FIRST_FILE, Tokens};
pub use self::tokens::{Denied, TokenError};

/// What a token may do; each role may do what those before it may.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Changes hosts: deploys, rolls back, switches power, uses consoles.
    Operator,
    /// Changes the site and tokens, reads the audit log and makes backups.
    Admin,
}

impl Role {
    /// Returns its name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
