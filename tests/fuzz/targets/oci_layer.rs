//! Any bytes as a layer, plain or compressed: laying it ends within its limits, and the tree has no path that leads out of it.
#![no_main]

use image_oci::archive::read::Limits;
use image_oci::flatten::{Progress, lay_any};
use image_tree::Tree;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    entries: 1000,
    bytes: 1 << 20,
};

fuzz_target!(|bytes: &[u8]| {
    let mut tree = Tree::new();
    let mut progress = Progress::default();
    let first = lay_any(&mut tree, bytes, LIMITS, &mut progress);
    for (path, _) in tree.iter() {
        assert!(
            path.is_empty()
                || path
                    .split(|byte| *byte == b'/')
                    .all(|name| !matches!(name, b"" | b"." | b".."))
        );
    }
    assert!(tree.get(b"").is_some(), "the root stays");
    if first.is_ok() {
        // The same layer once more says nothing new.
        let before = tree.listing();
        lay_any(&mut tree, bytes, LIMITS, &mut Progress::default()).expect("it was read before");
        assert_eq!(tree.listing(), before);
    }
});
