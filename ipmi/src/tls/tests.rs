//! The judgement of certificates.

use super::*;

/// A certificate of X.509 version 1, as old BMCs make themselves: `openssl req -new | openssl x509 -req -signkey`.
const VERSION_1: &[u8] = include_bytes!("version-1.der");

#[test]
fn a_certificate_without_extensions_has_a_fingerprint() {
    // openssl x509 -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum
    let expected = include_str!("version-1.sha256").trim();
    let found = fingerprint(VERSION_1).unwrap();
    assert_eq!(found.to_string(), format!("sha256:{expected}"));
}

#[test]
fn what_is_no_certificate_is_an_error() {
    for bytes in [&b""[..], b"\x30\x82\xff\xff", &VERSION_1[..100]] {
        assert!(fingerprint(bytes).is_err(), "{bytes:?}");
    }
    let text = Trust::Authority(b"no certificate at all".as_slice().into());
    assert!(matches!(client(&text), Err(Error::Insecure { .. })));
}

#[test]
fn elements_end_within_their_bytes() {
    let cases: [(&[u8], Option<&[u8]>); 6] = [
        (&[0x30, 2, 1, 2, 9], Some(&[1, 2])),
        (&[0x30, 0x81, 1, 7], Some(&[7])),
        (&[0x30, 0x82, 0, 1, 7], Some(&[7])),
        (&[0x30, 3, 1, 2], None),
        (&[0x30, 0x80, 1, 2], None),
        (&[0x30], None),
    ];
    for (der, expected) in cases {
        assert_eq!(element(der).map(|(inside, _)| inside), expected, "{der:?}");
    }
}
