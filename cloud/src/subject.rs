//! What is published: one stored image, and the bytes of its disk in the forms that clouds take.
//!
//! It refuses to know where the bytes come from: whoever builds composes them.

use std::fmt::Debug;
use std::io::{self, Read};
use std::sync::Arc;

use image_manifest::{BlockMap, Digest, FormKind};
use time::OffsetDateTime;
use time::macros::format_description;

/// One image that is to be published.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Name of the image, as its definition gives it.
    pub name: String,
    /// Debian's name of its architecture, such as `amd64`.
    pub architecture: String,
    /// Distribution and release, such as `debian/trixie`.
    pub distribution: String,
    /// Its version, for people: by default its day and the first digits of its digest.
    pub version: String,
    /// Digest of the manifest: what objects in clouds are found by.
    pub manifest: Digest,
    /// The tree digest: the identity that every tier shares.
    pub tree: Digest,
    /// The only clock of the build, in seconds since 1970.
    pub source_date: i64,
    /// Its disk; absent when the image has none.
    pub disk: Option<Arc<dyn Disk>>,
}

/// The disk of an image, composed while it is read.
pub trait Disk: Debug + Send + Sync {
    /// Which blocks of the raw disk are data, must read as zero, or were never written.
    fn blocks(&self) -> &BlockMap;

    /// Digest and size in bytes of a form; `None` when the image does not have it.
    fn form(&self, kind: FormKind) -> Option<(Digest, u64)>;

    /// Fills the buffer from an offset of the raw disk.
    ///
    /// # Errors
    /// When the disk ends before, or cannot be read.
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The 512 bytes that stand behind the raw disk in its fixed VHD.
    fn vhd_footer(&self) -> [u8; 512];

    /// Opens a form as a stream, from an offset on.
    ///
    /// # Errors
    /// When it cannot be read.
    fn open(&self, kind: FormKind, from: u64) -> io::Result<Box<dyn Read + Send>>;
}

impl Subject {
    /// What objects are found by where a name of 63 characters of `a-z 0-9` is all there is: the manifest's digest in
    /// base32 (RFC 4648 §6, lower case, 52 characters).
    #[must_use]
    pub fn key(&self) -> String {
        base32(self.manifest.as_bytes())
    }

    /// Replaces `{image}`, `{version}` and `{architecture}` in a name of a targets file.
    #[must_use]
    pub fn fill(&self, template: &str) -> String {
        let filled = template.replace("{image}", &self.name);
        let filled = filled.replace("{version}", &self.version);
        filled.replace("{architecture}", &self.architecture)
    }

    /// The version that an image has when nobody gives it one: `20260102-0123abcd`.
    #[must_use]
    pub fn default_version(source_date: i64, manifest: &Digest) -> String {
        let day = OffsetDateTime::from_unix_timestamp(source_date);
        let day = day.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let day = day.format(format_description!("[year][month][day]"));
        let digits = manifest.short();
        format!("{}-{}", day.unwrap_or_default(), &digits[..8])
    }

    /// The tags that every object of this image carries, wherever keys and values are free text.
    #[must_use]
    pub fn tags(&self) -> Vec<(String, String)> {
        let tags = [
            (TAG_IMAGE, self.name.clone()),
            (TAG_VERSION, self.version.clone()),
            (TAG_ARCHITECTURE, self.architecture.clone()),
            (TAG_MANIFEST, self.manifest.to_string()),
            (TAG_TREE, self.tree.to_string()),
        ];
        tags.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

/// Tag with the name of the image.
pub const TAG_IMAGE: &str = "firstboot:image";
/// Tag with its version.
pub const TAG_VERSION: &str = "firstboot:version";
/// Tag with its architecture.
pub const TAG_ARCHITECTURE: &str = "firstboot:architecture";
/// Tag with the digest of its manifest: what an object is found by.
pub const TAG_MANIFEST: &str = "firstboot:manifest";
/// Tag with the name of the target: two targets of one account do not take each other's objects.
pub const TAG_TARGET: &str = "firstboot:target";
/// Tag with the type of the instance that was seen to be healthy.
pub const TAG_LAUNCHED: &str = "firstboot:launched";
/// Tag with the name of the target, of instances that are only launched to be seen: others may have the tags of their image.
pub const TAG_CHECK: &str = "firstboot:launch-check";
/// Tag with the tree digest.
pub const TAG_TREE: &str = "firstboot:tree";

fn base32(bytes: &[u8]) -> String {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut word, mut bits) = (0u32, 0);
    for byte in bytes {
        word = word << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(alphabet[(word >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(alphabet[(word << (5 - bits) & 31) as usize]));
    }
    text
}

/// The digest of a manifest that a key names; `None` when it is no key of [`Subject::key`].
#[must_use]
pub fn manifest_of(key: &str) -> Option<Digest> {
    let (mut bytes, mut word, mut bits) = (Vec::with_capacity(32), 0u32, 0);
    for letter in key.bytes() {
        let value = match letter {
            b'a'..=b'z' => letter - b'a',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => return None,
        };
        word = (word & 0xff) << 5 | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits & 0xff) as u8);
        }
    }
    let digest = Digest::from_bytes(bytes.try_into().ok()?);
    // One digest has one key.
    (base32(digest.as_bytes()) == key).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_manifest_and_no_other_text_does() {
        for text in ["", "a", "firstboot"] {
            let digest = Digest::of(text.as_bytes());
            let key = base32(digest.as_bytes());
            assert_eq!(key.len(), 52);
            assert_eq!(manifest_of(&key), Some(digest), "{text}");
            assert_eq!(manifest_of(&key[1..]), None, "{text}");
            assert_eq!(manifest_of(&format!("{key}a")), None, "{text}");
            assert_eq!(manifest_of(&format!("{}z", &key[..51])), None, "{text}");
        }
        assert_eq!(manifest_of("not a key"), None);
    }

    #[test]
    fn keys_are_those_of_rfc_4648() {
        let cases = [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foobar", "mzxw6ytboi"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(base32(bytes.as_bytes()), expected, "{bytes}");
        }
    }

    #[test]
    fn a_version_has_the_day_and_the_digest() {
        let found = Subject::default_version(1_767_312_000, &Digest::of(b""));
        assert_eq!(found, "20260102-e3b0c442");
    }
}
