//! Sizes as people write them, such as `400 MB` or `1 GiB`.
//!
//! It refuses numbers without a unit: nobody knows what they meant.

/// Units, and how many bytes each is.
const UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Reads a size.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let end = text.find(|byte: char| !byte.is_ascii_digit())?;
    let number: u64 = text[..end].parse().ok()?;
    let unit = text[end..].trim_start_matches(' ');
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*bytes)
}

/// Writes a size in megabytes, for people.
#[must_use]
pub fn megabytes(bytes: u64) -> String {
    let tenths = (u128::from(bytes) + 50_000) / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let cases = [
            ("400 MB", Some(400_000_000)),
            ("400MB", Some(400_000_000)),
            ("2 GiB", Some(2 << 30)),
            ("0 B", Some(0)),
            ("400", None),
            ("MB", None),
            ("", None),
            ("-1 MB", None),
            ("1.5 MB", None),
            ("1 mb", None),
            ("99999999999999999999 B", None),
            ("99999999999999 GiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(megabytes(1_249_999), "1.2 MB");
        assert_eq!(megabytes(999_950_000), "1000.0 MB");
    }
}
