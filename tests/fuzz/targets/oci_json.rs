//! Any bytes as a document of an OCI image: reading it ends, and what was read is written as the same again.
#![no_main]

use image_oci::spec::{Config, Document, INDEX, MANIFEST, to_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for said in [None, Some(MANIFEST), Some(INDEX)] {
        let Ok(document) = Document::parse(bytes, said) else {
            continue;
        };
        let (written, said) = match &document {
            Document::Manifest(manifest) => (to_json(manifest), MANIFEST),
            Document::Index(index) => (to_json(index), INDEX),
        };
        let again = Document::parse(&written, Some(said)).expect("what we write is read");
        assert_eq!(again, document);
    }
    if let Ok(config) = Config::parse(bytes) {
        let again = Config::parse(&to_json(&config)).expect("what we write is read");
        assert_eq!(again, config);
    }
});
