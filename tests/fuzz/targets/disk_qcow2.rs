//! Any bytes as a qcow2 file: opening and reading it ends, and memory follows from the file's own limits.
#![no_main]

use image_disk::{ReadAt, qcow2};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = bytes.to_vec();
    let Ok(disk) = qcow2::open(&file) else {
        return;
    };
    // Its ends, and places that a small file can have tables for.
    let size = disk.size();
    let places = [0, 511, 65_535, size / 2, size.saturating_sub(700)];
    for at in places {
        let length = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut buffer = vec![1; length.min(70_000)];
        let first = disk.read_exact_at(at, &mut buffer).is_ok();
        let mut again = vec![2; buffer.len()];
        assert_eq!(first, disk.read_exact_at(at, &mut again).is_ok());
        assert!(!first || buffer == again, "the same place reads the same");
    }
    assert!(disk.read_exact_at(size, &mut [0]).is_err());
});
