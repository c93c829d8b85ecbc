//! Any bytes as a program for UEFI: its sections are in it, what is composed on top of it reads back, and what is signed
//! of it is in it.
#![no_main]

#[allow(dead_code, unreachable_pub)]
#[path = "../../../imagebuild/src/secure_boot/program.rs"]
mod program;

use image_disk::{ReadAt, pe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = bytes.to_vec();
    let size = file.len() as u64;
    for found in pe::sections(&file).unwrap_or_default() {
        assert!(found.at + found.size <= size, "{found:?}");
    }
    if let Ok(program) = program::Program::decode(bytes, size) {
        for range in &program.hashed {
            assert!(range.start <= range.end && range.end <= size, "{range:?}");
        }
    }
    let (words, kernel) = (b"quiet\0".to_vec(), vec![7; 5000]);
    let added = [(".cmdline", &words), (".linux", &kernel)];
    let sections = added.map(|(name, content)| pe::Section { name, content });
    let mut composed = Vec::new();
    if pe::compose(&file, &sections, &mut composed).is_err() {
        return;
    }
    // A stub that has a section of that name already keeps it, before ours.
    let Ok(found) = pe::sections(&composed) else {
        panic!("what was composed cannot be read");
    };
    for (name, content) in added {
        let ours = found.iter().rfind(|found| found.name == name);
        let ours = ours.unwrap_or_else(|| panic!("{name} is missing"));
        assert!(ours.size >= content.len() as u64);
        let mut there = vec![0; content.len()];
        composed
            .read_exact_at(ours.at, &mut there)
            .expect("a section is in its program");
        assert_eq!(&there, content, "{name}");
    }
});
