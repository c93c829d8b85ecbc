//! Whether a trusted key vouches for the image that this initrd was built with.
//!
//! The keys stand in the initrd. It refuses to take the appliance's word: what is signed must lead to the very root file
//! system that this initrd fetches.

use image_manifest::{BootImage, NotSigned, Signed};
use webpki::ring::ECDSA_P256_SHA256;

/// Why an image is not booted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("this initrd has a malformed key")]
    Key,
    #[error("image `{image}` is refused")]
    Refused { image: String, source: NotSigned },
}

/// Checks what the appliance has for an image whose initrd has keys.
pub(crate) fn check(image: &BootImage, signed: &Signed) -> Result<(), Error> {
    let keys: Option<Vec<_>> = image.signers.iter().map(|key| bytes(key)).collect();
    let keys = keys.ok_or(Error::Key)?;
    let verify = |payload: &[u8], signature: &[u8]| {
        let good = |key: &Vec<u8>| {
            let verified = ECDSA_P256_SHA256.verify_signature(key, payload, signature);
            verified.is_ok()
        };
        keys.iter().any(good)
    };
    let checked = signed.check(&image.rootfs, verify);
    checked.map_err(|source| Error::Refused {
        image: image.name.clone(),
        source,
    })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use image_manifest::{Chunks, Digest, Signature};

    use super::*;

    // Made by `openssl ecparam -name prime256v1 -genkey`, `openssl dgst -sha256 -sign`; see `testdata/signed.sh`.
    const KEY: &str = include_str!("../testdata/signer.hex");
    const MANIFEST: &str = include_str!("../testdata/signed-manifest.json");
    const PAYLOAD: &str = include_str!("../testdata/signed-payload.json");
    const SIGNATURE: &str = include_str!("../testdata/signed.sig");

    fn image(rootfs: Digest) -> BootImage {
        BootImage {
            name: "host".to_owned(),
            tree: Digest::of(b"tree"),
            rootfs,
            size: 6,
            chunks: Chunks {
                size: 6,
                digests: vec![rootfs],
            },
            signers: vec![KEY.trim().to_owned()],
        }
    }

    fn signed() -> Signed {
        Signed {
            manifest: MANIFEST.to_owned(),
            signatures: vec![Signature {
                payload: PAYLOAD.to_owned(),
                signature: SIGNATURE.trim().to_owned(),
            }],
        }
    }

    #[test]
    fn what_openssl_signed_boots_and_nothing_else() {
        let image = image(Digest::of(b"rootfs"));
        assert!(check(&image, &signed()).is_ok());
        let refused = |image: &BootImage, signed: &Signed| match check(image, signed) {
            Err(Error::Refused { source, .. }) => source,
            other => panic!("{other:?}"),
        };
        let mut changed = signed();
        changed.signatures[0].payload = PAYLOAD.replace("optional", "Optional");
        assert_eq!(refused(&image, &changed), NotSigned::Untrusted);
        let mut changed = signed();
        changed.manifest.push(' ');
        assert_eq!(refused(&image, &changed), NotSigned::Other);
        let mut other = image.clone();
        other.rootfs = Digest::of(b"another");
        assert_eq!(refused(&other, &signed()), NotSigned::Rootfs);
        let mut stranger = image.clone();
        stranger.signers[0].replace_range(2..4, "00");
        assert_eq!(refused(&stranger, &signed()), NotSigned::Untrusted);
        stranger.signers[0].push('0');
        assert!(matches!(check(&stranger, &signed()), Err(Error::Key)));
        let unsigned = Signed {
            signatures: Vec::new(),
            ..signed()
        };
        assert_eq!(refused(&image, &unsigned), NotSigned::None);
    }
}
