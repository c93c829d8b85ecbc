//! The little of DER (X.690) that a signature needs: values written, and a certificate's fields found.
//!
//! It refuses lengths that are not written the one way DER allows.

/// Tags that are used here.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OBJECT: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Writes a value with its tag and length.
pub(super) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut bytes = vec![tag];
    if let Ok(short @ ..0x80) = u8::try_from(length) {
        bytes.push(short);
    } else {
        let digits = length.to_be_bytes();
        let first = digits.iter().position(|byte| *byte != 0).unwrap_or(0);
        let digits = &digits[first..];
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a length has eight digits at most"
        )]
        bytes.push(0x80 | digits.len() as u8);
        bytes.extend(digits);
    }
    bytes.extend(content);
    bytes
}

/// Writes values one after the other with one tag around them.
pub(super) fn all(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    value(tag, &parts.concat())
}

/// A value that was read.
#[derive(Clone, Copy)]
struct Value<'a> {
    tag: u8,
    content: &'a [u8],
    /// With tag and length.
    whole: &'a [u8],
}

/// Takes the first value off.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<Value<'a>> {
    let (tag, first) = (*bytes.first()?, *bytes.get(1)?);
    let (length, head) = if first < 0x80 {
        (usize::from(first), 2)
    } else {
        let count = usize::from(first & 0x7f);
        let digits = bytes.get(2..2 + count)?;
        if !(1..=4).contains(&count) || digits[0] == 0 {
            return None;
        }
        let length = digits
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        (length, 2 + count)
    };
    let (whole, rest) = bytes.split_at_checked(head.checked_add(length)?)?;
    *bytes = rest;
    Some(Value {
        tag,
        content: &whole[head..],
        whole,
    })
}

fn expect<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<Value<'a>> {
    take(bytes).filter(|value| value.tag == tag)
}

/// An X.509 certificate, with what a signature says of it.
pub(super) struct Certificate {
    whole: Vec<u8>,
    issuer: Vec<u8>,
    serial: Vec<u8>,
    public_key: Vec<u8>,
}

impl Certificate {
    /// Finds the fields of a certificate (RFC 5280 §4.1).
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut outside = bytes;
        let whole = expect(&mut outside, SEQUENCE)?;
        let mut signed = whole.content;
        let mut fields = expect(&mut signed, SEQUENCE)?.content;
        // Absent in certificates of version 1.
        if fields.first() == Some(&0xa0) {
            take(&mut fields)?;
        }
        let serial = expect(&mut fields, INTEGER)?;
        expect(&mut fields, SEQUENCE)?;
        let issuer = expect(&mut fields, SEQUENCE)?;
        let (_validity, _subject) = (
            expect(&mut fields, SEQUENCE)?,
            expect(&mut fields, SEQUENCE)?,
        );
        let mut key = expect(&mut fields, SEQUENCE)?.content;
        expect(&mut key, SEQUENCE)?;
        // The first byte says how many bits of the last one are unused.
        let public_key = expect(&mut key, BIT_STRING)?.content.strip_prefix(&[0])?;
        outside.is_empty().then(|| Self {
            whole: whole.whole.to_vec(),
            issuer: issuer.whole.to_vec(),
            serial: serial.whole.to_vec(),
            public_key: public_key.to_vec(),
        })
    }

    /// The certificate itself.
    pub(super) fn der(&self) -> &[u8] {
        &self.whole
    }

    /// Who issued it and under which number: how a signature names it.
    pub(super) fn name(&self) -> Vec<u8> {
        all(SEQUENCE, &[&self.issuer, &self.serial])
    }

    /// The key that it is about.
    pub(super) fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}
