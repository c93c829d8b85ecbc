//! Keys and certificates as text (RFC 7468), or as the bytes behind it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Returns the bytes of the first block with one of these labels, or what is no text as it is.
pub(super) fn decode(bytes: &[u8], labels: &[&str]) -> Option<Zeroizing<Vec<u8>>> {
    // Every value of DER that is taken here begins with the tag of a sequence and a long length.
    if bytes.starts_with(&[0x30]) && bytes.get(1).is_some_and(|length| *length >= 0x80) {
        return Some(Zeroizing::new(bytes.to_vec()));
    }
    let text = std::str::from_utf8(bytes).ok()?;
    labels.iter().find_map(|label| block(text, label))
}

fn block(text: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: Vec<u8> = body
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let body = Zeroizing::new(body);
    STANDARD.decode(&*body).ok().map(Zeroizing::new)
}
