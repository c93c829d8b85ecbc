//! What must not be shown: the bearer tokens of a boot, and the secrets of a host.
//!
//! Neither has a `Display`, and their `Debug` says nothing; both are wiped from memory when they are
//! dropped. Equality takes a time that does not depend on where two of them differ.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize as _, Zeroizing};

/// A bearer token.
#[derive(Clone)]
pub struct Token(String);

/// A text that cannot be a token; it is not repeated, because it might be half of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has 1 to 256 characters of `A-Z a-z 0-9 - . _ ~ + / =`")]
pub struct MalformedToken;

impl Token {
    /// Returns the token itself.
    #[must_use]
    pub fn expose(&self) -> &str {
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

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        text.parse().map_err(D::Error::custom)
    }
}

/// The content of a secret; in JSON it is hexadecimal digits, because it may be any bytes.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the content of a secret.
    #[must_use]
    pub fn new(content: Vec<u8>) -> Self {
        Self(content)
    }

    /// Returns the secret itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = b"0123456789abcdef";
        // Grown at once, so that no half of it is left behind in freed memory.
        let mut text = Zeroizing::new(String::with_capacity(self.0.len() * 2));
        for byte in &self.0 {
            text.push(char::from(digits[usize::from(byte >> 4)]));
            text.push(char::from(digits[usize::from(byte & 15)]));
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let malformed = || D::Error::custom("a secret is an even number of hexadecimal digits");
        if text.len() % 2 != 0 {
            return Err(malformed());
        }
        let digit = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        };
        let mut secret = Self(Vec::with_capacity(text.len() / 2));
        for pair in text.as_bytes().chunks_exact(2) {
            let (high, low) = (digit(pair[0]), digit(pair[1]));
            let byte = high.zip(low).map(|(high, low)| high << 4 | low);
            secret.0.push(byte.ok_or_else(malformed)?);
        }
        Ok(secret)
    }
}

macro_rules! confidential {
    ($name:ident) => {
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                let (a, b): (&[u8], &[u8]) = (self.0.as_ref(), other.0.as_ref());
                let differing = a.iter().zip(b).fold(0, |seen, (a, b)| seen | (a ^ b));
                a.len() == b.len() && std::hint::black_box(differing) == 0
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }
    };
}

confidential!(Token);
confidential!(Secret);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_rfc_6750() {
        for good in ["a", "A-Z._~+/=", &"x".repeat(256)] {
            assert_eq!(good.parse::<Token>().unwrap().expose(), good);
        }
        for bad in ["", " ", "a b", "a\"", "é", "a\n", &"x".repeat(257)] {
            assert_eq!(bad.parse::<Token>(), Err(MalformedToken), "{bad}");
        }
    }

    #[test]
    fn neither_shows_itself_and_both_travel_whole() {
        let token: Token = "s3cret".parse().unwrap();
        let secret = Secret::new(vec![0, 0x5c, 0xff]);
        assert_eq!(format!("{token:?} {secret:?}"), "Token Secret");
        let text = serde_json::to_string(&(&token, &secret)).unwrap();
        assert_eq!(text, r#"["s3cret","005cff"]"#);
        let (again, contents): (Token, Secret) = serde_json::from_str(&text).unwrap();
        assert!(again == token && contents == secret);
        assert!(
            contents != Secret::new(vec![0, 0x5c]) && contents != Secret::new(vec![0, 0x5c, 0xfe])
        );
    }

    #[test]
    fn what_is_malformed_is_not_repeated() {
        for (name, text) in [
            ("odd", "\"c0ffe\""),
            ("no digit", "\"zz\""),
            ("sign", "\"+1\""),
        ] {
            let error = serde_json::from_str::<Secret>(text)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("hexadecimal") && !error.contains("c0ffe"),
                "{name}: {error}"
            );
        }
        let error = serde_json::from_str::<Token>("\"s3 cret\"")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("s3"), "{error}");
    }
}
