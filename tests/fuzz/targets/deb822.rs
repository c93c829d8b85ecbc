//! Any text as a control file: every field of every stanza can be read.
#![no_main]

use deb_archive::deb822;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for stanza in deb822::stanzas(text) {
        for (name, value) in stanza.fields() {
            assert!(
                text.contains(name) && text.contains(value),
                "fields are parts of the text"
            );
        }
    }
});
