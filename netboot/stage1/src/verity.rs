//! What checks a root file system block by block: the parameters that stand before a hash tree, and the line that
//! the kernel's dm-verity takes.
//!
//! Nothing of what it reads is trusted: a wrong salt or size leads to hashes that do not lead to the root hash.

use std::fmt;
use std::str::FromStr;

use crate::gpt::Guid;

/// Bytes before the hash tree that say how it was made (`struct verity_sb` of cryptsetup).
pub(crate) const SUPERBLOCK: usize = 512;
/// The one size of blocks that images are made with.
const BLOCK: u32 = 4096;
const LONGEST_SALT: usize = 256;

/// The hash that all of a root file system leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RootHash([u8; 32]);

/// How the hashes of a root file system were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// The identity of this hash tree.
    uuid: [u8; 16],
    blocks: u64,
    salt: Vec<u8>,
}

/// What is done when a block does not have its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDamage {
    /// Reading fails, so that stage1 can say what is wrong.
    Fail,
    /// The kernel stops: nothing of a running host goes on with what somebody changed.
    Panic,
}

/// Why the hashes of a root file system cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("no hash tree of dm-verity begins there")]
    Absent,
    #[error("its {0} is not what images are made with")]
    Parameter(&'static str),
    #[error("it covers {covered} bytes of a partition that has {size}")]
    Size { covered: u64, size: u64 },
}

impl RootHash {
    /// Returns the identities of the two partitions that belong to this hash: root file system and hash tree
    /// (UAPI.2, discoverable partitions).
    pub(crate) fn partitions(&self) -> (Guid, Guid) {
        let half = |bytes: &[u8]| {
            let number = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u128::from(*byte));
            Guid::new(number)
        };
        (half(&self.0[..16]), half(&self.0[16..]))
    }
}

impl FromStr for RootHash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(());
        }
        let mut hash = [0; 32];
        for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| ())?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl Superblock {
    /// Reads the bytes before a hash tree.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unusable> {
        let bytes: &[u8; SUPERBLOCK] = bytes.try_into().map_err(|_| Unusable::Absent)?;
        if bytes[..8] != *b"verity\0\0" {
            return Err(Unusable::Absent);
        }
        let number = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let salt = usize::from(u16::from_le_bytes([bytes[80], bytes[81]]));
        let checks = [
            ("version", number(8) == 1),
            ("kind of hash", number(12) == 1),
            ("hash", bytes[32..64].starts_with(b"sha256\0")),
            ("size of data blocks", number(64) == BLOCK),
            ("size of hash blocks", number(68) == BLOCK),
            ("salt", salt <= LONGEST_SALT),
        ];
        if let Some((name, _)) = checks.iter().find(|(_, good)| !good) {
            return Err(Unusable::Parameter(name));
        }
        let (mut uuid, mut blocks) = ([0; 16], [0; 8]);
        uuid.copy_from_slice(&bytes[16..32]);
        blocks.copy_from_slice(&bytes[72..80]);
        Ok(Self {
            uuid,
            blocks: u64::from_le_bytes(blocks),
            salt: bytes[88..88 + salt].to_vec(),
        })
    }

    /// Returns how many bytes the hashes cover, which have to be there.
    pub(crate) fn covered(&self, size: u64) -> Result<u64, Unusable> {
        let covered = self.blocks.saturating_mul(BLOCK.into());
        if covered == 0 || covered > size {
            return Err(Unusable::Size { covered, size });
        }
        Ok(covered)
    }

    /// Writes the line that the kernel takes (its `admin-guide/device-mapper/verity.rst`).
    pub(crate) fn table(
        &self,
        root: &str,
        hashes: &str,
        hash: &RootHash,
        damage: OnDamage,
    ) -> String {
        let blocks = self.blocks;
        let salt = Salt(&self.salt);
        let options = match damage {
            OnDamage::Fail => "",
            OnDamage::Panic => " 1 panic_on_corruption",
        };
        format!("1 {root} {hashes} {BLOCK} {BLOCK} {blocks} 1 sha256 {hash} {salt}{options}")
    }

    /// Names the device as `veritysetup` does, so that it knows it.
    pub(crate) fn device_uuid(&self, name: &str) -> String {
        let uuid = Salt(&self.uuid);
        format!("CRYPT-VERITY-{uuid}-{name}")
    }
}

