//! GUIDs of partitions and disks, derived from digests.
//!
//! It refuses random ones.

use std::fmt;

use image_manifest::{Digest, Hasher};

/// A GUID, its bytes in the order of its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The GUID of something that belongs to a tree, of version 8 (RFC 9562 §5.8).
    #[must_use]
    pub fn of(tree: &Digest, what: &str) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(b"firstboot disk\0");
        hasher.update(tree.as_bytes());
        hasher.update(what.as_bytes());
        let digest = hasher.finish();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_bytes()[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// The GUIDs of a root partition and of its hash tree: the two halves of the root hash.
    #[must_use]
    pub fn halves(root_hash: &Digest) -> [Self; 2] {
        let mut halves = [[0; 16]; 2];
        halves[0].copy_from_slice(&root_hash.as_bytes()[..16]);
        halves[1].copy_from_slice(&root_hash.as_bytes()[16..]);
        halves.map(Self)
    }

    /// As GPT stores it: the first three groups with their lowest byte first.
    #[must_use]
    pub fn mixed(self) -> [u8; 16] {
        let mut mixed = self.0;
        mixed[..4].reverse();
        mixed[4..6].reverse();
        mixed[6..8].reverse();
        mixed
    }

    /// From the bytes that GPT stores.
    #[must_use]
    pub fn from_mixed(bytes: [u8; 16]) -> Self {
        Self(Self(bytes).mixed())
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
