//! The table that `sfdisk` wrote is the judge; damage is found by checksum.

use proptest::prelude::*;

use super::*;

/// The first and the last blocks of a disk of 4 MiB with two partitions, as `sfdisk` wrote them.
const TABLE: &[u8] = include_bytes!("two-partitions.bin");

fn header() -> &'static [u8] {
    &TABLE[..512]
}

fn entries() -> &'static [u8] {
    &TABLE[512..]
}

#[test]
fn a_table_of_sfdisk_is_understood() {
    let header = Header::decode(header(), 1).unwrap();
    assert_eq!((header.entries_at, header.length()), (2, 128 * 128));
    let partitions = header.partitions(entries()).unwrap();
    let shown: Vec<_> = partitions
        .iter()
        .map(|p| {
            (
                p.number,
                p.kind.to_string(),
                p.id.to_string(),
                p.first,
                p.last,
            )
        })
        .collect();
    let expected = [
        (
            1,
            "4f68bce3-e8cd-4db1-96e7-fbcaf984b709".to_owned(),
            "11111111-2222-3333-4444-555555555555".to_owned(),
            2048,
            4095,
        ),
        (
            3,
            "4d21b016-b534-45c2-a9fb-5c16e091fd2d".to_owned(),
            "01234567-89ab-cdef-0123-456789abcdef".to_owned(),
            4096,
            6143,
        ),
    ];
    assert_eq!(shown, expected);
    assert_eq!(
        partitions[1].id,
        Guid::new(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)
    );
}

#[test]
fn no_damage_is_taken_for_a_table() {
    let change = |at: usize| {
        let mut changed = header().to_vec();
        changed[at] ^= 1;
        Header::decode(&changed, 1)
    };
    let cases = [
        ("signature", change(0), NoTable::Absent),
        ("length", change(13), NoTable::Checksum("header")),
        (
            "place of the entries",
            change(72),
            NoTable::Checksum("header"),
        ),
        ("elsewhere", Header::decode(header(), 2), NoTable::Sizes),
        ("short", Header::decode(&header()[..91], 1), NoTable::Absent),
        ("nothing", Header::decode(&[], 1), NoTable::Absent),
    ];
    for (name, found, expected) in cases {
        assert_eq!(found, Err(expected), "{name}");
    }
    let header = Header::decode(header(), 1).unwrap();
    let mut changed = entries().to_vec();
    changed[300] ^= 1;
    assert_eq!(
        header.partitions(&changed),
        Err(NoTable::Checksum("list of partitions"))
    );
    assert_eq!(header.partitions(&entries()[1..]), Err(NoTable::Sizes));
}

#[test]
fn the_checksum_is_that_of_everybody() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0u64..3) {
        if let Ok(header) = Header::decode(&bytes, at) {
            prop_assert!(header.length() <= 1024 * 1024);
        }
    }

    #[test]
    fn a_changed_bit_of_the_header_is_found(at in 0usize..92, bit in 0u8..8) {
        let mut changed = header().to_vec();
        changed[at] ^= 1 << bit;
        prop_assert!(Header::decode(&changed, 1).is_err());
    }
}
