//! Signatures of images, in the form that cosign writes and reads.
//!
//! It refuses to sign what the store does not have in full, and to say more than a signature does: that whoever holds
//! the key named this very manifest.

pub mod key;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image_manifest::layout::{self, Layout, signature_name};
use image_manifest::{Digest, NotSigned, Signature, check_signatures};
use serde::Serialize;

pub use key::{Error as KeyError, PrivateKey, PublicKey, Unlock};

/// One manifest that was signed; `--json` prints these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// The name of what was signed.
    pub name: String,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Name under which the store keeps the signature.
    pub stored_as: String,
    /// The signature, ECDSA in DER, in base64.
    pub signature: String,
}

/// Why an image is not signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image could not be found, or the signature not be kept.
    #[error("failed to sign `{reference}`")]
    Store {
        /// What was asked for.
        reference: String,
        /// Why.
        source: layout::Error,
    },
    /// No signature vouches for the image.
    #[error("image `{reference}` is refused")]
    Refused {
        /// What was asked for.
        reference: String,
        /// Why.
        source: NotSigned,
    },
}

/// Signs an image, and the container image that was made with it where it is the newest.
///
/// # Errors
/// When the store does not have the image in full, or cannot be written.
pub fn sign(store: &Layout, reference: &str, key: &PrivateKey) -> Result<Vec<Outcome>, Error> {
    let failed = |source| Error::Store {
        reference: reference.to_owned(),
        source,
    };
    let found = store.resolve(reference).map_err(failed)?;
    for artifact in &found.manifest.artifacts {
        store.check(artifact).map_err(failed)?;
    }
    let name = found.manifest.name;
    let mut subjects = vec![(name.clone(), found.digest)];
    let newest = store.resolve(&name).map_err(failed)?;
    if newest.digest == found.digest {
        let container = format!("{name}-oci");
        let entry = store.named(&container).map_err(failed)?;
        subjects.extend(entry.map(|entry| (container, entry.digest)));
    }
    let signed = subjects.into_iter().map(|(name, manifest)| {
        let payload = payload(&name, &manifest);
        let signature = STANDARD.encode(key.sign(payload.as_bytes()));
        let kept = Signature {
            payload,
            signature: signature.clone(),
        };
        store.add_signature(&manifest, &kept).map_err(failed)?;
        Ok(Outcome {
            name,
            manifest,
            stored_as: signature_name(&manifest),
            signature,
        })
    });
    signed.collect()
}

/// Checks that one of the keys signed an image.
///
/// # Errors
/// When none did, or the store cannot be read.
pub fn check(
    store: &Layout,
    reference: &str,
    manifest: &Digest,
    keys: &[PublicKey],
) -> Result<(), Error> {
    let signatures = store.signatures(manifest).map_err(|source| Error::Store {
        reference: reference.to_owned(),
        source,
    })?;
    let verify =
        |payload: &[u8], signature: &[u8]| keys.iter().any(|key| key.verify(payload, signature));
    check_signatures(manifest, &signatures, verify).map_err(|source| Error::Refused {
        reference: reference.to_owned(),
        source,
    })
}

/// The simple signing payload, byte for byte as cosign writes it.
fn payload(name: &str, manifest: &Digest) -> String {
    // A name has no character that JSON would escape.
    format!(
        "{{\"critical\":{{\"identity\":{{\"docker-reference\":\"{name}\"}},\"image\":{{\"docker-manifest-digest\":\"{manifest}\"}},\"type\":\"{}\"}},\"optional\":null}}",
        Signature::TYPE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_the_one_that_cosign_writes() {
        let digest = Digest::of(b"");
        let expected = "{\"critical\":{\"identity\":{\"docker-reference\":\"host\"},\"image\":{\"docker-manifest-digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"},\"type\":\"cosign container image signature\"},\"optional\":null}";
        assert_eq!(payload("host", &digest), expected);
    }
}
