//! The netascii form of a file.
//!
//! It refuses to guess: every LF becomes CR LF and every CR becomes CR NUL (RFC 764), so a client that
//! turns them back has the very bytes of the file.

/// Writes the bytes of a file as they travel in netascii mode.
#[must_use]
pub fn to_netascii(content: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(content.len() + content.len() / 64);
    for &byte in content {
        match byte {
            b'\n' => text.extend(b"\r\n"),
            b'\r' => text.extend(b"\r\0"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from_netascii(text: &[u8]) -> Vec<u8> {
        let mut bytes = text.iter().copied();
        let mut content = Vec::new();
        while let Some(byte) = bytes.next() {
            content.push(match byte {
                b'\r' if bytes.next() == Some(b'\n') => b'\n',
                other => other,
            });
        }
        content
    }

    proptest! {
        #[test]
        fn a_client_gets_the_bytes_back(content in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200)) {
            prop_assert_eq!(from_netascii(&to_netascii(&content)), content);
        }
    }
}
