//! The boot token: what lets one boot of one host speak for itself.
//!
//! It has no `Debug` and no `Display`, so it cannot end up in a message; [`Token::expose`] is
//! for the request header and for the agent's configuration only.

use std::str::FromStr;

/// The bearer token of one boot.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

/// A text that cannot be a token; it is not repeated, because it might be half of one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has 1 to 256 characters of `A-Z a-z 0-9 - . _ ~ + / =`")]
pub(crate) struct MalformedToken;

impl Token {
    /// Returns the token itself.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = MalformedToken;

    // RFC 6750 §2.1: the characters of a bearer token.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        if text.is_empty() || text.len() > 256 || !text.chars().all(allowed) {
            return Err(MalformedToken);
        }
        Ok(Self(text.to_owned()))
    }
}
