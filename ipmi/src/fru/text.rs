//! Text fields with a type and a length in front, as FRU areas and sensor records have them.

/// The text of a field of type `kind` (0 to 3); none where nothing is in it that can be read.
pub(crate) fn text(kind: u8, bytes: &[u8]) -> Option<String> {
    let text = match kind & 0x03 {
        // Binary, in FRU areas; Unicode, in sensor records, which nobody has been seen to use.
        0 => nibbles(bytes, b"0123456789abcdef"),
        // BCD plus.
        1 => nibbles(bytes, b"0123456789 -.:,_"),
        2 => six_bits(bytes),
        // Latin 1: its characters have their own numbers in Unicode.
        _ => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    let text: String = text
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Two characters for each byte, from these sixteen.
fn nibbles(bytes: &[u8], digits: &[u8; 16]) -> String {
    let digit = |nibble: u8| char::from(digits[usize::from(nibble & 0x0f)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}

/// Six bits a character, low bits first: four characters in three bytes.
fn six_bits(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let packed = group
            .iter()
            .rev()
            .fold(0_u32, |packed, byte| packed << 8 | u32::from(*byte));
        let characters = group.len() * 8 / 6;
        for index in 0..characters {
            let six = u8::try_from(packed >> (6 * index) & 0x3f).unwrap_or(0);
            text.push(char::from(0x20 + six));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_text_is_read() {
        let cases: [(&str, u8, &[u8], Option<&str>); 8] = [
            ("latin", 3, b"SIM0001 ", Some("SIM0001")),
            ("latin beyond ascii", 3, b"M\xfcller", Some("M\u{fc}ller")),
            ("control characters", 3, b"a\x00\x1b[31m", Some("a[31m")),
            ("bcd plus", 1, &[0x12, 0x3b, 0x4c], Some("123-4.")),
            // The example of the definition: "IPMI" packs to 29 DC A6.
            ("six bits", 2, &[0x29, 0xdc, 0xa6], Some("IPMI")),
            ("six bits, cut", 2, &[0x29], Some("I")),
            ("binary", 0, &[0xde, 0xad], Some("dead")),
            ("nothing", 3, b"  \x00", None),
        ];
        for (name, kind, bytes, expected) in cases {
            assert_eq!(text(kind, bytes).as_deref(), expected, "{name}");
        }
    }
}
