//! File names as clients write them.
//!
//! It refuses names that climb: nothing above the served names has a name here.

/// Brings a name into the form that files are listed under: `/` between parts, none before, none empty.
///
/// Windows boot managers write `\`, firmware puts a slash before the name or doubles it.
pub(super) fn normalise(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => return None,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_shapes_of_firmware() {
        let cases = [
            ("ipxe.efi", Some("ipxe.efi")),
            ("/ipxe.efi", Some("ipxe.efi")),
            ("//ipxe.efi", Some("ipxe.efi")),
            (r"\Boot\x64\wdsnbp.com", Some("Boot/x64/wdsnbp.com")),
            ("./a//b", Some("a/b")),
            ("../etc/passwd", None),
            (r"a\..\b", None),
            ("..", None),
            ("/", None),
            ("a..b", Some("a..b")),
        ];
        for (name, expected) in cases {
            assert_eq!(normalise(name).as_deref(), expected, "{name}");
        }
    }
}
