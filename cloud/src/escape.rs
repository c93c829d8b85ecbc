//! Text in URLs.
//!
//! It refuses to leave anything but unreserved letters as they are.

use std::fmt::Write as _;

/// Escapes what stands in a path or a query (RFC 3986 §2.1).
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing into text cannot fail.
            write!(escaped, "%{byte:02X}").unwrap_or_default();
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_unreserved_letters_are_escaped() {
        assert_eq!(escape("a-Z_0.~"), "a-Z_0.~");
        assert_eq!(escape("a/b c=\"ä\""), "a%2Fb%20c%3D%22%C3%A4%22");
    }
}
