//! Matching of a device's modalias against a module's alias pattern, as `fnmatch(3)` without
//! flags does it: `*`, `?` and `[…]`.
//!
//! It reads no file and knows no bus.

/// Tells whether a whole text matches a pattern.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the last `*` has to take one byte more. Only the last one is ever
    // needed, so time is bounded by the product of both lengths.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        let step = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(_), Some(&byte)) => one(&pattern[p..], byte),
            _ => None,
        };
        if let Some(length) = step {
            p += length;
            t += 1;
        } else if let Some((star, taken)) = retry.filter(|&(_, taken)| taken < text.len()) {
            retry = Some((star, taken + 1));
            (p, t) = (star, taken + 1);
        } else {
            return false;
        }
    }
}

/// Matches one byte against the pattern's first element and returns the length of that element.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' => (*pattern.get(1)? == byte).then_some(2),
        b'[' => match set(pattern, byte) {
            Some((length, true)) => Some(length),
            Some((_, false)) => None,
            None => (byte == b'[').then_some(1),
        },
        literal => (literal == byte).then_some(1),
    }
}

/// Reads a `[…]` set; returns its length and whether it holds the byte, or nothing when it has
/// no end and so is no set.
fn set(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    let mut at = start;
    let mut found = false;
    loop {
        let first = *pattern.get(at)?;
        if first == b']' && at > start {
            return Some((at + 1, found != negated));
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(&last)) if last != b']' => {
                found |= (first..=last).contains(&byte);
                at += 3;
            }
            _ => {
                found |= first == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        let pci = "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00";
        let cases = [
            (
                "a driver's device",
                "pci:v00001AF4d00001000sv*sd*bc*sc*i*",
                pci,
                true,
            ),
            (
                "another device",
                "pci:v00001AF4d00001001sv*sd*bc*sc*i*",
                pci,
                false,
            ),
            ("by class", "pci:v*d*sv*sd*bc02sc00i*", pci, true),
            (
                "the virtio bus",
                "virtio:d00000001v*",
                "virtio:d00000001v00001AF4",
                true,
            ),
            ("one byte", "a?c", "abc", true),
            ("one byte missing", "a?", "a", false),
            ("a range", "usb:v0[0-9A-C]*", "usb:v0B", true),
            ("outside a range", "usb:v0[0-9A-C]*", "usb:v0D", false),
            ("not in a set", "a[!bc]d", "axd", true),
            ("a bracket in a set", "a[]]b", "a]b", true),
            ("a set without an end", "a[b", "a[b", true),
            ("a dash at the end of a set", "[a-]", "-", true),
            ("escaped", "a\\*b", "a*b", true),
            ("escaped, another byte", "a\\*b", "axb", false),
            ("stars together", "a**b", "ab", true),
            ("a prefix is not enough", "abc", "abcd", false),
            ("empty and empty", "", "", true),
            ("empty and some", "", "a", false),
            ("a star and nothing", "*", "", true),
        ];
        for (name, pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{name}");
        }
    }

    /// The definition, slow and plain: for patterns of letters, `*` and `?`.
    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                slow(rest, text) || text.split_first().is_some_and(|(_, t)| slow(pattern, t))
            }
            (Some((p, rest)), Some((t, tail))) => (*p == b'?' || p == t) && slow(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn the_last_star_is_enough(pattern in "[ab*?]{0,10}", text in "[ab]{0,10}") {
            prop_assert_eq!(matches(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_text_panics(pattern in ".{0,20}", text in ".{0,20}") {
            let _answer = matches(&pattern, &text);
        }
    }
}
