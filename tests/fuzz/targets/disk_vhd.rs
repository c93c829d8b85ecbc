//! The last bytes of a file as the footer of a fixed VHD: what is taken for one is a disk of whole mebibytes before it.
#![no_main]

use image_disk::{ReadAt, vhd};
use libfuzzer_sys::fuzz_target;

/// A disk of zeros with a footer that anybody wrote.
struct File {
    footer: Vec<u8>,
    disk: u64,
}

impl ReadAt for File {
    fn size(&self) -> u64 {
        self.disk + self.footer.len() as u64
    }

    fn read_exact_at(&self, at: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        assert!(at + buffer.len() as u64 <= self.size(), "inside of the file");
        for (index, byte) in buffer.iter_mut().enumerate() {
            let at = at + index as u64;
            let footer = at.checked_sub(self.disk).map(|at| at as usize);
            *byte = footer.map_or(0, |at| self.footer[at]);
        }
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (mebibytes, footer) = bytes.split_at(bytes.len().min(2));
    let mebibytes = mebibytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let mut footer = footer.to_vec();
    check(mebibytes << 20, footer.clone());
    // A checksum is found by nobody who mutates bytes.
    if footer.len() >= 512 {
        let start = footer.len() - 512;
        footer[start + 64..start + 68].fill(0);
        let sum: u32 = footer[start..].iter().map(|byte| u32::from(*byte)).sum();
        footer[start + 64..start + 68].copy_from_slice(&(!sum).to_be_bytes());
        check(mebibytes << 20, footer);
    }
});

fn check(disk: u64, footer: Vec<u8>) {
    let file = File { footer, disk };
    let whole = file.size();
    if let Ok(found) = vhd::open(&file) {
        assert_eq!(found.size() + vhd::FOOTER, whole);
        assert_eq!(found.size() % image_disk::MIB, 0);
    }
}