struct Salt<'a>(&'a [u8]);

impl fmt::Display for Salt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        hex(self.0, f)
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "c83ce6dc4aafd8c7bd45d5a2d9a3e9df4ff4b8b7b4b7a53da14c4e0a4d4f5b6a";

    /// As `veritysetup format --salt=0102 --uuid=…` writes it for 21,504 blocks.
    fn superblock() -> [u8; SUPERBLOCK] {
        let mut bytes = [0; SUPERBLOCK];
        bytes[..6].copy_from_slice(b"verity");
        bytes[8] = 1;
        bytes[12] = 1;
        bytes[16..32].fill(0xab);
        bytes[32..38].copy_from_slice(b"sha256");
        bytes[65] = 0x10;
        bytes[69] = 0x10;
        bytes[73] = 0x54;
        bytes[80] = 2;
        bytes[88..90].copy_from_slice(&[1, 2]);
        bytes
    }

    #[test]
    fn a_superblock_becomes_a_line_for_the_kernel() {
        let hash: RootHash = HASH.parse().unwrap();
        let mut bytes = superblock();
        let read = Superblock::decode(&bytes).unwrap();
        assert_eq!(
            read.table("/dev/vda2", "/dev/vda3", &hash, OnDamage::Panic),
            format!(
                "1 /dev/vda2 /dev/vda3 4096 4096 21504 1 sha256 {HASH} 0102 1 panic_on_corruption"
            )
        );
        assert_eq!(
            read.device_uuid("root"),
            "CRYPT-VERITY-abababababababababababababababab-root"
        );
        bytes[80] = 0;
        let read = Superblock::decode(&bytes).unwrap();
        assert_eq!(
            read.table("a", "b", &hash, OnDamage::Fail),
            format!("1 a b 4096 4096 21504 1 sha256 {HASH} -")
        );
        let size = 21504 * 4096;
        assert_eq!(read.covered(size), Ok(size));
        let (covered, size) = (size, size - 1);
        assert_eq!(read.covered(size), Err(Unusable::Size { covered, size }));
    }

    #[test]
    fn what_images_are_not_made_with_is_refused() {
        let cases = [
            ("signature", 0, Unusable::Absent),
            ("version", 8, Unusable::Parameter("version")),
            ("kind", 12, Unusable::Parameter("kind of hash")),
            ("hash", 34, Unusable::Parameter("hash")),
            (
                "data blocks",
                64,
                Unusable::Parameter("size of data blocks"),
            ),
            (
                "hash blocks",
                70,
                Unusable::Parameter("size of hash blocks"),
            ),
            ("salt", 81, Unusable::Parameter("salt")),
        ];
        for (name, at, expected) in cases {
            let mut bytes = superblock();
            bytes[at] ^= 0x20;
            assert_eq!(Superblock::decode(&bytes), Err(expected), "{name}");
        }
        assert_eq!(Superblock::decode(&[]), Err(Unusable::Absent));
    }

    #[test]
    fn a_root_hash_names_its_partitions() {
        let hash: RootHash = HASH.parse().unwrap();
        assert_eq!(hash.to_string(), HASH);
        let (root, hashes) = hash.partitions();
        assert_eq!(root.to_string(), "c83ce6dc-4aaf-d8c7-bd45-d5a2d9a3e9df");
        assert_eq!(hashes.to_string(), "4ff4b8b7-b4b7-a53d-a14c-4e0a4d4f5b6a");
        for text in [
            "",
            &HASH[1..],
            &HASH.replace('c', "g"),
            &HASH.replace("c8", "+8"),
        ] {
            assert!(text.parse::<RootHash>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), SUPERBLOCK), size: u64) {
            bytes[..80].copy_from_slice(&superblock()[..80]);
            if let Ok(read) = Superblock::decode(&bytes) {
                prop_assert!(read.salt.len() <= LONGEST_SALT);
                prop_assert!(read.covered(size).is_ok_and(|covered| covered <= size) || size < 21504 * 4096);
            }
        }
    }
}
