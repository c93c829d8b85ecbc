//! A partition table that anybody wrote, as `verify` reads it: no panic, and every partition is on the disk.
#![no_main]

use image_disk::gpt;
use libfuzzer_sys::fuzz_target;

/// Where the entries stand that the header is made to point at.
const ENTRIES: usize = 1024;

fuzz_target!(|bytes: &[u8]| {
    check(bytes.to_vec());
    // A checksum is found by nobody who mutates bytes: the table gets those that it should have.
    let mut disk = bytes.to_vec();
    disk.resize(disk.len().max(64 << 10), 0);
    disk[512..520].copy_from_slice(b"EFI PART");
    disk[524..528].copy_from_slice(&92u32.to_le_bytes());
    disk[584..592].copy_from_slice(&2u64.to_le_bytes());
    disk[592..596].copy_from_slice(&128u32.to_le_bytes());
    disk[596..600].copy_from_slice(&128u32.to_le_bytes());
    let sum = crc32(&disk[ENTRIES..ENTRIES + 128 * 128]);
    disk[600..604].copy_from_slice(&sum.to_le_bytes());
    disk[528..532].fill(0);
    let sum = crc32(&disk[512..604]);
    disk[528..532].copy_from_slice(&sum.to_le_bytes());
    check(disk);
});

fn check(disk: Vec<u8>) {
    let size = disk.len() as u64;
    for partition in gpt::read(&disk).unwrap_or_default() {
        assert!(partition.size >= 512);
        assert!(partition.at + partition.size <= size);
        assert!(partition.name.chars().count() <= 36);
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (sum >> 8) ^ TABLE[(sum as u8 ^ byte) as usize]
    })
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut sum, mut bit) = (index as u32, 0);
        while bit < 8 {
            sum = (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
};
