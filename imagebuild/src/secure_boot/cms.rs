//! The message of a signature: `SignedData` (RFC 5652 §5) over what Authenticode says of a program.
//!
//! It holds nothing that differs from one run to the next: no time, no nonce.

use sha2::{Digest as _, Sha256};

use super::der::{
    BIT_STRING, Certificate, INTEGER, NULL, OBJECT, OCTET_STRING, SEQUENCE, SET, all, value,
};

/// 1.2.840.113549.1.7.2, signed data.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// 1.2.840.113549.1.9.3, the type of the content.
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
/// 1.2.840.113549.1.9.4, the digest of the content.
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
/// 1.2.840.113549.1.1.1, RSA.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 2.16.840.1.101.3.4.2.1, SHA-256.
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// 1.3.6.1.4.1.311.2.1.4, what Authenticode signs.
const INDIRECT_DATA: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x04];
/// 1.3.6.1.4.1.311.2.1.15, about a program.
const PE_IMAGE: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x0f];
/// What every signer writes where the file's name once was, in UTF-16.
const OBSOLETE: &str = "<<<Obsolete>>>";

fn object(id: &[u8]) -> Vec<u8> {
    value(OBJECT, id)
}

fn algorithm(id: &[u8]) -> Vec<u8> {
    all(SEQUENCE, &[&object(id), &value(NULL, &[])])
}

/// Writes `SpcIndirectDataContent` without the tag and length around it, which its digest leaves out.
pub(super) fn content(digest: &[u8; 32]) -> Vec<u8> {
    let text: Vec<u8> = OBSOLETE.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let name = value(0xa0, &value(0xa2, &value(0x80, &text)));
    let no_flags = value(BIT_STRING, &[0]);
    let image = all(SEQUENCE, &[&no_flags, &name]);
    let about = all(SEQUENCE, &[&object(PE_IMAGE), &image]);
    let digest = all(
        SEQUENCE,
        &[&algorithm(SHA256), &value(OCTET_STRING, digest)],
    );
    [about, digest].concat()
}

/// The attributes that are signed in place of the content.
pub(super) struct Attributes(Vec<u8>);

/// Writes them in DER's order of a set: the shorter one first.
pub(super) fn attributes(content: &[u8]) -> Attributes {
    let attribute = |id: &[u8], content: &[u8]| all(SEQUENCE, &[&object(id), &value(SET, content)]);
    let digest: [u8; 32] = Sha256::digest(content).into();
    let mut both = [
        attribute(CONTENT_TYPE, &object(INDIRECT_DATA)),
        attribute(MESSAGE_DIGEST, &value(OCTET_STRING, &digest)),
    ];
    both.sort();
    Attributes(both.concat())
}

impl Attributes {
    /// What the key signs: the attributes with the tag of a set (RFC 5652 §5.4).
    pub(super) fn to_sign(&self) -> Vec<u8> {
        value(SET, &self.0)
    }
}

/// Writes the whole message.
pub(super) fn message(
    content: &[u8],
    certificate: &Certificate,
    attributes: &Attributes,
    signature: &[u8],
) -> Vec<u8> {
    let one = value(INTEGER, &[1]);
    let signer = all(
        SEQUENCE,
        &[
            &one,
            &certificate.name(),
            &algorithm(SHA256),
            &value(0xa0, &attributes.0),
            &algorithm(RSA),
            &value(OCTET_STRING, signature),
        ],
    );
    let content = value(0xa0, &value(SEQUENCE, content));
    let data = all(
        SEQUENCE,
        &[
            &one,
            &value(SET, &algorithm(SHA256)),
            &all(SEQUENCE, &[&object(INDIRECT_DATA), &content]),
            &value(0xa0, certificate.der()),
            &value(SET, &signer),
        ],
    );
    all(SEQUENCE, &[&object(SIGNED_DATA), &value(0xa0, &data)])
}
