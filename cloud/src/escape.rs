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

/// Reads what was escaped; what no escape would write becomes `?`.
#[must_use]
pub fn unescape(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let digits = [bytes.next(), bytes.next()];
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                match digits.map(digit) {
                    [Some(high), Some(low)] => u8::try_from(high << 4 | low).unwrap_or(b'?'),
                    _ => b'?',
                }
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_unreserved_letters_are_escaped() {
        assert_eq!(escape("a-Z_0.~"), "a-Z_0.~");
        assert_eq!(escape("a/b c=\"ä\""), "a%2Fb%20c%3D%22%C3%A4%22");
    }

    #[test]
    fn what_was_escaped_is_read_again_and_nonsense_does_no_harm() {
        for text in ["", "a/b c=\"ä\"", "100%+", "%41"] {
            assert_eq!(unescape(&escape(text)), text);
        }
        for (text, expected) in [
            ("%", "?"),
            ("%4", "?"),
            ("%+5x", "?x"),
            ("%zz", "?"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }
}
