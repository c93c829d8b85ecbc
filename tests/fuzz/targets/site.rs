//! Any text as a site: all its problems are told, each with a place in the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netboot_core::site::{Site, SourceFile};

fuzz_target!(|text: &str| {
    let file = SourceFile {
        path: "site.toml".into(),
        text: text.into(),
    };
    if let Err(problems) = Site::check(&[file]) {
        assert!(!problems.is_empty(), "a refusal has a reason");
    }
});
