//! Signatures of images as cosign keeps them, and what one proves.
//!
//! It refuses to compute with keys: who verifies brings the function that does, so that stage1 and the builder share
//! all of the rest.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// A manifest with its signatures: answer to `GET /signed/<digest of a root file system>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Signed {
    /// The OCI manifest of the image, byte for byte.
    pub manifest: String,
    /// Who vouches for it.
    pub signatures: Vec<Signature>,
}

/// One signature, as cosign keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Signature {
    /// What was signed: a simple signing payload, byte for byte.
    pub payload: String,
    /// The signature over it, ECDSA in DER, in base64.
    pub signature: String,
}

/// Why signatures do not vouch for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// Nobody signed it.
    #[error("it has no signature")]
    None,
    /// No signature is by one of the keys.
    #[error("no signature of it is by a trusted key")]
    Untrusted,
    /// A trusted key signed another manifest.
    #[error("the signature is one of another manifest")]
    Other,
    /// The manifest that was signed does not have this root file system.
    #[error("the signed manifest has another root file system")]
    Rootfs,
}

/// The part of a simple signing payload that counts.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

/// The part of an OCI manifest that counts.
#[derive(Deserialize)]
struct Layers {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    digest: Digest,
}

impl Signature {
    /// What a payload says that it is.
    pub const TYPE: &str = "cosign container image signature";

    /// Returns the signature as bytes, if it is base64.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        decode_base64(&self.signature)
    }

    /// Returns the manifest that it is about, if the payload is one.
    #[must_use]
    pub fn subject(&self) -> Option<Digest> {
        let payload: Payload = serde_json::from_str(&self.payload).ok()?;
        let critical = payload.critical;
        (critical.kind == Self::TYPE).then_some(critical.image.digest)
    }
}

/// Checks that one of the signatures is of this manifest and by a key that is trusted; `verify` is told a payload and
/// the bytes of a signature over it.
///
/// # Errors
/// When none is.
pub fn check_signatures(
    manifest: &Digest,
    signatures: &[Signature],
    verify: impl Fn(&[u8], &[u8]) -> bool,
) -> Result<(), NotSigned> {
    if signatures.is_empty() {
        return Err(NotSigned::None);
    }
    let mut found = Err(NotSigned::Untrusted);
    for one in signatures {
        let good = one
            .bytes()
            .is_some_and(|bytes| verify(one.payload.as_bytes(), &bytes));
        if good && one.subject() == Some(*manifest) {
            return Ok(());
        }
        if good {
            found = Err(NotSigned::Other);
        }
    }
    found
}

impl Signed {
    /// Checks that a trusted key signed a manifest that has this root file system.
    ///
    /// # Errors
    /// When it did not.
    pub fn check(
        &self,
        rootfs: &Digest,
        verify: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Result<(), NotSigned> {
        let digest = Digest::of(self.manifest.as_bytes());
        check_signatures(&digest, &self.signatures, verify)?;
        let layers: Option<Layers> = serde_json::from_str(&self.manifest).ok();
        let layers = layers.map(|manifest| manifest.layers).unwrap_or_default();
        if layers.iter().any(|layer| layer.digest == *rootfs) {
            Ok(())
        } else {
            Err(NotSigned::Rootfs)
        }
    }
}

/// Reads base64 with padding (RFC 4648 §4), and nothing that is only like it.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if bytes.is_empty() || !bytes.len().is_multiple_of(4) {
        return None;
    }
    let padding = bytes.iter().rev().take_while(|byte| **byte == b'=').count();
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    for group in bytes[..bytes.len() - padding.min(2)].chunks(4) {
        let mut value = 0_u32;
        for byte in group {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            value = value << 6 | u32::from(digit);
        }
        let missing = 4 - group.len();
        if missing == 3 {
            return None;
        }
        let [_, bytes @ ..] = (value << (6 * missing)).to_be_bytes();
        let (kept, cut) = bytes.split_at(3 - missing);
        if cut.iter().any(|byte| *byte != 0) {
            return None;
        }
        out.extend_from_slice(kept);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_it_is_written() {
        let cases: [(&str, Option<&[u8]>); 10] = [
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("Zm9vYmE=", Some(b"fooba")),
            ("", None),
            ("Zg", None),
            ("Zh==", None),
            ("Z===", None),
            ("Zm9v\n", None),
            ("Zg==Zg==", None),
        ];
        for (text, expected) in cases {
            assert_eq!(decode_base64(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn only_a_signature_of_this_manifest_with_this_root_counts() {
        let rootfs = Digest::of(b"rootfs");
        let manifest = format!("{{\"layers\":[{{\"digest\":\"{rootfs}\"}}]}}");
        let digest = Digest::of(manifest.as_bytes());
        let payload = |kind: &str, digest: &Digest| {
            format!(
                "{{\"critical\":{{\"identity\":{{\"docker-reference\":\"\"}},\"image\":{{\"docker-manifest-digest\":\"{digest}\"}},\"type\":\"{kind}\"}},\"optional\":null}}"
            )
        };
        let signed = |payload: String| Signed {
            manifest: manifest.clone(),
            signatures: vec![Signature {
                payload,
                signature: "Zm9v".to_owned(),
            }],
        };
        let good = signed(payload(Signature::TYPE, &digest));
        let by_foo = |_: &[u8], signature: &[u8]| signature == b"foo";
        assert_eq!(good.check(&rootfs, by_foo), Ok(()));
        assert_eq!(good.check(&rootfs, |_, _| false), Err(NotSigned::Untrusted));
        let other = Digest::of(b"other");
        assert_eq!(good.check(&other, by_foo), Err(NotSigned::Rootfs));
        for payload in [
            payload(Signature::TYPE, &other),
            payload("another type", &digest),
            "{}".to_owned(),
        ] {
            let refused = signed(payload).check(&rootfs, by_foo);
            assert_eq!(refused, Err(NotSigned::Other));
        }
        let unsigned = Signed {
            signatures: Vec::new(),
            ..good
        };
        assert_eq!(unsigned.check(&rootfs, by_foo), Err(NotSigned::None));
    }
}
