//! Any bytes as a log entry, told in words.
#![no_main]

use ipmi::sel::Entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = Entry::decode(bytes) {
        let told = entry.into_words();
        assert!(!told.subject.is_empty());
        assert!(!told.message.is_empty());
    }
});
