//! The stage1 program that every initrd carries.
//!
//! Its bytes were made when this program was built (`build.rs`) and follow from the sources, the
//! compiler and the C library alone. It is never changed and never looked into here.

/// The static program that the initrd holds as `/init`.
pub static INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(text: &str) -> bool {
        INIT.windows(text.len())
            .any(|bytes| bytes == text.as_bytes())
    }

    #[test]
    fn stage1_is_a_small_static_program() {
        assert_eq!(INIT[..5], *b"\x7fELF\x02");
        assert!(INIT.len() < 2 * 1024 * 1024, "{} bytes", INIT.len());
        assert!(!contains("/lib64/ld-linux"), "it asks for a dynamic loader");
    }

    #[test]
    fn stage1_knows_nothing_of_where_it_was_built() {
        let home = std::env::home_dir().map(|home| home.join(".cargo"));
        let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/");
        assert!(!contains(workspace), "{workspace}");
        assert!(!contains(&home.unwrap_or_default().display().to_string()));
        assert!(!contains("registry/src"));
    }
}
