//! Any bytes as the archive that Google's cloud takes, packed and not: reading it in one pass ends, and never gives
//! more than it says.
#![no_main]

use std::io::{Cursor, Read};

use image_disk::gce;
use libfuzzer_sys::fuzz_target;

/// More is read of no archive here: a kilobyte unpacks to a megabyte.
const MOST: u64 = 8 << 20;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // Nobody who mutates bytes finds the checksums of gzip and tar.
    let mut tar = bytes.to_vec();
    if tar.len() >= 512 {
        tar[257..265].copy_from_slice(b"ustar  \0");
        tar[..9].copy_from_slice(b"disk.raw\0");
        tar[148..156].fill(b' ');
        let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    check(&stored(&tar));
});

fn check(archive: &[u8]) {
    let Ok(mut disk) = gce::open(Cursor::new(archive)) else {
        return;
    };
    let size = disk.size();
    let mut read = 0;
    let mut buffer = [0; 4096];
    while read < size.min(MOST) {
        match disk.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => read += length as u64,
            Err(_) => return,
        }
    }
    assert!(read <= size, "no more than it says");
    if read == size {
        let _ = disk.finish();
    }
}

/// One gzip member of stored blocks.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    for block in bytes.chunks(0xffff) {
        let length = block.len() as u16;
        out.push(0);
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    out.extend([1, 0, 0, 0xff, 0xff]);
    let sum = !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    });
    out.extend(sum.to_le_bytes());
    out.extend((bytes.len() as u32).to_le_bytes());
    out
}
