//! A partition table and the parameters of a hash tree, as stage1 reads them from a disk that anybody wrote: no panic,
//! no memory without a bound, and partitions that have blocks.
#![no_main]

#[allow(dead_code, unreachable_pub)]
#[path = "../../../netboot/stage1/src/gpt.rs"]
mod gpt;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../netboot/stage1/src/verity.rs"]
mod verity;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(superblock) = verity::Superblock::decode(bytes) {
        if let Ok(covered) = superblock.covered(1 << 30) {
            assert!((1..=1 << 30).contains(&covered));
        }
        assert!(superblock.device_uuid("root").len() < 129);
    }
    let (block, entries) = bytes.split_at(bytes.len().min(512));
    // A checksum is found by nobody who mutates bytes: the table gets those that it should have.
    let mut block = block.to_vec();
    if block.len() >= 92 {
        block[12..16].copy_from_slice(&92u32.to_le_bytes());
        let number = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap_or_default());
        let length = (number(80) as usize).saturating_mul(number(84) as usize);
        let sum = crc32(&entries[..length.min(entries.len())]);
        block[88..92].copy_from_slice(&sum.to_le_bytes());
        block[16..20].fill(0);
        let sum = crc32(&block[..92]);
        block[16..20].copy_from_slice(&sum.to_le_bytes());
    }
    let Ok(header) = gpt::Header::decode(&block, 1) else {
        return;
    };
    assert!((128..=1 << 20).contains(&header.length()));
    for partition in header.partitions(entries).unwrap_or_default() {
        assert!(partition.number >= 1 && partition.first <= partition.last);
    }
});

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}
