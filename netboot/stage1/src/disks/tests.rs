//! A `/sys/block` made by hand, and the table that `sfdisk` wrote.

use super::*;

const TABLE: &[u8] = include_bytes!("../gpt/two-partitions.bin");
/// The identities of the two partitions in that table, as one root hash.
const HASH: &str = "111111112222333344445555555555550123456789abcdef0123456789abcdef";

fn hash(text: &str) -> RootHash {
    text.parse().ok().unwrap()
}

/// A disk of 4 MiB with the table at its beginning, or as a copy at its end only.
fn blocks(first: &[u8]) -> Blocks {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4 << 20).unwrap();
    file.write_all_at(first, 512).unwrap();
    Blocks {
        file,
        size: 512,
        count: 8192,
    }
}

/// Shows the partitions as the kernel does.
fn system(entries: &[(&str, &str, u64, u64)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, number, start, size) in entries {
        let path = root.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("partition"), format!("{number}\n")).unwrap();
        fs::write(path.join("start"), format!("{start}\n")).unwrap();
        fs::write(path.join("size"), format!("{size}\n")).unwrap();
    }
    fs::create_dir(root.path().join("queue")).unwrap();
    root
}

#[test]
fn both_partitions_of_a_root_hash_are_found_and_nothing_less() {
    let partitions = blocks(TABLE).partitions().unwrap();
    let [root, hashes] = both(&partitions, &hash(HASH)).unwrap();
    assert_eq!((root.number, hashes.number), (1, 3));
    let other = HASH.replace("0123456789abcdef", "ffffffffffffffff");
    let problem = both(&partitions, &hash(&other)).unwrap_err();
    assert_eq!(problem.to_string(), "the image's hash tree is missing");
    let other = HASH.replace('1', "e");
    let problem = both(&partitions, &hash(&other)).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "2 partitions, none of them this image's"
    );
}

#[test]
fn a_partition_is_taken_only_where_the_kernel_shows_the_same_one() {
    let partitions = blocks(TABLE).partitions().unwrap();
    let sys = system(&[("vda1", "1", 2048, 2048), ("vda3", "3", 4096, 2049)]);
    let found = shown(sys.path(), &partitions[0], 512).unwrap();
    assert_eq!(found.path, Path::new("/dev/vda1"));
    assert_eq!(found.size, 1 << 20);
    assert_eq!(shown(sys.path(), &partitions[1], 512), None);
    // A disk of blocks of 4096 bytes has its partitions elsewhere.
    assert_eq!(shown(sys.path(), &partitions[0], 4096), None);
}

#[test]
fn a_damaged_table_is_made_good_by_its_copy() {
    let mut damaged = TABLE.to_vec();
    damaged[700] ^= 1;
    let disk = blocks(&damaged);
    let problem = disk.partitions().unwrap_err().to_string();
    assert!(problem.contains("list of partitions"), "{problem}");
    // The copy's header is the last block, and its entries stand before it.
    let mut header = TABLE[..512].to_vec();
    let last: u64 = 8191;
    header[24..32].copy_from_slice(&last.to_le_bytes());
    header[72..80].copy_from_slice(&(last - 32).to_le_bytes());
    crate::gpt::sign(&mut header);
    disk.file.write_all_at(&header, last * 512).unwrap();
    disk.file
        .write_all_at(&TABLE[512..], (last - 32) * 512)
        .unwrap();
    assert_eq!(disk.partitions().unwrap().len(), 2);
}

#[test]
fn what_was_looked_at_is_said() {
    let nowhere = search(Path::new("/nonexistent"), &hash(HASH)).unwrap_err();
    assert_eq!(nowhere.to_string(), "this host shows no disk");
    let seen = Seen(vec![
        ("sda".to_owned(), NoTable::Absent.into()),
        ("sdb".to_owned(), Unfit::Other(3)),
    ]);
    assert_eq!(
        seen.to_string(),
        "sda: no partition table, sdb: 3 partitions, none of them this image's"
    );
}
