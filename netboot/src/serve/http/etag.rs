//! Entity tags (RFC 9110 §8.8.3): the digest of a file is its tag.
//!
//! It refuses weak tags and dates: bytes that differ have another digest, and a store has no clock.

use image_manifest::Digest;

/// Writes the tag of a file.
pub(super) fn of(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Tells whether `If-None-Match` names the file: the client has it (RFC 9110 §13.1.2, weak comparison).
pub(super) fn names(list: &str, tag: &str) -> bool {
    any(list, |listed| {
        listed.strip_prefix("W/").unwrap_or(listed) == tag
    })
}

/// Tells whether `If-Match` names the file (RFC 9110 §13.1.1, strong comparison).
pub(super) fn names_strongly(list: &str, tag: &str) -> bool {
    any(list, |listed| listed == tag)
}

/// Tells whether `If-Range` names the file (RFC 9110 §13.1.5). A date never does: we give none.
pub(super) fn is(value: &str, tag: &str) -> bool {
    value.trim() == tag
}

/// Our tags hold no comma, so cutting foreign ones in two does no harm.
fn any(list: &str, is: impl Fn(&str) -> bool) -> bool {
    let list = list.trim();
    list == "*" || list.split(',').any(|listed| is(listed.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_compare_as_the_rfc_says() {
        let tag = of(&Digest::of(b"x"));
        let weak = format!("W/{tag}");
        let list = format!("\"other\", {weak}");
        let cases = [
            ("the tag", tag.as_str(), (true, true, true)),
            ("weak", weak.as_str(), (true, false, false)),
            ("in a list", list.as_str(), (true, false, false)),
            ("any", "*", (true, true, false)),
            ("another", "\"other\"", (false, false, false)),
            (
                "a date",
                "Sat, 29 Oct 1994 19:43:31 GMT",
                (false, false, false),
            ),
        ];
        for (name, value, expected) in cases {
            let found = (
                names(value, &tag),
                names_strongly(value, &tag),
                is(value, &tag),
            );
            assert_eq!(found, expected, "{name}");
        }
    }
}
