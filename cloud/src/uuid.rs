//! Names that two publishers of the same choose alike: UUIDs made of what is named.
//!
//! It refuses chance: the same text is always the same name.

use image_manifest::Digest;

/// A UUID of a text (RFC 9562 §5.8: version 8, by SHA-256).
#[must_use]
pub fn uuid(text: &str) -> String {
    let mut bytes = *Digest::of(text.as_bytes()).as_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = Digest::from_bytes(bytes).hex();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..32],
    ];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_its_version_and_variant() {
        // The first 16 bytes of SHA-256 of nothing are e3b0c442 98fc1c14 9afbf4c8 996fb924.
        assert_eq!(uuid(""), "e3b0c442-98fc-8c14-9afb-f4c8996fb924");
    }
}
