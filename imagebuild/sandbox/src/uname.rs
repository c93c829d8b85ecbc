//! What `uname` tells programs: the same on every computer, since scripts write it into files.
//!
//! It refuses to tell of the kernel that runs: only the name of its processor is true.

use std::env::consts::ARCH;

/// Bytes of one field, with the zero at its end (`struct new_utsname`).
const FIELD: usize = 65;
/// Release: the oldest kernel of which scripts of any release that is built today expect something.
const RELEASE: &str = "6.1.0";

/// Returns the structure that the call fills.
pub(crate) fn answer() -> Vec<u8> {
    let fields = ["Linux", HOST, RELEASE, "#1 SMP", ARCH, "(none)"];
    let mut bytes = Vec::with_capacity(fields.len() * FIELD);
    for (at, field) in fields.into_iter().enumerate() {
        bytes.resize(at * FIELD, 0);
        bytes.extend(field.bytes().take(FIELD - 1));
    }
    bytes.resize(fields.len() * FIELD, 0);
    bytes
}

/// The host's name in every sandbox.
pub(crate) const HOST: &str = "localhost";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_is_the_kernels() {
        let bytes = answer();
        assert_eq!(bytes.len(), size_of::<libc::utsname>());
        let field = |at: usize| {
            let text = &bytes[at * FIELD..(at + 1) * FIELD];
            let end = text.iter().position(|byte| *byte == 0).unwrap();
            String::from_utf8(text[..end].to_vec()).unwrap()
        };
        assert_eq!([field(0), field(1)], ["Linux", "localhost"]);
        assert_eq!([field(2), field(4), field(5)], [RELEASE, ARCH, "(none)"]);
    }
}
